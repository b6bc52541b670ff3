//go:build !linux && !windows

package history

import (
	"errors"
	"os"
)

func syncData(f *os.File) error { return f.Sync() }

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// lockFile refuses: Tandem keeps logs on Linux and Windows only.
func lockFile(*os.File) error { return errors.ErrUnsupported }
