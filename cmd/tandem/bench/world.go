package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

// world is a real controller with a real log on disk, and simulated nodes.
type world struct {
	data *serve.Data
	ctl  *act.Controller
	dir  string
	keep bool // stop leaves the directory
	stop func() error
}

// registry resolves every name, at once.
type registry struct{}

// Look implements act.Images.
func (registry) Look(_ context.Context, name string, _ []*state.Object) state.Image {
	return state.Image{Name: name, Index: state.DigestOf([]byte(name)), Platforms: []state.Platform{
		{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte(name + "linux"))},
		{OS: state.Windows, Arch: "amd64", OSVersion: "10.0.20348.2113", Digest: state.DigestOf([]byte(name + "windows"))},
	}}
}

// newWorld starts a controller and nodes in its process, half of them Windows.
func newWorld(ctx context.Context, nodes int) (*world, error) { return newWorldOver(ctx, nodes, false) }

// newWorldOver lets the nodes speak over mTLS, each with a connection of its own.
func newWorldOver(ctx context.Context, nodes int, tls bool) (*world, error) { //nolint:funlen // parts are put together in order
	dir, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir}
	if w.data, err = serve.OpenData(dir, false); err != nil {
		return nil, err
	}
	logger := slog.New(slog.DiscardHandler)
	var ctl *act.Controller
	hub := agent.NewHub(agent.HubConfig{Submit: func(e ...state.Event) { ctl.Submit(e...) }, Logger: logger})
	ctl, err = act.New(ctx, act.Config{
		Log: w.data.Store, Library: w.data.Library, Texts: w.data.Store.Texts(), Nodes: hub, Images: registry{},
		LogID: w.data.Store.ID(), Version: "bench", Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	w.ctl = ctl
	link := func(state.NodeName) (agent.Link, error) { return hub.Link(), nil }
	hangUp := func() error { return nil }
	if tls {
		over, err := newWire(hub, dir)
		if err != nil {
			return nil, err
		}
		link, hangUp = over.link, over.close
	}
	run, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	var failure error
	all.Go(func() { failure = ctl.Run(run) })
	fleet := simulated.NewFleet(simulated.FleetOptions{Logger: logger})
	for i := range nodes {
		facts := state.NodeFacts{
			OS: state.Linux, Arch: "amd64",
			Allocatable: state.Resources{MilliCPU: 16_000, Memory: 64 << 30, Ephemeral: 100 << 30, Pods: 110},
		}
		if i%2 == 1 {
			facts.OS, facts.OSVersion, facts.Isolations = state.Windows, "10.0.20348.2113", []state.Isolation{state.Process}
		}
		facts.Capacity = facts.Allocatable
		name := state.NodeName(fmt.Sprintf("%s-%04d", facts.OS, i))
		l, err := link(name)
		if err != nil {
			cancel()
			return nil, err
		}
		fleet.Add(name, facts, l)
	}
	all.Go(func() { _ = fleet.Run(run) })
	w.stop = func() error {
		cancel()
		all.Wait()
		closed := errors.Join(hangUp(), w.data.Close())
		if !w.keep {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		if failure != nil {
			return failure
		}
		return closed
	}
	err = w.until(ctx, func(s *state.State) bool {
		ready := 0
		for _, n := range s.Nodes {
			if n.Ready {
				ready++
			}
		}
		return ready == nodes
	})
	return w, err
}

// until waits for a state at the watermark.
func (w *world) until(ctx context.Context, holds func(*state.State) bool) error {
	return w.untilIn(ctx, 2*time.Minute, holds)
}

// untilIn is until with another patience.
func (w *world) untilIn(ctx context.Context, patience time.Duration, holds func(*state.State) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var seq state.Seq
		done := false
		w.ctl.View(func(s *state.State) { seq, done = s.Seq, holds(s) })
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain at record %d: %w", seq, ctx.Err())
		case <-w.ctl.Changed(seq):
		}
	}
}

// commit tells the controller what its root says from now on.
func (w *world) commit(n int, objects ...*state.Object) {
	m := &state.Manifest{App: state.RootApp, Objects: objects}
	slices.SortFunc(m.Objects, func(a, b *state.Object) int { return a.Ref.Compare(b.Ref) })
	m.Digest = manifest.Digest(m.Objects)
	w.ctl.Submit(&state.RootRendered{Revision: state.Revision(fmt.Sprintf("main@sha1:%040x", n)), Manifest: m})
}

func template(name, image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways,
			Containers: []corev1.Container{{
				Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				ReadinessProbe: &corev1.Probe{
					ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)}},
					PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
				},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
				}},
			}},
		},
	}
}

func deployment(name, image string, os state.OS, replicas int32) *state.Object {
	surge, away := intstr.FromString("25%"), intstr.FromString("25%")
	return object("Deployment", os, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template(name, image),
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &away},
			},
		},
	})
}

func statefulset(name, image string, replicas int32) *state.Object {
	zero := int32(0)
	return object("StatefulSet", state.Linux, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: &replicas, ServiceName: name, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
			Template: template(name, image), PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
				Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &zero},
			},
		},
	})
}

func object(kind string, os state.OS, body state.Body) *state.Object {
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err) // a value of k8s.io/api
	}
	return &state.Object{
		Ref:      state.Ref{Kind: kind, Namespace: body.GetNamespace(), Name: body.GetName()},
		Variants: []state.Variant{{OS: os, Body: body, Digest: state.DigestOf(raw)}},
	}
}

// ready counts the pods that are.
func ready(s *state.State) int {
	n := 0
	for _, p := range s.Pods {
		if p.Ready && !p.Stopping {
			n++
		}
	}
	return n
}
