package output

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits bound what is kept of one life of a container.
type Limits struct {
	FileSize int64 // bytes of a file before the next begins
	Files    int   // files kept, with the one being written
}

// Kubernetes are the kubelet's: containerLogMaxSize and containerLogMaxFiles.
func Kubernetes() Limits { return Limits{FileSize: 10 << 20, Files: 5} }

const (
	lineMost  = 16 << 10 // a longer line is written in parts
	readMost  = 256 << 10
	freeEvery = 1 << 20 // bytes taken before their blocks are given back
	markSize  = 48
	markMagic = 0x54444d4c4f475331
)

// The names of streams, as lines have them.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// RawPaths are where a runtime appends what a life writes. Both are below dir.
func RawPaths(dir string) (stdout, stderr string) {
	return filepath.Join(dir, "out"), filepath.Join(dir, "err")
}

// A Life is the output of one life of a container while somebody may still
// write it. What is taken is taken once, also when this process is killed: the
// mark says up to where, and is written after the lines.
type Life struct {
	dir    string
	limits Limits

	mu      sync.Mutex
	raw     [2]raw
	mark    *os.File
	log     *os.File
	gen     uint64
	size    int64
	closed  bool
	changed chan struct{}
}

// raw is one of the runtime's files.
type raw struct {
	name  string
	f     *os.File
	taken int64 // bytes that are lines already
	freed int64
}

// Open begins or goes on with the output of a life.
func Open(dir string, limits Limits) (*Life, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Life{dir: dir, limits: limits, changed: make(chan struct{}), gen: 1}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("output in %s: %w", dir, err), l.release())
	}
	return l, nil
}

func (l *Life) open() error {
	out, errs := RawPaths(l.dir)
	for i, path := range []string{out, errs} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		l.raw[i] = raw{name: [...]string{Stdout, Stderr}[i], f: f}
	}
	var err error
	if l.mark, err = os.OpenFile(filepath.Join(l.dir, "mark"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := l.recover(); err != nil {
		return err
	}
	l.log, err = os.OpenFile(genPath(l.dir, l.gen), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return err
}

// recover reads the mark and cuts off what was written after it: those lines
// are taken again.
func (l *Life) recover() error {
	var b [markSize]byte
	if n, err := l.mark.ReadAt(b[:], 0); n < markSize || binary.BigEndian.Uint64(b[:]) != markMagic {
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		// The first time, or killed during it.
	} else {
		word := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[8*i:])) }
		l.gen, l.size, l.raw[0].taken, l.raw[1].taken = uint64(word(1)), word(2), word(3), word(4)
	}
	gens, err := generations(l.dir)
	if err != nil {
		return err
	}
	for _, g := range gens {
		if g > l.gen {
			if err := os.Remove(genPath(l.dir, g)); err != nil {
				return err
			}
		}
	}
	err = os.Truncate(genPath(l.dir, l.gen), l.size)
	if errors.Is(err, fs.ErrNotExist) {
		l.size = 0
		return nil
	}
	return err
}

func (l *Life) saveMark() error {
	var b [markSize]byte
	for i, v := range []uint64{markMagic, l.gen, uint64(l.size), uint64(l.raw[0].taken), uint64(l.raw[1].taken)} {
		binary.BigEndian.PutUint64(b[8*i:], v)
	}
	_, err := l.mark.WriteAt(b[:], 0)
	return err
}

// Changed is closed when there are more lines, or the life is sealed.
func (l *Life) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Take makes lines of all whole lines that were written since the last time.
func (l *Life) Take(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.take(now, false)
}

// Rest is the beginning of a last line that has no end yet.
func (l *Life) Rest() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rest []byte
	for i := range l.raw {
		r := &l.raw[i]
		if l.closed {
			break
		}
		info, err := r.f.Stat()
		if err != nil {
			return nil, err
		}
		b := make([]byte, max(0, min(lineMost, info.Size()-r.taken)))
		n, err := r.f.ReadAt(b, r.taken)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		rest = append(rest, b[:n]...)
	}
	return rest, nil
}

