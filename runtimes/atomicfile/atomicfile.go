// Package atomicfile replaces files as a whole: a reader, and whoever starts
// after a kill or a power cut, finds the old content or the new one, never a
// part. Nodes keep what they must remember in such files.
//
//	agent, runtimes ──► [ atomicfile: PATH.new ──► PATH ] ──► disk
//
// A path has one writer at a time. What a killed writer leaves is one file,
// PATH.new, which the next one replaces; so nothing piles up.
//
// No library does this on both systems: google/renameio refuses Windows, and
// others leave files of random names behind when they are killed.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// suffix of what is not yet whole.
const suffix = ".new"

// Write replaces a file. It survives this process; after a power cut the file may
// be the old one, the new one or empty: for what can be observed again.
func Write(path string, data []byte, perm fs.FileMode) error {
	if err := prepare(path, data, perm, false); err != nil {
		return err
	}
	return settle(path, os.Rename(path+suffix, path))
}

// WriteDurable replaces a file and returns when that survives a power cut: for
// what nobody else can say again.
func WriteDurable(path string, data []byte, perm fs.FileMode) error {
	if err := prepare(path, data, perm, true); err != nil {
		return err
	}
	return settle(path, renameDurable(path+suffix, path))
}

// prepare writes the content beside the file.
func prepare(path string, data []byte, perm fs.FileMode, sync bool) error {
	// A killed writer's file may have other permissions, or be a link elsewhere.
	if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	f, err := os.OpenFile(path+suffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	return settle(path, errors.Join(err, f.Close()))
}

// settle takes away what did not become the file: on a full disk it would be in
// the way of everybody else.
func settle(path string, err error) error {
	if err == nil {
		return nil
	}
	if gone := os.Remove(path + suffix); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return fmt.Errorf("replace %s: %w", path, err)
}
