package agent

import (
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeEvery is how often output is taken of files that can't be watched.
const takeEvery = 2 * time.Second

// A watcher hears of writes to files.
type watcher struct {
	f     *os.File
	fd    int
	mu    sync.Mutex // guards what follows
	over  bool
	hints map[int32]chan struct{}
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &watcher{f: os.NewFile(uintptr(fd), "inotify"), fd: fd, hints: map[int32]chan struct{}{}}, nil
}

// add has writes to a file hint, until the file is removed.
func (w *watcher) add(path string, hint chan struct{}) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil // nobody listens any more
	}
	wd, err := unix.InotifyAddWatch(w.fd, path, unix.IN_MODIFY)
	if err != nil {
		return err
	}
	w.hints[int32(wd)] = hint
	return nil
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	_ = w.f.Close() // nothing is written
}

// run ends when the watcher is closed.
func (w *watcher) run() {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			return
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			e := (*unix.InotifyEvent)(unsafe.Pointer(&buf[at])) //nolint:gosec // the kernel's layout
			at += unix.SizeofInotifyEvent + int(e.Len)
			w.mu.Lock()
			hint := w.hints[e.Wd]
			switch {
			case e.Mask&unix.IN_IGNORED != 0: // the file is gone
				delete(w.hints, e.Wd)
			case e.Mask&unix.IN_Q_OVERFLOW != 0:
				for _, h := range w.hints {
					nudge(h)
				}
			case hint != nil:
				nudge(hint)
			}
			w.mu.Unlock()
		}
	}
}
