package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// How long one call of a runtime may take before it counts as failed.
const (
	callTimeout = 2 * time.Minute
	pullTimeout = 6 * time.Hour // one that stalls ends long before: images.DefaultStall
)

// A worker carries out actions, some at a time.
type worker struct {
	agent *Agent
	all   *sync.WaitGroup
	slots chan struct{} // of containers that start, and what else the runtime does
	boxes chan struct{} // of sandboxes: the first container starts while the others' pods are made
	pulls chan struct{}
}

// podWork is what goes on for one pod.
type podWork struct {
	cancels map[uint64]context.CancelFunc // of what Cancel ends
	probes  map[probeKey]context.CancelFunc
}

type probeKey struct {
	container string
	kind      step.Probe
}

// do begins an action; its end comes back as an event.
func (w *worker) do(ctx context.Context, x step.Action) {
	a := w.agent
	switch x.Do {
	case step.Cancel:
		a.mu.Lock()
		if p := a.running[x.UID]; p != nil {
			for _, cancel := range p.cancels {
				cancel()
			}
		}
		a.mu.Unlock()
		return
	case step.StartProbe:
		w.probe(ctx, x)
		return
	case step.StopProbe:
		a.stopProbes(x.UID, &probeKey{x.Container, x.Probe})
		return
	case step.Stop, step.Remove, step.DropVolume:
	case step.Pull, step.Prepare, step.MakeSandbox, step.Run:
	}
	slots, timeout := w.slots, callTimeout
	switch x.Do {
	case step.Pull:
		slots, timeout = w.pulls, pullTimeout
	case step.Prepare, step.MakeSandbox:
		slots = w.boxes
	case step.Stop:
		slots, timeout = nil, callTimeout+x.Grace // it mostly waits
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	if x.Do != step.Stop && x.Do != step.Remove && x.Do != step.DropVolume {
		a.mu.Lock()
		a.work(x.UID).cancels[x.ID] = cancel
		a.mu.Unlock()
	}
	w.all.Go(func() {
		defer cancel()
		ip, err := w.call(ctx, &x, slots, timeout)
		if x.Do == step.Run && err == nil {
			// A program may take its time, and wait for another pod of this node: a
			// hook has no limit but its pod's end, and no place among the calls.
			if failed := a.postStart(ctx, &x); failed != nil {
				err = &hookError{failed}
			}
		}
		a.finished(ctx, &x, ip, err)
	})
}

// call calls the runtime, as one of so many at a time.
func (w *worker) call(ctx context.Context, x *step.Action, slots chan struct{}, timeout time.Duration) (ip string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if slots != nil {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
		}
	}
	began := time.Now()
	if err = ctx.Err(); err == nil {
		ip, err = w.agent.carryOut(ctx, x)
	}
	w.agent.metered(ctx, x, err, time.Since(began))
	return ip, err
}

// metered counts an action that ended by itself.
func (a *Agent) metered(ctx context.Context, x *step.Action, err error, took time.Duration) {
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) {
		a.cfg.Meter.Did(x, ClassOf(err), took)
	}
}

// work is a pod's; mu is held.
func (a *Agent) work(uid state.UID) *podWork {
	p := a.running[uid]
	if p == nil {
		p = &podWork{cancels: map[uint64]context.CancelFunc{}, probes: map[probeKey]context.CancelFunc{}}
		a.running[uid] = p
	}
	return p
}

func (a *Agent) finished(ctx context.Context, x *step.Action, ip string, err error) {
	a.mu.Lock()
	if p := a.running[x.UID]; p != nil {
		delete(p.cancels, x.ID)
		if x.Do == step.Remove && err == nil {
			delete(a.running, x.UID)
		}
	}
	a.mu.Unlock()
	d := &step.Done{ID: x.ID, UID: x.UID, Class: ClassOf(err), IP: ip}
	attrs := []slog.Attr{slog.String("action", x.Do.String()), slog.String("uid", x.UID.String())}
	if x.Pod != nil {
		attrs = append(attrs, slog.String("pod", x.Pod.Key.String()))
	}
	if x.Container != "" {
		attrs = append(attrs, slog.String("container", x.Container), slog.Int("attempt", int(x.Attempt)))
	}
	if failed, ok := errors.AsType[*hookError](err); ok {
		d.Class, d.Text = step.OK, failed.Error() // it runs, but must end
		a.log.LogAttrs(ctx, slog.LevelWarn, "hook failed", append(attrs, slog.Any("err", err))...)
	} else if err != nil {
		d.Text = err.Error()
		a.log.LogAttrs(ctx, slog.LevelWarn, "action failed", append(attrs, slog.Any("err", err))...)
	} else {
		if x.Do == step.Stop {
			attrs = append(attrs, slog.Duration("grace", x.Grace))
		}
		a.log.LogAttrs(ctx, slog.LevelDebug, "action done", attrs...)
	}
	a.post(d)
}

// sawEnd tells how a stopped container ended before its Stop is answered:
// otherwise the exit code that people see would be a guess.
func (a *Agent) sawEnd(ctx context.Context, x *step.Action) {
	o, err := a.cfg.Runtime.Observe(ctx, 0)
	if err != nil {
		return // the machine takes it for killed, which is what Stop may have done
	}
	e := seen(&o)
	e.Whole, e.Sandboxes = false, nil
	e.Containers = slices.DeleteFunc(e.Containers, func(c step.Container) bool { return c.UID != x.UID || c.Name != x.Container })
	if len(e.Containers) > 0 {
		a.post(a.withMessages(e))
	}
}

