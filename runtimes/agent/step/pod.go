package step

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Back-off as the kubelet's: ten seconds, doubled up to five minutes, forgotten
// after ten minutes without a restart. The first restart is immediate.
const (
	BackoffFirst = 10 * time.Second
	BackoffMost  = 5 * time.Minute
	BackoffReset = 2 * BackoffMost

	// retryFirst is the first wait after a sandbox or volume failed.
	retryFirst = time.Second
	// sidecarLeast is what a sidecar gets when the others took all of the grace:
	// the kubelet's figure.
	sidecarLeast = 2 * time.Second
	// unseenRetry is how long a container that was started may stay out of
	// the observations before it is started again (which finds it).
	unseenRetry = 10 * time.Second

	never = time.Duration(1<<63 - 1)
)

type life uint8

const (
	living life = iota + 1
	stopping
	removing
	gone
)

// A task is one thing that a pod needs before its containers run.
type task struct {
	done  bool
	id    uint64 // in flight
	delay time.Duration
	until time.Duration // not before, on the steady clock
	class Class
	text  string
}

func (t *task) failed(now state.Instant, first time.Duration, d *Done) {
	t.id, t.class, t.text = 0, d.Class, d.Text
	if d.Class == Unsupported {
		t.until = never
		return
	}
	t.delay = min(max(2*t.delay, first), BackoffMost)
	t.until = now.Mono + t.delay
}

func (t *task) succeeded() { *t = task{done: true} }

type image struct {
	name string
	task task
}

type stage uint8

const (
	waiting stage = iota + 1
	starting
	running
	ending
	ended
)

type container struct {
	spec    *corev1.Container
	init    bool
	sidecar bool
	stage   stage
	attempt int32

	act      uint64        // Run or Stop in flight
	stopBy   time.Duration // when the last Stop kills
	ran      time.Duration
	unseen   bool // Run succeeded, no observation has shown it yet
	wantStop bool

	started, ready      bool
	startedAt, endedAt  int64
	exit                int32
	why                 state.PodReason
	text                string
	lastExit            int32
	lastEnd, lastFrom   int64
	lastText            string
	lastWhy             state.PodReason
	backoff             time.Duration
	restarted, notUntil time.Duration
	runFail             task // failures of Run itself
	probing             [3]bool
	good, bad           [3]int32
	unready             string // why the readiness probe fails
	ownGrace            *int64 // seconds, of the probe that ended it
}

// hooked says whether the container runs but its postStart hook has not ended:
// until then it is neither probed nor ready.
func (c *container) hooked() bool { return c.stage == running && c.act != 0 }

func (c *container) runs() bool { return c.stage == running || c.stage == ending }

// begun says whether the container has had a life, or is about to have one.
func (c *container) begun() bool {
	return c.stage != waiting || c.attempt > 0 || c.lastWhy != state.ReasonNone
}

type pod struct {
	uid    state.UID
	key    state.PodKey
	want   *state.AssignedPod // nil: nobody assigned it
	life   life
	grace  time.Duration
	stopBy time.Duration // steady: when the grace of a pod that stops is over; 0: not begun
	held   bool          // identity-bound: waits for an assignment of this boot, and for a lease
	failed state.PodReason
	// failText says it in words.
	failText string

	heldFor state.PodReason // why, with held

	sandbox     task
	sandboxSeen bool
	ip          string
	prepare     task
	remove      task
	configs     state.Digest // that the volumes were last prepared from
	preparing   state.Digest
	objects     []*state.Object
	volumes     []PodVolume
	missing     string // a ConfigMap, Secret or claim that isn't there
	keys        pullKeys
	images      []image
	containers  []container
	since       state.Instant

	status state.PodStatus // as last reported
	dirty  bool
	change bool // status differs from what was reported
	wake   time.Duration
}

func newPod(want *state.AssignedPod, now state.Instant) *pod {
	p := &pod{uid: want.UID, key: want.Key, want: want, life: living, since: now, dirty: true}
	p.fill()
	return p
}

// fill makes the containers of a pod that has got a template.
func (p *pod) fill() {
	if len(p.containers) > 0 || p.want == nil || p.want.Template == nil {
		return
	}
	spec := &p.want.Template.Spec.Spec
	p.containers = make([]container, 0, len(spec.InitContainers)+len(spec.Containers))
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		p.containers = append(p.containers, container{spec: c, init: true, sidecar: state.Sidecar(c), stage: waiting})
	}
	for i := range spec.Containers {
		p.containers = append(p.containers, container{spec: &spec.Containers[i], stage: waiting})
	}
	if p.images != nil {
		return
	}
	for i := range p.containers {
		name := p.containers[i].spec.Image
		if p.image(name) == nil {
			p.images = append(p.images, image{name: name})
		}
	}
}

