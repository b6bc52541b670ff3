package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// attempts are the lives of a container whose output is kept, newest first.
func (a *Agent) attempts(uid state.UID, container string) ([]int, error) {
	if container == "" || filepath.Base(container) != container {
		return nil, fmt.Errorf("container %q: %w", container, runtimes.ErrNotFound)
	}
	entries, err := os.ReadDir(filepath.Join(a.logsDir(), uid.String(), container))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %s has written nothing yet, or isn't on node %s: %w", container, a.cfg.Node, runtimes.ErrNotFound)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	var all []int
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".log")); err == nil {
			all = append(all, n)
		}
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	// Names sort as text: 10.log before 9.log.
	for i := 1; i < len(all); i++ {
		for j := i; j > 0 && all[j] > all[j-1]; j-- {
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
	return all, nil
}

// Logs is the output of a container. The runtime writes it without times, so
// Times and Since are refused by name rather than made up.
func (a *Agent) Logs(ctx context.Context, r LogRequest) (io.ReadCloser, error) {
	if r.Times || r.Since != 0 {
		return nil, fmt.Errorf("log lines have no times on this node yet, ask without timestamps and since: %w", runtimes.ErrUnsupported)
	}
	all, err := a.attempts(r.UID, r.Container)
	if err != nil {
		return nil, err
	}
	if r.Previous {
		all = all[min(1, len(all)):]
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("container %s has no such life: %w", r.Container, runtimes.ErrNotFound)
	}
	f, err := os.Open(a.logPath(r.UID, r.Container, int32(all[0])))
	if err != nil {
		return nil, unavailable(err)
	}
	if r.Tail != 0 {
		if err := seekTail(f, r.Tail); err != nil {
			return nil, errors.Join(unavailable(err), f.Close())
		}
	}
	if !r.Follow || r.Previous {
		return f, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	return &follower{ctx: ctx, cancel: cancel, f: f, over: func() bool { return !a.writes(r.UID, r.Container, int32(all[0])) }}, nil
}

// writes says whether that life of a container may still write.
func (a *Agent) writes(uid state.UID, container string, attempt int32) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	o, err := a.cfg.Runtime.Observe(ctx, 0)
	if err != nil {
		return true // not known: ask again
	}
	for i := range o.Containers {
		if c := &o.Containers[i]; c.UID == uid && c.Name == container && c.Attempt == attempt {
			return c.Running
		}
	}
	return false
}

// seekTail puts f at the start of its last n lines.
func seekTail(f *os.File, n int64) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n < 0 {
		return err
	}
	const block = 32 << 10
	buf := make([]byte, block)
	lines := int64(0)
	for at := end; at > 0; {
		size := min(int64(block), at)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || at+i == end-1 {
				continue
			}
			if lines++; lines == n {
				_, err := f.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// A follower reads a file that grows, until its writer has ended.
type follower struct {
	ctx    context.Context //nolint:containedctx // it is a stream: the context is its end
	cancel context.CancelFunc
	f      *os.File
	over   func() bool
	last   bool
}

// Read waits for more.
func (l *follower) Read(b []byte) (int, error) {
	wait := 20 * time.Millisecond
	for {
		n, err := l.f.Read(b)
		if n > 0 || err != nil && !errors.Is(err, io.EOF) {
			return n, err
		}
		if l.last {
			return 0, io.EOF
		}
		if l.ctx.Err() != nil {
			return 0, io.EOF
		}
		if l.over() {
			l.last = true // what it wrote before its end is read once more
			continue
		}
		pause(l.ctx, wait)
		wait = min(2*wait, 500*time.Millisecond)
	}
}

// Close ends the stream.
func (l *follower) Close() error {
	l.cancel()
	return l.f.Close()
}

// Exec runs a command in a container.
func (a *Agent) Exec(ctx context.Context, r ExecRequest) (int, error) {
	rt, ok := a.cfg.Runtime.(runtimes.Execer)
	if !ok {
		return 0, fmt.Errorf("exec on node %s: %w", a.cfg.Node, runtimes.ErrUnsupported)
	}
	return rt.Exec(ctx, r.UID, r.Container, r.Exec)
}

// PortForward joins conn to a port of a pod until either end closes.
func (a *Agent) PortForward(ctx context.Context, uid state.UID, port uint16, conn io.ReadWriteCloser) error {
	to, err := a.dial(ctx, uid, port)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	return join(ctx, conn, to)
}

func (a *Agent) dial(ctx context.Context, uid state.UID, port uint16) (net.Conn, error) {
	if rt, ok := a.cfg.Runtime.(runtimes.Dialer); ok {
		return rt.Dial(ctx, uid, port)
	}
	if a.facts.Simulated {
		return nil, fmt.Errorf("node %s is simulated, nothing listens in its pods: %w", a.cfg.Node, runtimes.ErrUnsupported)
	}
	o, err := a.cfg.Runtime.Observe(ctx, 0)
	if err != nil {
		return nil, err
	}
	for i := range o.Sandboxes {
		if s := &o.Sandboxes[i]; s.UID == uid {
			ip := s.IP
			if ip == "" {
				ip = "127.0.0.1"
			}
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(int(port))))
			if err != nil {
				return nil, unavailable(err)
			}
			return c, nil
		}
	}
	return nil, fmt.Errorf("pod %s is not on node %s: %w", uid, a.cfg.Node, runtimes.ErrNotFound)
}

// join copies both ways and closes both ends when one has ended.
func join(ctx context.Context, a, b io.ReadWriteCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{}, 2)
	copyTo := func(to io.WriteCloser, from io.Reader) {
		_, _ = io.Copy(to, bufio.NewReaderSize(from, 32<<10)) // an end that broke is an end
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		} else {
			cancel()
		}
		done <- struct{}{}
	}
	go copyTo(a, b)
	go copyTo(b, a)
	for range 2 {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	return errors.Join(a.Close(), b.Close())
}
