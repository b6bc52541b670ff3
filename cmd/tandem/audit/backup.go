package audit

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Backup writes all that a controller needs to go on from: the log as of a
// checkpoint, what lies beside it, and the keys. It may run beside a controller.
// Caches and this machine's own life as a node are left out.
func Backup(ctx context.Context, dir string, w io.Writer) (history.Head, error) {
	a, keys, err := openWithKeys(dir)
	if err != nil {
		return history.Head{}, fmt.Errorf("back up %s: %w", dir, err)
	}
	head := a.Store.Head()
	b := &bundler{ctx: ctx, archive: a, tar: tar.NewWriter(w), at: time.Now().Truncate(time.Second)}
	err = b.statement("")
	if err == nil {
		err = b.log()
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		if err == nil {
			err = b.bytes(name, keys[name])
		}
	}
	if err == nil {
		err = b.rest(dir, head.Seq)
	}
	if err == nil {
		err = b.tar.Close()
	}
	if err = errors.Join(err, a.Close()); err != nil {
		return head, fmt.Errorf("back up %s: %w", dir, err)
	}
	return head, nil
}

// openWithKeys opens a directory for reading together with the key that signs its log:
// a controller may be changing it.
func openWithKeys(dir string) (*Archive, map[string][]byte, error) {
	const tries = 20
	for try := 1; ; try++ {
		a, err := Open(dir)
		if err != nil {
			return nil, nil, err
		}
		keys, err := a.Store.SigningFiles()
		if err == nil {
			return a, keys, nil
		}
		if err = errors.Join(err, a.Close()); !errors.Is(err, history.ErrKeyChanged) || try == tries {
			return nil, nil, err
		}
	}
}

// rest is every file that isn't written by itself: blobs, snapshots up to
// the checkpoint, certificates and users.
func (b *bundler) rest(dir string, end state.Seq) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed since
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if slices.Contains([]string{"log", "sources", "node"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || slices.Contains([]string{"lock", "checkpoint", "texts"}, name) || history.IsKeyFile(name) || strings.HasSuffix(name, ".tmp") {
			return nil
		}
		var seq uint64
		if base, ok := strings.CutPrefix(name, "snapshots/"); ok {
			if n, err := fmt.Sscanf(base, "%d.snap", &seq); n != 1 || err != nil || state.Seq(seq) > end {
				return nil //nolint:nilerr // a stranger, or newer than the copy
			}
		}
		content, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return b.bytes(name, content)
	})
}

// Restore unpacks a backup into a directory that is missing or empty, and
// verifies it.
func Restore(ctx context.Context, backup, dir string) (*history.Report, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("restore into %s: it is not empty; nothing was changed. Give a new directory, or move the old one away", dir)
	}
	b, err := openBundle(backup)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.files["log.key"] == nil {
		return nil, fmt.Errorf("%s is no backup: it holds no keys; a bundle is read as it is, with --data %s", backup, backup)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	part, err := os.MkdirTemp(parent, ".restore-")
	if err != nil {
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	report, err := b.unpack(ctx, part)
	if err == nil && report.OK() {
		if err = os.Remove(dir); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if err == nil {
			err = os.Rename(part, dir)
		}
	}
	if err != nil || !report.OK() {
		err = errors.Join(err, os.RemoveAll(part))
	}
	if err != nil {
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	return report, nil
}

// unpack writes a backup's files and verifies them.
func (b *bundle) unpack(ctx context.Context, dir string) (*history.Report, error) {
	for name, content := range b.files {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, fmt.Errorf("%w: it has an entry %q", ErrNotBundle, name)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, err
		}
		if err := unpackFile(file, content); err != nil {
			return nil, err
		}
	}
	return Verify(ctx, dir, Options{})
}

func unpackFile(file string, content io.Reader) error {
	mode := fs.FileMode(0o600)
	if base := path.Base(filepath.ToSlash(file)); base == "log.pub" || base == "checkpoint" || base == history.ChainFile {
		mode = 0o644
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
