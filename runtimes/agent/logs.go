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
	"slices"
	"strconv"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/output"
)

// attempts are the lives of a container whose output is kept, newest first.
func (a *Agent) attempts(uid state.UID, container string) ([]int32, error) {
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
	var all []int32
	for _, e := range entries {
		if n, err := strconv.ParseInt(e.Name(), 10, 32); err == nil {
			all = append(all, int32(n))
		}
	}
	slices.Sort(all)
	slices.Reverse(all)
	return all, nil
}

// Logs is the output of a container. Followed, it goes on with the container's
// next lives, and ends when there is none to come.
func (a *Agent) Logs(ctx context.Context, r LogRequest) (io.ReadCloser, error) {
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
	ctx, cancel := context.WithCancel(ctx)
	in, out := io.Pipe()
	l := &logStream{PipeReader: in, cancel: cancel, done: make(chan struct{})}
	go func() { // ends with ctx or when the reader closes
		defer close(l.done)
		w := &capWriter{w: out, left: r.Most}
		_ = out.CloseWithError(a.pourLogs(ctx, w, r, all[0]))
	}()
	go func() {
		<-ctx.Done()
		_ = out.Close() // who reads sees the end
	}()
	return l, nil
}

// A logStream is what a reader of a log holds.
type logStream struct {
	*io.PipeReader

	cancel context.CancelFunc
	done   chan struct{}
}

// Close ends the stream.
func (l *logStream) Close() error {
	l.cancel()
	_ = l.PipeReader.Close()
	<-l.done
	return nil
}

// A capWriter ends after so many bytes; 0: never.
type capWriter struct {
	w    io.Writer
	left int64
}

// Write writes what there is room for.
func (c *capWriter) Write(b []byte) (int, error) {
	if c.left == 0 {
		return c.w.Write(b)
	}
	n, err := c.w.Write(b[:min(int64(len(b)), c.left)])
	if c.left -= int64(n); c.left == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (a *Agent) pourLogs(ctx context.Context, w io.Writer, r LogRequest, attempt int32) error {
	req := output.Request{Tail: r.Tail, Times: r.Times, Stream: r.Stream}
	if r.Since != 0 {
		req.Since = time.Unix(0, r.Since)
	}
	follow := r.Follow && !r.Previous
	for {
		if err := a.pourLife(ctx, w, r, attempt, req, follow); err != nil {
			return err
		}
		if !follow || ctx.Err() != nil {
			return nil //nolint:nilerr // whoever read has gone: that is no failure
		}
		req.Tail = 0
		next, ok := a.nextLife(ctx, r.UID, r.Container, attempt)
		if !ok {
			return nil
		}
		attempt = next
	}
}

// pourLife writes the output of one life; followed, until it has ended.
func (a *Agent) pourLife(ctx context.Context, w io.Writer, r LogRequest, attempt int32, req output.Request, follow bool) error {
	l, ended := a.outputs.life(r.UID, r.Container, attempt)
	if l != nil && ended {
		a.awaitRest(ctx, l)
	} else if l != nil {
		if err := l.Take(time.Now()); err != nil {
			return unavailable(err)
		}
	}
	reader, err := output.Read(a.logDir(r.UID, r.Container, attempt), req)
	if err != nil {
		return unavailable(err)
	}
	defer reader.Close()
	for last := false; ; {
		var changed <-chan struct{}
		if follow && l != nil && !last {
			changed = l.Changed()
			last = l.Closed()
		} else {
			last = true
		}
		for {
			text, err := reader.Next()
			if err != nil {
				return unavailable(err)
			}
			if len(text) == 0 {
				break
			}
			if _, err := w.Write(text); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// restMost is how long the reader of an ended life waits for the last of its
// output.
const restMost = 10 * time.Second

func (a *Agent) awaitRest(ctx context.Context, l *life) {
	ctx, cancel := context.WithTimeout(ctx, restMost)
	defer cancel()
	for !l.Closed() {
		select {
		case <-l.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// nextLife waits until a container lives again; false: it never will, or ctx
// has ended.
func (a *Agent) nextLife(ctx context.Context, uid state.UID, container string, after int32) (int32, bool) {
	for {
		a.mu.Lock()
		news, s, known := a.news, a.status[uid], false
		over := false
		for i := range s.Containers {
			if c := &s.Containers[i]; c.Name == container {
				known, over = true, c.State == state.ContainerTerminated
			}
		}
		a.mu.Unlock()
		all, err := a.attempts(uid, container)
		if err == nil && len(all) > 0 && all[0] > after {
			return all[0], true
		}
		if err != nil || !known || over {
			return 0, false
		}
		select {
		case <-news:
		case <-ctx.Done():
			return 0, false
		}
	}
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
