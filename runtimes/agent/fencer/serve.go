package fencer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/agent/bootclock"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

const (
	linger  = 10 * time.Second // a fencer without agent and identities ends then
	answers = time.Second      // an answer that isn't taken by then is given up

	notes = "fenced.json" // what was killed, for the agent
)

// Options say which node a fencer is for.
type Options struct {
	Dir      string // of its socket and notes, in memory where there is such; it exists
	Group    string // control group of the node's pods; Windows: the directory of its runtime
	Version  string // of this program
	Watchdog string // a watchdog device, which resets the machine when an identity outlives its lease; empty: none
	Cells    Cells  // nil: the control groups, which Windows hasn't
	Bare     bool   // for tests: without locked memory and a group of its own, which root alone may have
	Logger   *slog.Logger
}

// message is what goes to the agent.
type message struct {
	fence.Answer

	Version string `json:"version"`
	PID     int    `json:"pid"`
}

// A server is one fencer's process.
type server struct {
	o      *Options
	m      *fence.Machine
	log    *slog.Logger
	events chan fence.Event
	acts   sync.WaitGroup

	mu   sync.Mutex // guards the rest
	conn net.Conn   // the agent's newest
}

// Run is the whole of a fencer's process. It ends when ctx does, or when there is
// nobody to guard and no agent.
func Run(ctx context.Context, o Options) (err error) {
	lock, err := lockFile(filepath.Join(o.Dir, "fence.lock"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if !o.Bare {
		if err := settle(o.Group, o.Logger); err != nil {
			return err
		}
	}
	if o.Cells == nil {
		if o.Cells, err = system(o.Group); err != nil {
			return err
		}
	}
	dog, err := openWatchdog(o.Watchdog)
	if err != nil {
		return err
	}
	timer, err := bootclock.NewTimer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, timer.Close()) }()
	l, err := listen(o.Dir)
	if err != nil {
		return fmt.Errorf("listen for the agent: %w", err)
	}
	s := &server{o: &o, m: fence.New(), log: o.Logger, events: make(chan fence.Event, 64)}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { s.accept(ctx, l, &all) })
	defer func() {
		cancel()
		err = errors.Join(err, l.Close())
		s.hangUp()
		s.acts.Wait()
		all.Wait()
		err = errors.Join(err, dog.close(err == nil))
	}()
	return s.loop(ctx, timer, dog)
}

func (s *server) loop(ctx context.Context, timer *bootclock.Timer, dog *watchdog) error {
	pet := time.NewTicker(time.Second)
	defer pet.Stop()
	idleSince := bootclock.Now()
	var events []fence.Event
	for {
		now := bootclock.Now()
		acts, at, on := s.m.Step(now, events...)
		for _, a := range acts {
			s.act(ctx, a)
		}
		if len(events) > 0 {
			s.answer(ctx)
		}
		if err := timer.Set(at, on); err != nil {
			return err
		}
		if uid, late := s.m.Overdue(now); !late {
			dog.pet()
		} else if dog.f != nil {
			s.log.LogAttrs(ctx, slog.LevelError, "left it to the watchdog to reset the machine", slog.String("pod", uid.String()))
		}
		if !s.m.Idle() {
			idleSince = now
		} else if now-idleSince >= linger {
			s.log.LogAttrs(ctx, slog.LevelInfo, "ended: there is no agent and nothing to guard")
			return nil
		}
		events = nil
		select {
		case <-ctx.Done():
			return nil
		case e := <-s.events:
			events = append(events, e)
		case <-timer.C:
		case <-pet.C:
		}
	}
}

// act does what the machine decided, and tells it how it went.
func (s *server) act(ctx context.Context, a fence.Act) {
	s.acts.Go(func() {
		var err error
		switch a.Do {
		case fence.Open:
			err = s.o.Cells.Open(a.UID)
		case fence.Term:
			s.log.LogAttrs(ctx, slog.LevelWarn, "asked an identity to end: its lease has, and the agent doesn't", slog.String("pod", a.UID.String()))
			err = s.o.Cells.Term(a.UID)
		case fence.Shut:
			var killed int
			killed, err = s.o.Cells.Shut(a.UID)
			if killed > 0 {
				k := Killing{UID: a.UID, At: time.Now().UnixNano(), Processes: killed}
				s.log.LogAttrs(ctx, slog.LevelWarn, "killed an identity", slog.String("pod", a.UID.String()), slog.Int("processes", killed))
				s.leave(ctx, k)
			}
		case fence.Drop:
			err = s.o.Cells.Drop(a.UID)
		}
		if err != nil {
			s.log.LogAttrs(ctx, slog.LevelError, "failed to act", slog.String("verb", a.Do.String()), slog.String("pod", a.UID.String()), slog.Any("err", err))
		}
		select {
		case s.events <- &fence.Done{UID: a.UID, Do: a.Do, OK: err == nil}:
		case <-ctx.Done():
		}
	})
}

// leave puts a note where the agent finds it, also after this process's end.
func (s *server) leave(ctx context.Context, k Killing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(s.o.Dir, notes), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(json.NewEncoder(f).Encode(k), f.Close())
	}
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "left no note for the agent", slog.Any("err", err))
	}
}

// Notes takes what a fencer left for the agent: the pods that it killed.
func Notes(dir string) ([]Killing, error) {
	path := filepath.Join(dir, notes)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Killing
	for d := json.NewDecoder(f); ; {
		var k Killing
		if err := d.Decode(&k); err != nil {
			break // the end, or a note cut short by a kill
		}
		all = append(all, k)
	}
	return all, errors.Join(f.Close(), os.Remove(path))
}

// accept takes agents: the newest counts.
func (s *server) accept(ctx context.Context, l net.Listener, all *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		old := s.conn
		s.conn = conn
		s.mu.Unlock()
		if old != nil {
			_ = old.Close() // its reader ends
		}
		all.Go(func() { s.hear(ctx, conn) })
	}
}

func (s *server) hear(ctx context.Context, conn net.Conn) {
	d := json.NewDecoder(conn)
	tell := func(e fence.Event) bool {
		select {
		case s.events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		var w fence.Word
		if err := d.Decode(&w); err != nil {
			break
		}
		slices.SortFunc(w.Wards, fence.Compare)
		if !tell(&fence.Told{Word: w}) {
			break
		}
	}
	_ = conn.Close() // it has ended
	s.mu.Lock()
	last := s.conn == conn
	if last {
		s.conn = nil
	}
	s.mu.Unlock()
	if last {
		tell(&fence.Left{})
	}
}

func (s *server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.Close() // its reader ends
	}
}

// answer tells the agent what it is to know. One that doesn't listen asks again.
func (s *server) answer(ctx context.Context) {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return
	}
	b, err := json.Marshal(message{Answer: s.m.Answer(), Version: s.o.Version, PID: os.Getpid()})
	if err == nil {
		err = conn.SetWriteDeadline(time.Now().Add(answers))
	}
	if err == nil {
		_, err = conn.Write(append(b, '\n'))
	}
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelDebug, "gave no answer", slog.Any("err", err))
	}
}
