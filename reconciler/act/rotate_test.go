package act_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/historytest"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// rotation is one process of a controller that is asked for another signing key twice,
// amid other commands, and ends cleanly; or earlier, with its disk.
func rotation(t *testing.T, disk *historytest.Disk) error {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	store, err := history.Open("data", history.Options{Disk: disk})
	if err != nil {
		return err
	}
	blobs, err := store.OpenBlobs()
	if err != nil {
		return errors.Join(err, store.Close())
	}
	secrets, err := store.OpenSecrets()
	if err != nil {
		return errors.Join(err, store.Close())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var c *act.Controller
	hub := agent.NewHub(agent.HubConfig{Submit: func(e ...state.Event) { c.Submit(e...) }, Logger: logger})
	c, err = act.New(ctx, act.Config{
		Log: store, Library: act.NewLibrary(shelf{blobs}, codec{secrets}), Texts: store.Texts(), Nodes: hub, Images: images{},
		LogID: store.ID(), Version: "test", Logger: logger,
	})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	run, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- c.Run(run) }()
	ask := func(cmd *state.Command) error {
		asked, over := context.WithCancel(ctx)
		defer over()
		answer := make(chan error, 1)
		go func() {
			r, err := c.Do(asked, cmd)
			if err == nil && r.Code != state.ReplyDone {
				err = errors.New("refused: " + r.Why)
			}
			answer <- err
		}()
		select {
		case err := <-answer:
			return err
		case err := <-done:
			done <- err
			return err
		}
	}
	for range 2 {
		public, err := store.NextKey()
		if err != nil {
			break // the disk is broken: the controller hears of it as well, or the log is as it was
		}
		for range 3 { // in the same step, and in those that wait for the disk
			c.Submit(&state.Command{Verb: state.CmdSync, Object: state.Ref{Kind: "Application", Name: "root"}})
		}
		if err := ask(&state.Command{Verb: state.CmdRotateKey, Key: public}); err != nil {
			break
		}
		keys := store.Keys()
		if keys[len(keys)-1].Public != public {
			t.Errorf("the answer came before the key was taken: %+v", keys)
		}
	}
	stop()
	err = <-done
	return errors.Join(err, store.Close())
}

// A running controller is asked for other signing keys, and at each operation on its
// disk it crashes: the next start goes on, with the old key or the new, all verifies,
// and each change that was asked for and recorded is done.
func TestEveryCrashWhileARunningControllersKeyChanges(t *testing.T) {
	t.Parallel()
	probe := historytest.NewDisk()
	probe.Inject(historytest.Fault{})
	if err := rotation(t, probe); err != nil {
		t.Fatal(err)
	}
	total := probe.Ops()
	changed := map[int]int{}
	failure := errors.New("input/output error")
	for at := 1; at <= total; at++ {
		disk := historytest.NewDisk()
		disk.Inject(historytest.Fault{At: at, Err: failure, Short: at%2 == 0})
		_ = rotation(t, disk) // what it says is the next start's to look at
		for after, left := range map[string]*historytest.Disk{"lost": disk.Crash(nil), "all": disk.Crash(func(_ string, n int) int { return n }), "killed": disk.Kill()} {
			store, err := history.Open("data", history.Options{Disk: left})
			if err != nil {
				t.Fatalf("at %d, %s: %v", at, after, err)
			}
			keys := len(store.Keys())
			changed[keys]++
			asked, done := 0, 0
			for r, err := range store.Read(t.Context(), 1) {
				if err != nil {
					t.Fatal(err)
				}
				switch f := r.Fact.(type) {
				case *state.Commanded:
					if f.Verb == state.CmdRotateKey {
						asked++
					}
				case *state.SigningKeyRotated:
					done++
				}
			}
			if asked != done || keys != done+1 {
				t.Fatalf("at %d, %s: asked for %d times, recorded %d times, %d keys", at, after, asked, done, keys)
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			left.Inject(historytest.Fault{})
			if err := rotation(t, left); err != nil {
				t.Fatalf("at %d, %s: the next start: %v", at, after, err)
			}
			r, err := history.Verify(t.Context(), "data", history.VerifyOptions{Disk: left, Every: true})
			if err != nil || !r.OK() || len(r.Notes) > 0 || r.Keys != keys+2 {
				t.Fatalf("at %d, %s: %+v, %v", at, after, r, err)
			}
			if left.Files()["log.key.next"] != nil {
				t.Fatalf("at %d, %s: a key that nobody uses is still there", at, after)
			}
		}
	}
	if changed[1] == 0 || changed[2] == 0 || changed[3] == 0 {
		t.Errorf("ends by keys %v: want some of each", changed)
	}
}
