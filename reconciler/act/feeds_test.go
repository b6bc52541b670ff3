package act_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/historytest"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/sources"
)

// A place is a repository of one revision, whose rendering is one Deployment.
type place struct {
	broken  int // so often it can't be opened
	failing int // so often it can't be rendered
}

func (p *place) Open(state.AppSource) (string, func() (sources.Source, error), error) {
	return "here", func() (sources.Source, error) {
		if p.broken > 0 {
			p.broken--
			return nil, errors.New("there is no such directory")
		}
		return p, nil
	}, nil
}

func (p *place) Next(ctx context.Context, last state.Revision) (sources.Snapshot, error) {
	const only = "dir@sha256:aa"
	if last == only {
		<-ctx.Done()
		return sources.Snapshot{}, ctx.Err()
	}
	return sources.Snapshot{Revision: only}, nil
}

func (p *place) Render(context.Context, sources.Snapshot, state.Application) (render.Result, error) {
	if p.failing > 0 {
		p.failing--
		return render.Result{}, errors.New("the worker died")
	}
	return render.Result{Manifest: web(1)}, nil
}

// follows is one process of a controller that follows a place until holds is true,
// or, where it never is, for long; it says whether it was.
func follows(t *testing.T, disk *historytest.Disk, p *place, looker act.Images, holds func(root *state.App) bool) bool {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	store, err := history.Open("data", history.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := store.OpenBlobs()
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := store.OpenSecrets()
	if err != nil {
		t.Fatal(err)
	}
	c, err := act.New(t.Context(), act.Config{
		Log: store, Library: act.NewLibrary(shelf{blobs}, codec{secrets}), Texts: store.Texts(), Nodes: agent.NewHub(agent.HubConfig{}), Images: looker,
		LogID: store.ID(), Version: "test", Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	f := act.NewFeeds(c, p, p, ".", logger)
	fed := make(chan struct{})
	go func() { f.Run(ctx); close(fed) }()
	held := false
	for range 60 {
		time.Sleep(time.Second)
		synctest.Wait()
		c.View(func(s *state.State) { held = s.Apps[state.RootApp] != nil && holds(s.Apps[state.RootApp]) })
		if held {
			break
		}
	}
	stop()
	<-fed
	select {
	case err = <-done:
	case <-time.After(time.Hour):
		t.Fatal("the controller does not end")
	}
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	return held
}

func applied(root *state.App) bool { return root.Revision != "" && !root.SourceLost }
func lost(root *state.App) bool    { return root.SourceLost }

// What can't be opened or rendered at first is tried again, and answers then.
func TestASourceIsTriedAgain(t *testing.T) {
	for name, p := range map[string]*place{"open": {broken: 2}, "render": {failing: 2}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if !follows(t, historytest.NewDisk(), p, images{}, applied) {
					t.Errorf("it was given up")
				}
			})
		})
	}
}

// A source that was lost when the controller ended isn't lost for the next one,
// which it answers.
func TestASourceIsBackAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := historytest.NewDisk()
		if !follows(t, disk, &place{broken: 1000}, images{}, lost) {
			t.Fatal("nobody noticed that it is lost")
		}
		if !follows(t, disk, &place{}, images{}, applied) {
			t.Errorf("it answers, and counts as lost")
		}
	})
}

// A silent registry answers nothing for as long as it is waited for.
type silentRegistry struct{}

func (silentRegistry) Look(ctx context.Context, name string, _ []*state.Object) state.Image {
	<-ctx.Done()
	return state.Image{Name: name, Assumed: true}
}

// A controller that ends waits for nobody outside.
func TestAControllerEndsWhileARegistryIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if !follows(t, historytest.NewDisk(), &place{}, silentRegistry{}, applied) {
			t.Errorf("the root was not applied")
		}
	})
}
