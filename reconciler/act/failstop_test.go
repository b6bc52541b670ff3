package act_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/historytest"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

type shelf struct{ blobs *history.Blobs }

func (s shelf) Put(d state.Digest, raw []byte) error { return s.blobs.Put(d, raw) }
func (s shelf) Open(d state.Digest) ([]byte, error)  { return s.blobs.Blob(d) }

type codec struct{ secrets *history.Secrets }

func (c codec) Encode(m *state.Manifest) ([]byte, error) { return manifest.Encode(m, c.secrets) }
func (c codec) Decode(raw []byte) (*state.Manifest, error) {
	return manifest.DecodeManifest(raw, c.secrets)
}

type images struct{}

func (images) Look(_ context.Context, name string, _ []*state.Object) state.Image {
	return state.Image{Name: name, Platforms: []state.Platform{{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte(name))}}}
}

// gate hands assignments on, and checks that each was durable first.
type gate struct {
	*agent.Hub
	store   *history.Store
	early   *atomic.Int64
	stopped *atomic.Bool
}

// Assign implements act.Nodes.
func (g gate) Assign(a state.Assignment) {
	if a.Seq > g.store.Head().Seq || g.stopped.Load() {
		g.early.Add(1)
	}
	g.Hub.Assign(a)
}

func web(replicas int32) *state.Manifest {
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{Kind: "Deployment", APIVersion: "apps/v1"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "web", Image: "web:1"}}},
			},
		},
	}
	raw, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	o := &state.Object{
		Ref:      state.Ref{Kind: "Deployment", Namespace: "default", Name: "web"},
		Variants: []state.Variant{{OS: state.Linux, Body: d, Digest: state.DigestOf(raw)}},
	}
	return &state.Manifest{App: state.RootApp, Objects: []*state.Object{o}, Digest: manifest.Digest([]*state.Object{o})}
}

// life is one process of a controller on a disk; it ends when the disk fails or
// what is wanted is there.
func life(t *testing.T, disk *historytest.Disk, replicas int32) (ops int, early int64, err error) {
	t.Helper()
	// What closing the log writes is no part of the controller's life.
	defer func() { ops = disk.Ops() }()
	logger := slog.New(slog.DiscardHandler)
	store, err := history.Open("data", history.Options{Disk: disk})
	if err != nil {
		return 0, 0, err
	}
	blobs, err := store.OpenBlobs()
	if err != nil {
		return 0, 0, err
	}
	secrets, err := store.OpenSecrets()
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var c *act.Controller
	g := gate{store: store, early: new(atomic.Int64), stopped: new(atomic.Bool)}
	g.Hub = agent.NewHub(agent.HubConfig{Submit: func(e ...state.Event) { c.Submit(e...) }, Logger: logger})
	c, err = act.New(ctx, act.Config{
		Log: store, Library: act.NewLibrary(shelf{blobs}, codec{secrets}), Texts: store.Texts(), Nodes: g, Images: images{},
		LogID: store.ID(), Version: "test", Logger: logger,
	})
	if err != nil {
		return 0, 0, err
	}
	fleet := simulated.NewFleet(simulated.FleetOptions{Logger: logger})
	size := state.Resources{MilliCPU: 64_000, Memory: 64 << 30, Ephemeral: 1 << 40, Pods: 200}
	fleet.Add("linux-1", state.NodeFacts{OS: state.Linux, Arch: "amd64", Capacity: size, Allocatable: size}, g.Link())
	fleetCtx, stopFleet := context.WithCancel(ctx)
	defer stopFleet()
	fleetDone := make(chan struct{})
	go func() { _ = fleet.Run(fleetCtx); close(fleetDone) }()
	done := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		err := c.Run(run)
		g.stopped.Store(true)
		done <- err
	}()
	c.Submit(&state.RootRendered{Revision: state.Revision(fmt.Sprintf("main@sha1:%040d", replicas)), Manifest: web(replicas)})
	for {
		ready, seq := int32(0), state.Seq(0)
		c.View(func(s *state.State) {
			seq = s.Seq
			for _, p := range s.Pods {
				if p.Ready && !p.Stopping {
					ready++
				}
			}
		})
		if ready == replicas {
			stopFleet()
			<-fleetDone
			stop()
			err := <-done
			return 0, g.early.Load(), err
		}
		select {
		case err := <-done:
			stopFleet()
			<-fleetDone
			return 0, g.early.Load(), err
		case <-ctx.Done():
			return 0, g.early.Load(), errors.New("neither converged nor failed")
		case <-c.Changed(seq):
		}
	}
}

// Any write that fails ends the process with an error, nothing that wasn't
// durable has left, and the next process goes on from what is on the disk.
func TestFailStop(t *testing.T) {
	disk := historytest.NewDisk()
	broken := errors.New("input/output error")
	for round := range 25 {
		at := 3 + round*2
		disk.Inject(historytest.Fault{At: at, Err: broken, Short: round%2 == 0})
		ops, early, err := life(t, disk, int32(round%7+1)) //nolint:gosec // a small number
		if early > 0 {
			t.Fatalf("round %d: %d assignments left before they were durable", round, early)
		}
		if hit := ops >= at; hit != (err != nil) {
			t.Fatalf("round %d: the disk failed: %t, the controller said: %v", round, hit, err)
		}
		disk = disk.Crash(nil)
	}
	disk.Inject(historytest.Fault{})
	if _, _, err := life(t, disk, 3); err != nil {
		t.Fatalf("the last life: %v", err)
	}
}
