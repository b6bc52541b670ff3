package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/connectivity"

	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	healthy     = 10 * time.Second // a daemon that lived so long is started again at once
	backoffStep = 100 * time.Millisecond
	backoffMax  = 5 * time.Second
)

// connectFirst gets a daemon and a client, sweeps, and hands the care for both
// to a goroutine.
func (r *Runtime) connectFirst(ctx context.Context) error {
	r.calls.Lock()
	defer r.calls.Unlock()
	err := r.dial(ctx)
	if errors.Is(err, errEnded) && ctx.Err() == nil {
		r.logger.LogAttrs(ctx, slog.LevelWarn, "ended a containerd that did not answer, starting another", slog.Any("err", err))
		err = r.dial(ctx)
	}
	if err != nil {
		return err
	}
	r.work.Go(r.supervise)
	return nil
}

// errEnded says that a daemon which didn't answer was killed: another may do.
var errEnded = errors.New("it was ended")

// dial makes client good again. r.calls is held for writing. A new daemon gets
// a new client: the old connection would take seconds to notice.
func (r *Runtime) dial(ctx context.Context) error {
	return bounded(ctx, dialLimit, "take over what runs on this node", r.connectOnce)
}

func (r *Runtime) connectOnce(ctx context.Context) error {
	var d *daemon
	if r.o.Socket == "" {
		var err error
		if d, err = r.startDaemon(ctx); err != nil {
			return err
		}
		r.mu.Lock()
		r.daemon = d
		r.mu.Unlock()
	}
	c, version, err := r.greet(ctx, d)
	if err != nil {
		if d != nil && ctx.Err() == nil { // running but mute: another start is the only cure
			err = errors.Join(fmt.Errorf("%w: %w", errEnded, err), d.kill())
		}
		return err
	}
	if err := r.sweep(r.inNamespace(ctx), c); err != nil {
		return errors.Join(classify(fmt.Errorf("sweep: %w", err)), c.Close())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.client, r.version = c, version
	close(r.ready)
	return nil
}

// greet connects, and hears a first word: a daemon that hangs has a socket too.
func (r *Runtime) greet(ctx context.Context, d *daemon) (c *client.Client, version string, err error) {
	if err := r.answer(ctx, d); err != nil {
		return nil, "", err
	}
	c, err = client.New(r.socket(), client.WithDefaultNamespace(namespace), client.WithTimeout(daemonReady))
	if err != nil {
		return nil, "", fmt.Errorf("%w: connect to containerd: %w", runtimes.ErrUnavailable, err)
	}
	err = bounded(ctx, helloAnswers, "ask containerd on "+r.socket()+" for its version", func(ctx context.Context) error {
		v, err := c.Version(ctx)
		version = v.Version
		return err
	})
	if err != nil {
		return nil, "", errors.Join(classify(err), c.Close())
	}
	return c, version, nil
}

// supervise starts the daemon again whenever it ends and exchanges the client.
func (r *Runtime) supervise() {
	wait := time.Duration(0)
	for {
		lived, ok := r.untilLost()
		if !ok {
			return
		}
		r.logger.LogAttrs(r.life, slog.LevelWarn, "lost containerd", slog.String("socket", r.socket()))
		r.mu.Lock()
		old := r.client
		r.client, r.ready = nil, make(chan struct{})
		r.mu.Unlock()
		_ = old.Close() // ends calls under way, so that the lock comes free
		wait = backoff(wait, lived)
		for {
			if !r.pause(wait) {
				return
			}
			r.calls.Lock()
			err := r.dial(r.life)
			r.calls.Unlock()
			if err == nil {
				break
			}
			if r.life.Err() != nil {
				return
			}
			wait = backoff(wait, 0)
			r.logger.LogAttrs(r.life, slog.LevelWarn, "failed to restart containerd", slog.Any("err", err), slog.Duration("again_in", wait))
		}
		r.logger.LogAttrs(r.life, slog.LevelInfo, "reconnected to containerd")
	}
}

func backoff(last, lived time.Duration) time.Duration {
	if lived > healthy || (last == 0 && lived > 0) {
		return 0
	}
	return min(max(2*last, backoffStep), backoffMax)
}

func (r *Runtime) pause(d time.Duration) bool {
	select {
	case <-r.life.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// untilLost waits until the daemon has ended or, for one that isn't ours, until
// its connection breaks. It says how long it was good, and false when we close.
func (r *Runtime) untilLost() (time.Duration, bool) {
	r.mu.Lock()
	d, c := r.daemon, r.client
	r.mu.Unlock()
	begin := time.Now()
	if d != nil {
		select {
		case <-d.exited:
			return time.Since(begin), r.life.Err() == nil
		case <-r.life.Done():
			return 0, false
		}
	}
	conn, ok := c.Conn().(interface {
		GetState() connectivity.State
		WaitForStateChange(context.Context, connectivity.State) bool
	})
	if !ok {
		<-r.life.Done()
		return 0, false
	}
	for {
		s := conn.GetState()
		if s == connectivity.TransientFailure || s == connectivity.Shutdown {
			return time.Since(begin), r.life.Err() == nil
		}
		if !conn.WaitForStateChange(r.life, s) {
			return 0, false
		}
	}
}

// get waits for a client.
func (r *Runtime) get(ctx context.Context) (*client.Client, error) {
	for {
		r.mu.Lock()
		c, ready := r.client, r.ready
		r.mu.Unlock()
		if c != nil {
			return c, nil
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: containerd does not run: %w", runtimes.ErrUnavailable, context.Cause(ctx))
		case <-r.life.Done():
			return nil, fmt.Errorf("%w: the node is closed", runtimes.ErrUnavailable)
		}
	}
}

// call runs f with a client while no other client takes over. f is not cut off
// when the caller leaves: half of a container is worse than a whole one.
func (r *Runtime) call(ctx context.Context, f func(ctx context.Context, c *client.Client) error) error {
	for {
		if _, err := r.get(ctx); err != nil {
			return err
		}
		r.calls.RLock()
		r.mu.Lock()
		c := r.client
		r.mu.Unlock()
		if c == nil { // lost again meanwhile
			r.calls.RUnlock()
			continue
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.inNamespace(ctx)), callTimeout)
		err := f(ctx, c)
		cancel()
		r.calls.RUnlock()
		return classify(err)
	}
}

// classify gives containerd's errors their class. What isn't known may be
// better later.
func classify(err error) error {
	switch {
	case err == nil, errors.Is(err, runtimes.ErrUnavailable), errors.Is(err, runtimes.ErrRejected),
		errors.Is(err, runtimes.ErrUnsupported), errors.Is(err, runtimes.ErrNotFound):
		return err
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%w: %w", runtimes.ErrNotFound, err)
	case errdefs.IsInvalidArgument(err):
		return fmt.Errorf("%w: %w", runtimes.ErrRejected, err)
	case errdefs.IsNotImplemented(err):
		return fmt.Errorf("%w: %w", runtimes.ErrUnsupported, err)
	default:
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
}

// chooseSnapshotter tries whether overlayfs works where our snapshots lie; on
// some file systems (another overlay, some network ones) it doesn't.
func (r *Runtime) chooseSnapshotter() {
	r.snapshotter = "overlayfs"
	err := r.tryOverlay()
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return // says nothing about overlayfs, which every image is unpacked for
	}
	if err != nil {
		r.snapshotter = "native"
		r.logger.LogAttrs(r.life, slog.LevelWarn, "chose copying snapshots", slog.String("reason", "overlayfs does not work here"), slog.Any("err", err))
	}
}

func (r *Runtime) tryOverlay() error {
	dir, err := os.MkdirTemp(r.o.Dir, "overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if err := unix.Mount("overlay", filepath.Join(dir, "merged"), "overlay", 0, options); err != nil {
		return err
	}
	return unix.Unmount(filepath.Join(dir, "merged"), unix.MNT_DETACH)
}
