package output

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// timeForm is RFC 3339 with all nine digits: times of one length sort as text.
const timeForm = "2006-01-02T15:04:05.000000000Z07:00"

// A Request says which lines are wanted.
type Request struct {
	Tail   int64     // the last lines; 0: all, below 0: none
	Since  time.Time // zero: from the start
	Times  bool      // each line begins with its time
	Stream string    // Stdout or Stderr; empty: both
}

// A Reader reads the lines of a life in the form that people see.
type Reader struct {
	dir   string
	req   Request
	since []byte
	gen   uint64
	f     *os.File
	in    *bufio.Reader
	part  []byte  // the beginning of a record that isn't whole yet
	inner [2]bool // of each stream: the last record was a part, the next goes on with its line
	skip  [2]bool // and it was left out
}

// Read begins to read a life. Nothing written yet is no error.
func Read(dir string, req Request) (*Reader, error) {
	r := &Reader{dir: dir, req: req}
	if !req.Since.IsZero() {
		r.since = []byte(req.Since.UTC().Format(timeForm))
	}
	if err := r.begin(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Reader) begin() error {
	gens, err := generations(r.dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(gens) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if r.req.Tail == 0 {
		return r.open(gens[0], 0)
	}
	left := max(r.req.Tail, 0)
	for i := len(gens) - 1; ; i-- {
		at, found, err := seekBack(genPath(r.dir, gens[i]), left, r.req.Stream)
		if errors.Is(err, fs.ErrNotExist) {
			return r.open(gens[min(i+1, len(gens)-1)], 0) // rotated away meanwhile
		}
		if err != nil {
			return err
		}
		if left -= found; left <= 0 || i == 0 {
			return r.open(gens[i], at)
		}
	}
}

func (r *Reader) open(gen uint64, at int64) error {
	f, err := os.Open(genPath(r.dir, gen))
	if err != nil {
		return err
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return errors.Join(err, f.Close())
	}
	if r.f != nil {
		err = r.f.Close()
	}
	r.gen, r.f, r.in = gen, f, bufio.NewReaderSize(f, 64<<10)
	return err
}

// Next gives more text. At the end of what there is it gives nil; asked again
// it goes on with what was written meanwhile.
func (r *Reader) Next() ([]byte, error) {
	var out []byte
	for len(out) < 32<<10 {
		if r.in == nil {
			if err := r.begin(); err != nil || r.in == nil {
				return out, err
			}
		}
		b, err := r.in.ReadSlice('\n')
		r.part = append(r.part, b...)
		switch {
		case err == nil:
			out = r.text(out, r.part)
			r.part = r.part[:0]
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			more, err := r.following()
			if err != nil || !more {
				return out, err
			}
		default:
			return out, err
		}
	}
	return out, nil
}

// following goes on to the next file, where there is one: then this one grows
// no more.
func (r *Reader) following() (bool, error) {
	gens, err := generations(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the pod went away
	}
	if err != nil {
		return false, err
	}
	for _, g := range gens {
		if g <= r.gen {
			continue
		}
		// Something may have come to this file just before the next began.
		if _, err := r.in.Peek(1); err == nil {
			return true, nil
		}
		err := r.open(g, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		r.part = r.part[:0]
		return err == nil, err
	}
	return false, nil
}

// text appends a record as people see it.
func (r *Reader) text(out, record []byte) []byte {
	record = bytes.TrimSuffix(record, []byte("\n"))
	stamp, rest, _ := bytes.Cut(record, []byte(" "))
	stream, rest, _ := bytes.Cut(rest, []byte(" "))
	tag, line, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return out // not ours
	}
	s := 0
	if string(stream) == Stderr {
		s = 1
	}
	first := !r.inner[s]
	r.inner[s] = bytes.Equal(tag, []byte("P"))
	if first {
		r.skip[s] = r.since != nil && bytes.Compare(stamp, r.since) < 0
	}
	if r.skip[s] || r.req.Stream != "" && string(stream) != r.req.Stream {
		return out
	}
	if r.req.Times && first {
		out = append(append(out, stamp...), ' ')
	}
	out = append(out, line...)
	if !r.inner[s] {
		out = append(out, '\n')
	}
	return out
}

// Close closes the reader.
func (r *Reader) Close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}

// seekBack finds where the last n lines of a file begin, and how many of them
// it found.
func seekBack(path string, n int64, stream string) (at, found int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	end := info.Size()
	if n <= 0 {
		return end, 0, nil
	}
	// Records are short of lineMost and their head, so a window that grows
	// backward sees each of them whole.
	const window = 256 << 10
	stop := end
	for stop > 0 {
		start := max(0, stop-window)
		buf := make([]byte, stop-start)
		if _, err := f.ReadAt(buf, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		whole := 0
		if start > 0 {
			whole = bytes.IndexByte(buf, '\n') + 1
		}
		for tail := len(buf); tail > whole; {
			begin := bytes.LastIndexByte(buf[:max(tail-1, 0)], '\n') + 1
			if endsLine(buf[begin:tail], start+int64(tail) == end, stream) {
				if found++; found == n {
					return continued(f, start+int64(begin)), found, nil
				}
			}
			tail = begin
		}
		stop = start + int64(whole)
		if whole == 0 {
			break
		}
	}
	return 0, found, nil
}

// endsLine counts records that end a line of the wanted stream: each line has
// one, but for a last one without end.
func endsLine(record []byte, last bool, stream string) bool {
	head := bytes.SplitN(record, []byte(" "), 4)
	if len(head) < 4 || stream != "" && string(head[1]) != stream {
		return false
	}
	return string(head[2]) == "F" || last
}

// continued goes back over the parts that belong to the line whose last record
// begins at at.
func continued(f *os.File, at int64) int64 {
	for at > 0 {
		back := min(at, lineMost+128)
		buf := make([]byte, back)
		if _, err := f.ReadAt(buf, at-back); err != nil {
			return at
		}
		begin := bytes.LastIndexByte(buf[:len(buf)-1], '\n') + 1
		head := bytes.SplitN(buf[begin:], []byte(" "), 4)
		if len(head) < 4 || string(head[2]) != "P" {
			return at
		}
		at -= back - int64(begin)
	}
	return at
}
