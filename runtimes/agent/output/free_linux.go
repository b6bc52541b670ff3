package output

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// free gives back the blocks of what is taken. The writer appends meanwhile: a
// hole loses nothing, where cutting the file could.
func free(f *os.File, upTo int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, upTo)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // NFS, say: the raw file stays whole until its life ends
	}
	return err
}
