package history

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Disk is what a log asks of a file system: names are slash-separated and
// relative to the data directory. Tests and the simulation give a Disk that
// fails, fills up, or forgets what was not synced.
type Disk interface {
	// Open opens a file for reading.
	Open(name string) (File, error)
	// Create opens a file for reading and writing, and makes it and its
	// directories where they are missing.
	Create(name string, perm fs.FileMode) (File, error)
	// List gives the files of a directory with their sizes, sorted by name;
	// nothing where the directory is missing.
	List(dir string) ([]Entry, error)
	// Rename replaces to by from.
	Rename(from, to string) error
	// Remove removes a file; one that isn't there is no error.
	Remove(name string) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(dir string) error
	// Lock takes the file for this process alone, or fails with ErrLocked.
	Lock(name string) (io.Closer, error)
}

// A File is an open file of a Disk.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	// Sync makes content and size durable. After an error nothing is known
	// of what is.
	Sync() error
}

// An Entry is a file or directory in a listing.
type Entry struct {
	Name string
	Size int64
	Dir  bool
}

// ErrLocked means that another process writes this data directory.
var ErrLocked = errors.New("another process uses this data directory")

// osDisk is the real one.
type osDisk struct{ root string }

func (d osDisk) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

func (d osDisk) Open(name string) (File, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d osDisk) Create(name string, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, perm)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.makeDir(filepath.Dir(d.path(name))); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, perm)
	}
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// makeDir makes a directory, and each of its new ancestors durable.
func (d osDisk) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := d.makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func (d osDisk) List(dir string) ([]Entry, error) {
	des, err := os.ReadDir(d.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, de := range des {
		info, err := de.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Entry{Name: de.Name(), Size: info.Size(), Dir: de.IsDir()})
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (d osDisk) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d osDisk) Remove(name string) error {
	err := os.Remove(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d osDisk) SyncDir(dir string) error { return syncDir(d.path(dir)) }

func (d osDisk) Lock(name string) (io.Closer, error) {
	if err := d.makeDir(filepath.Dir(d.path(name))); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return f, nil
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Sync() error { return syncData(f.File) }

// readFile reads a whole file.
func readFile(d Disk, name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

func readAll(f File) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// writeFile replaces a file by content, durably: either all of it is there
// afterwards or the file is as it was.
func writeFile(d Disk, name string, perm fs.FileMode, content []byte) error {
	tmp := name + ".tmp"
	f, err := d.Create(tmp, perm)
	if err != nil {
		return err
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(content, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.Rename(tmp, name)
	}
	if err != nil {
		_ = d.Remove(tmp) // the error that matters is err
		return err
	}
	return d.SyncDir(dirOf(name))
}

func dirOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
}
