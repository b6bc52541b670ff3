// Package historytest gives a disk in memory that fails when it is told to and
// forgets what was not synced: what a log has to survive.
//
//	sim, tests ──► [ historytest.Disk ] ◄── history
package historytest

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/history"
)

// ErrCrashed is what every operation answers after the crash.
var ErrCrashed = errors.New("the machine has crashed")

// A Fault is what happens instead of a write, sync, rename or truncation.
type Fault struct {
	At    int   // which one, counted from 1
	Err   error // what it answers; nil: the machine crashes
	Short bool  // a write takes half of its bytes first
}

// Disk is a history.Disk in memory. Content is volatile until Sync, entries of
// directories until SyncDir. It is safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	files   map[string]*inode // as the running system sees them
	durable map[string]*inode // entries that survive a crash
	fault   Fault
	ops     int
	crashed bool
	locked  bool
}

type inode struct {
	data   []byte
	stable []byte // what survives a crash
}

// NewDisk is an empty disk.
func NewDisk() *Disk { return &Disk{files: map[string]*inode{}, durable: map[string]*inode{}} }

// Inject sets the next fault and starts counting operations anew.
func (d *Disk) Inject(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault, d.ops = f, 0
}

// Ops is how many operations that change the disk there were since Inject.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Crash is the disk after a power loss: what was not synced is gone. keep says
// how many of the unsynced bytes at the end of a file got to the disk anyway;
// nil means none.
func (d *Disk) Crash(keep func(file string, unsynced int) int) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashed = true
	after := NewDisk()
	names := make([]string, 0, len(d.durable))
	for name := range d.durable {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		n := d.durable[name]
		data := slices.Clone(n.stable)
		if extra := len(n.data) - len(n.stable); keep != nil && extra > 0 {
			data = append(data, n.data[len(n.stable):len(n.stable)+keep(name, extra)]...)
		}
		after.files[name] = &inode{data: data, stable: slices.Clone(data)}
		after.durable[name] = after.files[name]
	}
	return after
}

// Kill is the disk after the process alone died: all that was written is there.
func (d *Disk) Kill() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashed = true
	after := NewDisk()
	for name, n := range d.files {
		c := &inode{data: slices.Clone(n.data), stable: slices.Clone(n.data)}
		after.files[name], after.durable[name] = c, c
	}
	return after
}

// Files are the names and contents of all files, to look at or to damage.
func (d *Disk) Files() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string][]byte{}
	for name, n := range d.files {
		out[name] = slices.Clone(n.data)
	}
	return out
}

// With is a copy of the disk in which one file is replaced, or removed where
// content is nil.
func (d *Disk) With(name string, content []byte) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := NewDisk()
	for file, n := range d.files {
		i := &inode{data: n.data, stable: n.data} // never written in place without a copy
		if file == name {
			if content == nil {
				continue
			}
			i = &inode{data: content, stable: content}
		}
		i.data = slices.Clone(i.data)
		c.files[file], c.durable[file] = i, i
	}
	return c
}

// change counts an operation and answers the fault where it is due.
func (d *Disk) change() error {
	if d.crashed {
		return ErrCrashed
	}
	d.ops++
	if d.fault.At == 0 || d.ops != d.fault.At {
		return nil
	}
	if d.fault.Err == nil {
		d.crashed = true
		return ErrCrashed
	}
	return d.fault.Err
}

// Open implements history.Disk.
func (d *Disk) Open(name string) (history.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.files[name]
	if d.crashed {
		return nil, ErrCrashed
	}
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{disk: d, node: n, name: name}, nil
}

// Create implements history.Disk.
func (d *Disk) Create(name string, _ fs.FileMode) (history.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return nil, ErrCrashed
	}
	n := d.files[name]
	if n == nil {
		if err := d.change(); err != nil {
			return nil, err
		}
		n = &inode{}
		d.files[name] = n
	}
	return &file{disk: d, node: n, name: name}, nil
}

// List implements history.Disk.
func (d *Disk) List(dir string) ([]history.Entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return nil, ErrCrashed
	}
	seen := map[string]history.Entry{}
	for name, n := range d.files {
		rest, ok := strings.CutPrefix(name, dir+"/")
		if dir == "." {
			rest, ok = name, true
		}
		if !ok {
			continue
		}
		if sub, _, deeper := strings.Cut(rest, "/"); deeper {
			seen[sub] = history.Entry{Name: sub, Dir: true}
		} else {
			seen[rest] = history.Entry{Name: rest, Size: int64(len(n.data))}
		}
	}
	out := make([]history.Entry, 0, len(seen))
	for _, e := range seen {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b history.Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Rename implements history.Disk.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(); err != nil {
		return err
	}
	n := d.files[from]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	d.files[to] = n
	delete(d.files, from)
	return nil
}

// Remove implements history.Disk.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(); err != nil {
		return err
	}
	delete(d.files, name)
	return nil
}

// SyncDir implements history.Disk.
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(); err != nil {
		return err
	}
	in := func(name string) bool {
		i := strings.LastIndexByte(name, '/')
		return i < 0 && dir == "." || i >= 0 && name[:i] == dir
	}
	for name := range d.durable {
		if in(name) && d.files[name] == nil {
			delete(d.durable, name)
		}
	}
	for name, n := range d.files {
		if in(name) {
			d.durable[name] = n
		}
	}
	return nil
}

// Lock implements history.Disk.
func (d *Disk) Lock(string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crashed {
		return nil, ErrCrashed
	}
	if d.locked {
		return nil, history.ErrLocked
	}
	d.locked = true
	return unlock{d}, nil
}

type unlock struct{ d *Disk }

func (u unlock) Close() error {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.d.locked = false
	return nil
}

type file struct {
	disk *Disk
	node *inode
	name string
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.crashed {
		return 0, ErrCrashed
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	err := f.disk.change()
	if err != nil {
		if !f.disk.fault.Short || f.disk.ops != f.disk.fault.At {
			return 0, err
		}
		p = p[:len(p)/2]
	}
	if grow := off + int64(len(p)) - int64(len(f.node.data)); grow > 0 {
		f.node.data = append(f.node.data, make([]byte, grow)...)
	}
	return copy(f.node.data[off:], p), err
}

func (f *file) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.change(); err != nil {
		return err
	}
	f.node.data = slices.Clone(f.node.data[:min(size, int64(len(f.node.data)))])
	return nil
}

func (f *file) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.change(); err != nil {
		return err
	}
	f.node.stable = slices.Clone(f.node.data)
	return nil
}

func (f *file) Size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *file) Close() error { return nil }