func (a *Agent) carryOut(ctx context.Context, x *step.Action) (ip string, err error) {
	rt := a.cfg.Runtime
	switch x.Do {
	case step.Pull:
		image := a.image(x.Pod, x.Image)
		image.Credentials = a.credentials(x)
		if known, ok := x.Pod.Template.Image(x.Image); ok && !known.Assumed && image.Digest.IsZero() {
			return "", fmt.Errorf("pull %s: %w: it has nothing for %s/%s %s; `tandem why` names nodes that it has something for",
				x.Image, runtimes.ErrUnsupported, a.facts.OS, a.facts.Arch, a.facts.OSVersion)
		}
		err := rt.Pull(ctx, image)
		if image.Policy == string(corev1.PullNever) && errors.Is(err, runtimes.ErrNotFound) {
			err = errors.Join(errNeverPull, err)
		}
		return "", err
	case step.Prepare:
		return "", a.prepareVolumes(x)
	case step.MakeSandbox:
		box := a.sandbox(x.Pod)
		var err error
		if box.DNS, err = a.resolver(ctx, x.Pod); err != nil {
			return "", err
		}
		s, err := rt.Sandbox(ctx, box)
		return s.IP, err
	case step.Run:
		c, err := a.container(x)
		if err != nil {
			return "", err
		}
		if err := a.outputs.begin(x.UID, x.Container, x.Attempt); err != nil {
			return "", fmt.Errorf("its log: %w", unavailable(err))
		}
		return "", rt.Run(ctx, c)
	case step.Stop:
		if err := rt.Stop(ctx, x.UID, x.Container, a.preStop(ctx, x)); err != nil {
			return "", err
		}
		a.sawEnd(ctx, x)
		return "", nil
	case step.Remove:
		a.stopProbes(x.UID, nil)
		if err := rt.Remove(ctx, x.UID); err != nil {
			return "", err
		}
		return "", errors.Join(a.outputs.remove(x.UID), a.removeVolumes(x.UID))
	case step.DropVolume:
		return "", a.dropVolume(ctx, x.UID)
	case step.Cancel, step.StartProbe, step.StopProbe:
		return "", nil
	default:
		return "", fmt.Errorf("action %s: %w", x.Do, runtimes.ErrUnsupported)
	}
}

// sweep removes what a former process left of pods that are nowhere: it was
// killed between the runtime's Remove and its own. False: it isn't known yet what
// belongs here.
func (a *Agent) sweep(ctx context.Context) bool {
	known := map[string]bool{}
	as := a.machine.Applied()
	if as == nil {
		return false
	}
	for _, p := range as.Pods {
		known[p.UID.String()] = true
	}
	for _, dir := range []string{a.podsDir(), a.logsDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			uid, err := state.ParseUID(e.Name())
			if err != nil || known[e.Name()] || a.machine.Knows(uid) {
				continue
			}
			if err := errors.Join(a.removeVolumes(uid), a.outputs.remove(uid)); err != nil {
				a.log.LogAttrs(ctx, slog.LevelWarn, "left something of a pod behind", slog.String("uid", e.Name()), slog.Any("err", err))
			}
		}
	}
	return true
}

func eachContainer(t *state.Template, do func(c *corev1.Container) bool) {
	spec := &t.Spec.Spec
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if do(&list[i]) {
				return
			}
		}
	}
}

func specByName(t *state.Template, name string) (found *corev1.Container) {
	eachContainer(t, func(c *corev1.Container) bool {
		if c.Name == name {
			found = c
		}
		return found != nil
	})
	return found
}

// image is what an image name of a pod means here. Of containers that share one,
// Always comes first: it asks most; Never counts where all say it.
func (a *Agent) image(p *state.AssignedPod, name string) runtimes.Image {
	digest, _ := step.ImageDigest(p, name, &a.facts)
	im := runtimes.Image{Name: name, Digest: digest}
	eachContainer(p.Template, func(c *corev1.Container) bool {
		policy := cmp.Or(c.ImagePullPolicy, corev1.PullIfNotPresent)
		if c.Image == name && (im.Policy == "" || im.Policy == string(corev1.PullNever) || policy == corev1.PullAlways) {
			im.Policy = string(policy)
		}
		return false
	})
	return im
}

// credentials are those of a pod's pull Secrets, as this node's operating system
// is to see them. Without a Secret that isn't there, the pull is tried all the same.
func (a *Agent) credentials(x *step.Action) images.Credentials {
	v := values{facts: &a.facts, objects: x.Objects}
	var secrets []*corev1.Secret
	for _, o := range x.Objects {
		if s, ok := v.body(o.Ref.Kind, o.Ref.Name).(*corev1.Secret); ok {
			secrets = append(secrets, s)
		}
	}
	return images.NewCredentials(secrets).Lacking(x.Missing)
}

// keepImages tells a runtime that removes images which ones pods here need.
func (a *Agent) keepImages(as *state.Assignment) {
	keeper, ok := a.cfg.Runtime.(runtimes.ImageKeeper)
	if !ok || as == nil {
		return
	}
	var needed []state.Digest
	for _, p := range as.Pods {
		if p.Template == nil {
			continue
		}
		eachContainer(p.Template, func(c *corev1.Container) bool {
			if d, _ := step.ImageDigest(p, c.Image, &a.facts); !d.IsZero() {
				needed = append(needed, d)
			}
			return false
		})
	}
	keeper.Keep(needed)
}