// Seal takes the rest, also a last line without end, and removes the raw files:
// the runtime writes no more.
func (l *Life) Seal(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	if err := l.take(now, true); err != nil {
		return err
	}
	err := l.release()
	for _, name := range []string{"mark", "out", "err"} {
		if e := os.Remove(filepath.Join(l.dir, name)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Closed says whether the life was sealed or closed: no line follows.
func (l *Life) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close lets go of the files; another Open goes on.
func (l *Life) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.release()
}

func (l *Life) release() error {
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.changed) // and it stays so
	var errs []error
	for _, f := range []*os.File{l.raw[0].f, l.raw[1].f, l.mark, l.log} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (l *Life) take(now time.Time, all bool) error {
	if l.closed {
		return nil
	}
	stamp := now.UTC().Format(timeForm)
	some := false
	for i := range l.raw {
		for {
			n, err := l.takeSome(&l.raw[i], stamp, all)
			some = some || n > 0
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
	}
	if some {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	return nil
}

// takeSome takes what one read gives and says how many bytes of it became lines.
func (l *Life) takeSome(r *raw, stamp string, all bool) (int64, error) {
	info, err := r.f.Stat()
	if err != nil || info.Size() <= r.taken {
		return 0, err
	}
	b := make([]byte, min(readMost, info.Size()-r.taken))
	n, err := r.f.ReadAt(b, r.taken)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	lines, used := records(b[:n], stamp, r.name, all && r.taken+int64(n) >= info.Size())
	if used == 0 {
		return 0, nil
	}
	if err := l.append(lines); err != nil {
		return 0, err
	}
	r.taken += int64(used)
	if err := l.saveMark(); err != nil {
		return 0, err
	}
	if r.taken-r.freed >= freeEvery {
		if err := free(r.f, r.taken); err != nil {
			return 0, fmt.Errorf("give back the blocks of %s: %w", r.f.Name(), err)
		}
		r.freed = r.taken
	}
	return int64(used), nil
}

// records makes records of whole lines, and of parts of lines that are too long.
func records(b []byte, stamp, stream string, all bool) (out []byte, used int) {
	for used < len(b) {
		rest := b[used:]
		end, tag := bytes.IndexByte(rest[:min(len(rest), lineMost+1)], '\n'), "F"
		skip := 1
		if end < 0 {
			if len(rest) < lineMost && !all {
				break
			}
			end, tag, skip = min(len(rest), lineMost), "P", 0
		}
		out = append(append(append(append(append(append(out, stamp...), ' '), stream...), ' '), tag...), ' ')
		out = append(append(out, rest[:end]...), '\n')
		used += end + skip
	}
	return out, used
}

// append writes lines, and begins the next file where this one is full.
func (l *Life) append(b []byte) error {
	if l.size > 0 && l.size+int64(len(b)) > l.limits.FileSize {
		f, err := os.OpenFile(genPath(l.dir, l.gen+1), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		old := l.log
		l.log, l.gen, l.size = f, l.gen+1, 0
		if err := errors.Join(old.Close(), l.drop()); err != nil {
			return err
		}
	}
	n, err := l.log.Write(b)
	if err != nil && n > 0 {
		err = errors.Join(err, l.log.Truncate(l.size)) // a full disk: these lines are taken again
		n = 0
	}
	l.size += int64(n)
	return err
}

// drop removes the oldest files.
func (l *Life) drop() error {
	gens, err := generations(l.dir)
	if err != nil {
		return err
	}
	for _, g := range gens {
		if g+uint64(max(l.limits.Files, 1)) <= l.gen {
			if err := os.Remove(genPath(l.dir, g)); err != nil {
				return err
			}
		}
	}
	return nil
}

func genPath(dir string, gen uint64) string {
	return filepath.Join(dir, strconv.FormatUint(gen, 10)+".log")
}

// generations are the numbers of a life's files, oldest first.
func generations(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var gens []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".log")
		if n, err := strconv.ParseUint(name, 10, 64); ok && err == nil {
			gens = append(gens, n)
		}
	}
	slices.Sort(gens)
	return gens, nil
}

// Sealed says whether nobody writes a life any more.
func Sealed(dir string) bool {
	out, _ := RawPaths(dir)
	_, err := os.Lstat(out)
	return errors.Is(err, fs.ErrNotExist)
}
