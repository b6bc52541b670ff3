//go:build !windows

package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// renameDurable flushes the directory too: the new name is an entry of it.
func renameDurable(from, to string) error {
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return errors.Join(err, dir.Close())
	}
	return errors.Join(dir.Sync(), dir.Close())
}
