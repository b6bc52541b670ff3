package step

import (
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// describe makes the pod's status and says whether it differs from the last.
func (m *Machine) describe(p *pod) bool {
	s := state.PodStatus{UID: p.uid, Phase: p.phase(), IP: p.ip}
	for i := range p.containers {
		c := &p.containers[i]
		s.Containers = append(s.Containers, m.containerStatus(p, c))
		if c.lastText != "" {
			if s.Words == nil {
				s.Words = make([]string, len(p.containers))
			}
			s.Words[i] = c.lastText
		}
	}
	s.Ready = p.ready(s.Phase)
	s.Reason, s.Message = p.reason(s.Containers)
	if same(&s, &p.status) {
		return false
	}
	p.status = s
	return true
}

func same(a, b *state.PodStatus) bool {
	return a.Phase == b.Phase && a.Ready == b.Ready && a.IP == b.IP && a.Reason == b.Reason && a.Message == b.Message &&
		slices.Equal(a.Containers, b.Containers) && slices.Equal(a.Words, b.Words)
}

// phase follows the kubelet's getPhase.
func (p *pod) phase() state.PodPhase {
	if p.failed != state.ReasonNone {
		return state.Failed
	}
	if len(p.containers) == 0 {
		if p.want == nil {
			return state.Running // something of it is here
		}
		return state.Pending
	}
	if p.initFailed() {
		return state.Failed
	}
	var fresh, runs, failed int
	mains := 0
	for i := range p.containers {
		c := &p.containers[i]
		if c.init {
			if !p.passed(c) {
				return state.Pending
			}
			continue
		}
		mains++
		switch {
		case c.stage == running || c.stage == ending:
			runs++
		case c.stage == ended && !p.restarts(c):
			if c.exit != 0 {
				failed++
			}
		case c.lastWhy != state.ReasonNone:
			runs++ // between two lives
		default:
			fresh++
		}
	}
	switch {
	case fresh > 0:
		return state.Pending
	case runs > 0:
		return state.Running
	case failed > 0:
		return state.Failed
	case mains == 0:
		return state.Pending
	default:
		return state.Succeeded
	}
}

func (p *pod) ready(phase state.PodPhase) bool {
	if phase != state.Running || p.life != living || p.want == nil {
		return false
	}
	for i := range p.containers {
		c := &p.containers[i]
		if (!c.init || c.sidecar) && (c.stage != running || !c.ready || c.hooked()) {
			return false
		}
	}
	return true
}

func (m *Machine) containerStatus(p *pod, c *container) state.ContainerStatus {
	s := state.ContainerStatus{
		Name: c.spec.Name, Init: c.init, Restarts: c.attempt, LastExit: c.lastExit, LastEnd: c.lastEnd, LastWhy: c.lastWhy, LastFrom: c.lastFrom,
		Image: m.imageOf(p, c),
	}
	switch c.stage {
	case running, ending:
		s.State, s.Since, s.Started = state.ContainerRunning, c.startedAt, c.started
		s.Ready = c.ready && !c.hooked() && p.life == living
		switch {
		case c.wantStop:
			s.Reason = c.why
		case c.unready != "":
			s.Reason = state.ReasonUnready
		}
	case ended:
		s.ExitCode, s.Since = c.exit, c.endedAt
		s.State, s.Reason = state.ContainerTerminated, c.why
		if p.life == living && p.want != nil && p.restarts(c) {
			s.State, s.Reason = state.ContainerWaiting, c.again()
			if r := p.obstacle(c); r != state.ReasonNone {
				s.Reason = r
			}
		}
	case waiting, starting:
		s.State, s.Reason = state.ContainerWaiting, p.obstacle(c)
		if s.Reason == state.ReasonNone {
			s.Reason = p.beginning(c)
		}
	}
	return s
}

// beginning is the reason of a container that nothing is wrong with.
func (p *pod) beginning(c *container) state.PodReason {
	if c.lastWhy != state.ReasonNone && c.attempt > 0 {
		return c.again()
	}
	for i := range p.containers {
		o := &p.containers[i]
		if o == c {
			break
		}
		if o.init && !p.passed(o) {
			return state.ReasonInitializing
		}
	}
	return state.ReasonContainerCreating
}

// again is the reason of a container that is started again: one that the node's
// restart ended did nothing wrong.
func (c *container) again() state.PodReason {
	if c.lastWhy == state.ReasonHostRestart {
		return state.ReasonHostRestart
	}
	return state.ReasonCrashLoopBackOff
}

// obstacle is what keeps a container from starting, if something does.
func (p *pod) obstacle(c *container) state.PodReason {
	reason, _ := p.obstacleText(c)
	return reason
}

func (p *pod) obstacleText(c *container) (state.PodReason, string) {
	switch {
	case p.held:
		return p.heldFor, heldText(p.heldFor)
	case p.missing != "":
		return state.ReasonConfigMissing, p.missing + " is not there"
	}
	for _, t := range [...]*task{&p.sandbox, &p.prepare} {
		if !t.done && t.class != 0 {
			return t.reason(state.ReasonContainerCreating), t.text
		}
	}
	if im := p.image(c.spec.Image); im != nil && !im.task.done && im.task.class != 0 {
		if im.task.delay > BackoffFirst {
			return im.task.reason(state.ReasonImagePullBackOff), im.task.text
		}
		return im.task.reason(state.ReasonImagePull), im.task.text
	}
	if c.runFail.class != 0 && c.stage != running {
		return c.runFail.reason(state.ReasonCreateError), c.runFail.text
	}
	return state.ReasonNone, ""
}

func heldText(why state.PodReason) string {
	switch why {
	case state.ReasonHostRestart:
		return "the node restarted; this identity waits for the controller"
	case state.ReasonNodeLost:
		return "the node's lease lapsed; this identity waits for the controller"
	default:
		return "this identity waits for a lease"
	}
}

// reason is what a failed task is called; later is the word for one that is
// tried again.
func (t *task) reason(later state.PodReason) state.PodReason {
	switch t.class {
	case Unsupported:
		return state.ReasonUnsupported
	case Rejected:
		if later == state.ReasonContainerCreating || later == state.ReasonCreateError {
			return state.ReasonRejected
		}
		return later
	case ConfigMissing:
		return state.ReasonConfigMissing
	case NeverPull:
		return state.ReasonImageNeverPull
	case OK, Unavailable, NotFound:
		return later
	default:
		return later
	}
}

// reason is the pod's: the first of its containers' that says something, as
// kubectl prints it.
func (p *pod) reason(cs []state.ContainerStatus) (state.PodReason, string) {
	if p.failed != state.ReasonNone {
		return p.failed, p.failText
	}
	if p.held && len(p.containers) > 0 {
		return p.obstacleText(&container{spec: p.containers[0].spec})
	}
	if p.life == removing && p.remove.text != "" {
		return state.ReasonError, p.remove.text
	}
	for i := range cs {
		c := &p.containers[i]
		if cs[i].Reason == state.ReasonNone || c.init && c.stage == ended && (c.exit == 0 || c.sidecar && p.over()) {
			continue
		}
		return cs[i].Reason, p.text(c)
	}
	return state.ReasonNone, ""
}

func (p *pod) text(c *container) string {
	if c.stage == running || c.stage == ending {
		if c.wantStop {
			return c.text
		}
		return c.unready
	}
	if _, text := p.obstacleText(c); text != "" {
		return text
	}
	return c.text
}

func (m *Machine) imageOf(p *pod, c *container) state.Digest {
	if p.want == nil || p.want.Template == nil || m.cfg.Facts == nil {
		return state.Digest{}
	}
	d, _ := m.cfg.Image(p.want, c.spec.Image, m.cfg.Facts)
	return d
}
