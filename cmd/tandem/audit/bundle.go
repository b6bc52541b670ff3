package audit

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/history"
)

// A bundle is a tar archive with the layout of a data directory, without its
// keys and caches: so that whatever reads a directory reads a bundle.
type bundle struct {
	file  *os.File
	files map[string]*io.SectionReader
}

// ErrNotBundle means that a file is no bundle.
var ErrNotBundle = errors.New("not a data directory and not a bundle")

// openBundle finds the files of a bundle.
func openBundle(name string) (*bundle, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the bundle: %w", err)
	}
	b := &bundle{file: f, files: map[string]*io.SectionReader{}}
	counted := &counter{r: f}
	for t := tar.NewReader(counted); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w: %w", name, ErrNotBundle, err), f.Close())
		}
		clean := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || clean != h.Name || strings.HasPrefix(clean, "../") || b.files[clean] != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w: it has an entry %q", name, ErrNotBundle, h.Name), f.Close())
		}
		b.files[clean] = io.NewSectionReader(f, counted.n, h.Size)
	}
	if b.files["checkpoint"] == nil {
		return nil, errors.Join(fmt.Errorf("%s: %w: it has no checkpoint", name, ErrNotBundle), f.Close())
	}
	return b, nil
}

// counter knows how far a file was read.
type counter struct {
	r io.ReadSeeker
	n int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Seek implements io.Seeker: package tar skips content by it.
func (c *counter) Seek(offset int64, whence int) (int64, error) {
	n, err := c.r.Seek(offset, whence)
	c.n = n
	return n, err
}

// Close lets go of the file.
func (b *bundle) Close() error { return b.file.Close() }

// Open implements history.Disk.
func (b *bundle) Open(name string) (history.File, error) {
	s := b.files[name]
	if s == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return section{s}, nil
}

// List implements history.Disk.
func (b *bundle) List(dir string) ([]history.Entry, error) {
	found := map[string]history.Entry{}
	for name, s := range b.files {
		rest, ok := strings.CutPrefix(name, dir+"/")
		if !ok {
			continue
		}
		first, _, deeper := strings.Cut(rest, "/")
		e := history.Entry{Name: first, Dir: deeper}
		if !deeper {
			e.Size = s.Size()
		}
		found[first] = e
	}
	out := make([]history.Entry, 0, len(found))
	for _, e := range found {
		out = append(out, e)
	}
	slices.SortFunc(out, func(x, y history.Entry) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

// Create implements history.Disk: a bundle is read only.
func (*bundle) Create(string, fs.FileMode) (history.File, error) { return nil, history.ErrReadOnly }

// Rename implements history.Disk: a bundle is read only.
func (*bundle) Rename(string, string) error { return history.ErrReadOnly }

// Remove implements history.Disk: a bundle is read only.
func (*bundle) Remove(string) error { return history.ErrReadOnly }

// SyncDir implements history.Disk: a bundle is read only.
func (*bundle) SyncDir(string) error { return history.ErrReadOnly }

// Lock implements history.Disk: a bundle is read only.
func (*bundle) Lock(string) (io.Closer, error) { return nil, history.ErrReadOnly }

// section is a file of a bundle.
type section struct{ *io.SectionReader }

// Size implements history.File.
func (s section) Size() (int64, error) { return s.SectionReader.Size(), nil }

// Close implements history.File: the bundle's file stays open.
func (section) Close() error { return nil }

// WriteAt implements history.File: a bundle is read only.
func (section) WriteAt([]byte, int64) (int, error) { return 0, history.ErrReadOnly }

// Truncate implements history.File: a bundle is read only.
func (section) Truncate(int64) error { return history.ErrReadOnly }

// Sync implements history.File: a bundle is read only.
func (section) Sync() error { return history.ErrReadOnly }