func (p *pod) image(name string) *image {
	for i := range p.images {
		if p.images[i].name == name {
			return &p.images[i]
		}
	}
	return nil
}

func (p *pod) container(name string) *container {
	for i := range p.containers {
		if p.containers[i].spec.Name == name {
			return &p.containers[i]
		}
	}
	return nil
}

// identity says whether the pod's name is an identity that must not run twice.
func (p *pod) identity() bool { return p.want != nil && p.want.Workload.Kind == "StatefulSet" }

func (p *pod) policy() corev1.RestartPolicy {
	if r := p.want.Template.Spec.Spec.RestartPolicy; r != "" {
		return r
	}
	return corev1.RestartPolicyAlways
}

// ownGrace is the manifest's terminationGracePeriodSeconds.
func (p *pod) ownGrace() time.Duration {
	if p.want != nil && p.want.Template != nil {
		if s := p.want.Template.Spec.Spec.TerminationGracePeriodSeconds; s != nil {
			return time.Duration(*s) * time.Second
		}
	}
	return 30 * time.Second
}

// killGrace is what a container gets that its probe or hook has failed.
func (p *pod) killGrace(c *container) time.Duration {
	if c.ownGrace != nil {
		return time.Duration(*c.ownGrace) * time.Second
	}
	return p.ownGrace()
}

// restarts says whether an ended container is to run again.
func (p *pod) restarts(c *container) bool {
	if p.failed != state.ReasonNone {
		return false
	}
	if c.sidecar {
		return !p.mainsEnded()
	}
	switch p.policy() {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return c.exit != 0
	default:
		// An init container that succeeded has done its work.
		return !c.init || c.exit != 0
	}
}

// mainsEnded says whether every container but sidecars has ended for good.
func (p *pod) mainsEnded() bool {
	for i := range p.containers {
		c := &p.containers[i]
		if c.sidecar || c.init && c.stage == ended && c.exit == 0 {
			continue
		}
		if c.stage != ended || p.restarts(c) {
			return p.initFailed()
		}
	}
	return true
}

// initFailed says whether an init container failed and will not run again.
func (p *pod) initFailed() bool {
	for i := range p.containers {
		c := &p.containers[i]
		if c.init && !c.sidecar && c.stage == ended && c.exit != 0 && !p.restarts(c) {
			return true
		}
	}
	return false
}

func (c *container) probe(k Probe) *corev1.Probe {
	switch k {
	case Startup:
		return c.spec.StartupProbe
	case Liveness:
		return c.spec.LivenessProbe
	case Readiness:
		return c.spec.ReadinessProbe
	default:
		return nil
	}
}

// begin makes the container a running one.
func (c *container) begin(attempt int32, at int64) {
	if attempt == c.attempt && (c.stage == running || c.stage == ending) {
		c.unseen = false
		return
	}
	c.stage, c.attempt, c.startedAt, c.unseen, c.wantStop = running, attempt, at, false, false
	c.why, c.text, c.unready, c.ownGrace = state.ReasonNone, "", "", nil
	c.good, c.bad = [3]int32{}, [3]int32{}
	c.started = c.spec.StartupProbe == nil
	c.ready = c.started && c.spec.ReadinessProbe == nil
	c.runFail = task{}
}

// end makes the container an ended one and sets its back-off.
func (c *container) end(now state.Instant, exit int32, at int64, why state.PodReason, text string) {
	if c.stage == ended {
		return
	}
	c.stage, c.exit, c.endedAt, c.why, c.text = ended, exit, at, why, text
	c.lastExit, c.lastEnd, c.lastFrom, c.lastWhy, c.lastText = exit, at, c.startedAt, why, text
	c.ready, c.started, c.unseen, c.wantStop = false, false, false, false
	if c.backoff > 0 && now.Mono-c.restarted > BackoffReset {
		c.backoff = 0
	}
	c.notUntil = now.Mono + c.backoff
}

func exitReason(exit int32, oom bool) state.PodReason {
	switch {
	case oom:
		return state.ReasonOOMKilled
	case exit == 0:
		return state.ReasonCompleted
	default:
		return state.ReasonError
	}
}
