package fencer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

const (
	ping   = time.Second      // between two Words, also where nothing changed
	silent = 3 * time.Second  // a fencer that answers none hangs
	begin  = 10 * time.Second // until a started one must answer
	most   = 5 * time.Second  // between two attempts to start one
)

// A Health is what a Guard knows of its fencer.
type Health struct {
	Running bool
	Why     string      // where it does not run
	Open    []state.UID // identities that it guards and lets run
	Killed  []Killing   // since the last Health
}

// GuardOptions say how a fencer is started.
type GuardOptions struct {
	Program []string // and its first arguments; what Run needs is appended
	Dir     string
	Group   string
	Version string
	Log     string // file that it writes to
	Logger  *slog.Logger
}

// A Guard is the agent's end: it starts the fencer, keeps it alive, and tells it
// what to guard. A fencer of an agent before this one is taken over.
type Guard struct {
	o    GuardOptions
	log  *slog.Logger
	hint chan struct{}

	mu   sync.Mutex
	word fence.Word
}

// NewGuard is a guard whose Run hasn't begun.
func NewGuard(o GuardOptions) *Guard {
	return &Guard{o: o, log: o.Logger, hint: make(chan struct{}, 1)}
}

// Tell hands the newest Word over. It doesn't block.
func (g *Guard) Tell(w fence.Word) {
	g.mu.Lock()
	w.Number = g.word.Number + 1
	g.word = w
	g.mu.Unlock()
	select {
	case g.hint <- struct{}{}:
	default:
	}
}

// Run keeps a fencer alive until ctx ends, and says whenever something about it
// changes. The fencer lives on.
func (g *Guard) Run(ctx context.Context, heard func(Health)) {
	wait := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		err := g.once(ctx, heard)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errOther) {
			continue // an upgrade
		}
		g.log.LogAttrs(ctx, slog.LevelError, "lost the fencer: no identity is started until it is back", slog.Any("err", err))
		heard(Health{Why: err.Error()})
		if time.Since(began) > begin {
			wait = 0
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		wait = min(max(2*wait, 100*time.Millisecond), most)
	}
}

// once starts or finds a fencer and talks to it until it is lost.
func (g *Guard) once(ctx context.Context, heard func(Health)) error {
	conn, pid, err := dial(ctx, g.o.Dir)
	if err != nil {
		if conn, pid, err = g.start(ctx); err != nil {
			return err
		}
	}
	defer conn.Close()
	err = g.talk(ctx, conn, heard)
	if errors.Is(err, errSilent) || errors.Is(err, errOther) {
		kill := errors.Is(err, errSilent)
		g.log.LogAttrs(ctx, slog.LevelWarn, "ended a fencer", slog.Int("pid", pid), slog.Any("err", err))
		if err := end(pid, kill); err != nil {
			return fmt.Errorf("end the fencer %d: %w", pid, err)
		}
		untilGone(ctx, pid)
	}
	return err
}

var (
	errSilent = errors.New("it does not answer")
	errOther  = errors.New("it is of another version")
)

// start starts a fencer and waits until it listens.
func (g *Guard) start(ctx context.Context) (net.Conn, int, error) {
	if len(g.o.Program) == 0 {
		return nil, 0, errors.New("this program starts none")
	}
	out, err := os.OpenFile(g.o.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer out.Close()
	args := slices.Concat(g.o.Program[1:], []string{"--dir", g.o.Dir, "--group", g.o.Group})
	cmd := exec.Command(g.o.Program[0], args...) //nolint:noctx // it outlives us on purpose
	cmd.Args[0] = "tandem"
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.SysProcAttr = out, out, os.TempDir(), detached()
	if err := cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("start the fencer: %w", err)
	}
	ended := make(chan struct{})
	go func() { // ends with the child
		_ = cmd.Wait() // how it ended is in its log
		close(ended)
	}()
	g.log.LogAttrs(ctx, slog.LevelInfo, "started the fencer", slog.Int("pid", cmd.Process.Pid))
	limit := time.Now().Add(begin)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, pid, err := dial(ctx, g.o.Dir)
		if err == nil {
			return conn, pid, nil
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-ended:
			return nil, 0, fmt.Errorf("the fencer ended at once: %s (%s)", lastLine(g.o.Log), g.o.Log)
		case <-tick.C:
		}
		if time.Now().After(limit) {
			return nil, 0, errors.Join(fmt.Errorf("the fencer does not listen: %w", err), end(cmd.Process.Pid, true))
		}
	}
}

// lastLine is what the fencer said last.
func lastLine(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(raw))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// talk tells and listens until either end is lost.
func (g *Guard) talk(ctx context.Context, conn net.Conn, heard func(Health)) error {
	answers := make(chan message)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer conn.Close() // ends the reader
	done := make(chan struct{})
	defer close(done)
	reader.Go(func() {
		defer close(answers)
		for d := json.NewDecoder(conn); ; {
			var m message
			if d.Decode(&m) != nil {
				return
			}
			select {
			case answers <- m:
			case <-done:
				return
			}
		}
	})
	tick := time.NewTicker(ping)
	defer tick.Stop()
	last := time.Now()
	for {
		g.mu.Lock()
		word := g.word
		g.mu.Unlock()
		b, err := json.Marshal(&word)
		if err == nil {
			err = conn.SetWriteDeadline(time.Now().Add(silent))
		}
		if err == nil {
			_, err = conn.Write(append(b, '\n'))
		}
		if err != nil {
			return errors.Join(errSilent, err)
		}
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case m, ok := <-answers:
				if !ok {
					return errors.New("it ended")
				}
				if m.Version != g.o.Version {
					return errOther
				}
				last = time.Now()
				heard(g.health(ctx, &m))
			case <-g.hint:
				waits = false
			case <-tick.C:
				waits = false
			}
		}
		if time.Since(last) > silent {
			return errSilent
		}
	}
}

func (g *Guard) health(ctx context.Context, m *message) Health {
	h := Health{Running: true, Open: m.Open}
	if len(m.Ended) > 0 {
		var err error
		if h.Killed, err = Notes(g.o.Dir); err != nil {
			g.log.LogAttrs(ctx, slog.LevelWarn, "could not read the fencer's notes", slog.Any("err", err))
		}
	}
	return h
}

func untilGone(ctx context.Context, pid int) bool {
	for range 1000 {
		if gone(pid) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return false
}

// End ends the fencer of a node whose pods are all gone, and takes away what was
// made for it.
func End(ctx context.Context, dir, group string) error {
	conn, pid, err := dial(ctx, dir)
	if err != nil {
		removeOwn(group)
		return nil
	}
	defer conn.Close()
	for _, kill := range []bool{false, true} {
		if err := end(pid, kill); err != nil {
			return fmt.Errorf("end the fencer: %w", err)
		}
		if untilGone(ctx, pid) {
			removeOwn(group)
			return nil
		}
	}
	return fmt.Errorf("the fencer %d does not end", pid)
}
