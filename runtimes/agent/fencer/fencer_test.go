package fencer

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/bootclock"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

const patience = 20 * time.Second

// cells remember what they were asked.
type cells struct {
	mu  sync.Mutex
	did []string
}

func (c *cells) note(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did = append(c.did, what)
}

func (c *cells) Open(state.UID) error        { c.note("open"); return nil }
func (c *cells) Term(state.UID) error        { c.note("term"); return nil }
func (c *cells) Shut(state.UID) (int, error) { c.note("shut"); return 3, nil }
func (c *cells) Drop(state.UID) error        { c.note("drop"); return nil }

// TestAgentThatHangs: a fencer opens an identity under a lease, and when that
// lapses and the agent says nothing it asks and kills, and leaves word.
func TestAgentThatHangs(t *testing.T) {
	t.Parallel()
	dir, c := t.TempDir(), &cells{}
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		if err := Run(ctx, Options{Dir: dir, Cells: c, Bare: true, Version: "v1", Logger: logger}); err != nil {
			t.Error(err)
		}
	})
	uid, class := state.UID{1}, lease.FailoverFast
	terms := class.Terms()
	now := bootclock.Now()
	w := fence.Word{Known: true, Wards: []fence.Ward{{UID: uid, Class: class, Grace: time.Second}}}
	w.Lease.Held[class], w.Lease.Sent[class] = true, now-terms.Length+terms.Kill+500*time.Millisecond
	g := NewGuard(GuardOptions{Dir: dir, Version: "v1", Logger: logger})
	g.Tell(w)
	heard := make(chan Health, 100)
	all.Go(func() { g.Run(ctx, func(h Health) { heard <- h }) })
	await := func(what string, holds func(Health) bool) {
		t.Helper()
		limit := time.After(patience)
		for {
			select {
			case h := <-heard:
				if holds(h) {
					return
				}
			case <-limit:
				t.Fatalf("not heard: %s", what)
			}
		}
	}
	await("it is open", func(h Health) bool { return slices.Contains(h.Open, uid) })
	await("it is killed", func(h Health) bool { return len(h.Killed) > 0 && h.Killed[0].UID == uid && h.Killed[0].Processes == 3 })
	if at := bootclock.Now(); at > w.Lease.Sent[class]+terms.Length {
		t.Errorf("killed %s after the lease", at-w.Lease.Sent[class]-terms.Length)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if want := []string{"open", "term", "shut"}; !slices.Equal(c.did[:3], want) {
		t.Errorf("it did %v, want %v", c.did, want)
	}
}

// TestFencerThatCannotStart: a guard says why, again and again, and lets nothing run.
func TestFencerThatCannotStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := NewGuard(GuardOptions{Program: []string{self, "-no-such-flag"}, Dir: dir, Log: dir + "/log", Version: "v1", Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	times := 0
	g.Run(ctx, func(h Health) {
		if h.Running || h.Why == "" || len(h.Open) > 0 {
			t.Errorf("health %+v", h)
		}
		if times++; times == 3 {
			cancel()
		}
	})
	if times < 3 {
		t.Errorf("tried %d times", times)
	}
}
