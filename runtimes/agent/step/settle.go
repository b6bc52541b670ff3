package step

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (m *Machine) do(a Action) uint64 {
	m.ids++
	a.ID = m.ids
	m.actions = append(m.actions, a)
	return a.ID
}

// at makes the pod's next look no later than mono.
func (p *pod) at(mono time.Duration) { p.wake = min(p.wake, mono) }

func (p *pod) stop(grace time.Duration) {
	p.life, p.grace, p.dirty = stopping, max(grace, 0), true
}

// settle asks for whatever the pod needs next.
func (m *Machine) settle(now state.Instant, p *pod) {
	m.abide(now, p)
	switch p.life {
	case living:
		if p.want == nil {
			if m.assignment == nil {
				return // nobody has said yet what this node should run
			}
			p.stop(0)
			m.wind(now, p)
			return
		}
		m.live(now, p)
	case stopping, removing:
		m.wind(now, p)
	case gone:
	}
}

func (m *Machine) live(now state.Instant, p *pod) {
	if p.want.Template == nil {
		return
	}
	if p.held || !m.open(p) {
		m.watch(p)
		return
	}
	m.expire(now, p)
	if p.over() {
		m.finish(now, p)
		return
	}
	ready := m.provide(now, p)
	m.watch(p)
	m.advance(now, p, ready)
}

// expire fails a pod whose activeDeadlineSeconds have passed.
func (m *Machine) expire(now state.Instant, p *pod) {
	limit := p.want.Template.Spec.Spec.ActiveDeadlineSeconds
	if limit == nil || p.failed != state.ReasonNone {
		return
	}
	end := p.since.Mono + time.Duration(*limit)*time.Second
	if now.Mono >= end {
		p.failed = state.ReasonDeadline
		return
	}
	p.at(end)
}

// over says whether nothing of the pod is to run again.
func (p *pod) over() bool {
	return p.failed != state.ReasonNone || p.initFailed() || p.mainsEnded()
}

// finish ends what still runs of a pod that is over: sidecars, or everything
// after a deadline. The pod stays, with its logs, until it is told to stop.
func (m *Machine) finish(now state.Instant, p *pod) {
	m.watch(p)
	for i := range p.containers {
		m.end(now, p, &p.containers[i], p.ownGrace())
	}
}

// provide makes sandbox, volumes and images, side by side, and says whether
// sandbox and volumes are there.
func (m *Machine) provide(now state.Instant, p *pod) bool {
	if p.missing != "" && !p.prepare.done {
		return false
	}
	m.try(now, p, &p.sandbox, Action{Do: MakeSandbox})
	m.refresh(now, p)
	for i := range p.images {
		im := &p.images[i]
		if p.needs(im.name) {
			m.pull(now, p, im)
		}
	}
	return p.sandbox.done && p.prepare.done
}

// refresh prepares the pod's volumes, and again when a ConfigMap or Secret of
// its has changed: its files follow.
func (m *Machine) refresh(now state.Instant, p *pod) {
	t := &p.prepare
	switch {
	case t.id != 0 || p.missing != "" || t.done && p.preparing == p.configs:
	case t.until > now.Mono:
		p.at(t.until)
	default:
		p.preparing = p.configs
		t.id = m.do(Action{Do: Prepare, UID: p.uid, Pod: p.want, Objects: p.objects, Volumes: p.volumes})
	}
}

// needs says whether a container that doesn't run yet has that image.
func (p *pod) needs(image string) bool {
	for i := range p.containers {
		c := &p.containers[i]
		if c.spec.Image == image && (c.stage == waiting || c.stage == ended && p.restarts(c)) {
			return true
		}
	}
	return false
}

func (m *Machine) try(now state.Instant, p *pod, t *task, a Action) {
	switch {
	case t.done || t.id != 0:
	case t.until > now.Mono:
		p.at(t.until)
	default:
		a.UID, a.Pod = p.uid, p.want
		t.id = m.do(a)
	}
}

// advance starts what may start: init containers one after another, sidecars
// among them once started, then all others side by side.
func (m *Machine) advance(now state.Instant, p *pod, ready bool) {
	for i := range p.containers {
		c := &p.containers[i]
		if c.wantStop {
			m.end(now, p, c, p.killGrace(c))
		}
		if c.stage == starting && c.act == 0 || c.unseen && c.act == 0 {
			if now.Mono >= c.ran+unseenRetry {
				c.stage = starting
				m.run(now, p, c, c.attempt)
			} else {
				p.at(c.ran + unseenRetry)
			}
		}
		if ready && c.act == 0 && (c.stage == waiting || c.stage == ended) {
			m.startable(now, p, c)
		}
		if c.init && !p.passed(c) {
			return // the next one waits for it
		}
	}
}

// passed says whether the containers after an init container may start.
func (p *pod) passed(c *container) bool {
	if c.stage == ended && c.exit == 0 && !c.sidecar || c.sidecar && c.stage == running && c.started {
		return true
	}
	// What has begun isn't held back by a sidecar that begins anew, nor by an
	// init container whose remains are gone after a restart of the agent.
	for i := len(p.containers) - 1; i >= 0 && &p.containers[i] != c; i-- {
		if o := &p.containers[i]; o.begun() && (c.sidecar || !o.init) {
			return true
		}
	}
	return false
}

func (m *Machine) startable(now state.Instant, p *pod, c *container) {
	attempt := c.attempt
	if c.stage == ended {
		if !p.restarts(c) {
			return
		}
		attempt++
	}
	if c.init && !c.sidecar && p.passed(c) {
		return
	}
	if im := p.image(c.spec.Image); !im.task.done {
		return
	}
	wait := max(c.notUntil, c.runFail.until)
	if wait == never {
		return
	}
	if now.Mono < wait {
		p.at(wait)
		return
	}
	m.run(now, p, c, attempt)
}

func (m *Machine) run(now state.Instant, p *pod, c *container, attempt int32) {
	if attempt > c.attempt {
		c.backoff = min(max(2*c.backoff, BackoffFirst), BackoffMost)
		c.restarted = now.Mono
		c.attempt = attempt
	}
	c.stage, c.ran = starting, now.Mono
	c.act = m.do(Action{
		Do: Run, UID: p.uid, Pod: p.want, Container: c.spec.Name, Attempt: attempt, Init: c.init, IP: p.ip, Objects: p.objects,
		Image: c.spec.Image, Volumes: p.volumes,
	})
}

// end stops a container that runs, once; again where there is less time than the
// Stop under way would take.
func (m *Machine) end(now state.Instant, p *pod, c *container, grace time.Duration) {
	if c.stage == ending && c.act != 0 && c.stopBy > now.Mono+grace {
		c.stage, c.act = running, 0
	}
	if c.stage == ending && c.act == 0 {
		if now.Mono < c.runFail.until {
			p.at(c.runFail.until)
			return
		}
		c.stage = running // the last Stop failed: again
	}
	if c.stage != running || c.act != 0 {
		return
	}
	c.stage, c.stopBy = ending, now.Mono+grace
	c.act = m.do(Action{Do: Stop, UID: p.uid, Pod: p.want, Container: c.spec.Name, Attempt: c.attempt, Grace: grace, IP: p.ip})
}

// wind stops a pod: containers first, sidecars last, then all that is left.
func (m *Machine) wind(now state.Instant, p *pod) {
	m.watch(p)
	if p.busy() {
		if !p.cancelled() {
			m.do(Action{Do: Cancel, UID: p.uid, Pod: p.want})
			p.remove.class = Unavailable // remembered: cancelled
		}
		return
	}
	if p.life == stopping {
		if m.endAll(now, p) {
			return
		}
		p.life = removing
		p.remove = task{}
	}
	m.try(now, p, &p.remove, Action{Do: Remove})
}

// endAll ends the containers of a pod, sidecars after all others: one after the
// other, the last one first, with what is left of the pod's grace (KEP-753). It
// says whether something still runs.
func (m *Machine) endAll(now state.Instant, p *pod) bool {
	if p.stopBy == 0 || p.stopBy > now.Mono+p.grace {
		p.stopBy = now.Mono + p.grace
	}
	left := false
	for i := range p.containers {
		if c := &p.containers[i]; !c.sidecar && c.runs() {
			m.end(now, p, c, p.grace)
			left = true
		}
	}
	for i := len(p.containers) - 1; i >= 0 && !left; i-- {
		if c := &p.containers[i]; c.runs() {
			m.end(now, p, c, max(p.stopBy-now.Mono, min(p.grace, sidecarLeast)))
			left = true
		}
	}
	return left
}

// busy says whether something that makes things is in flight.
func (p *pod) busy() bool {
	if p.sandbox.id != 0 || p.prepare.id != 0 {
		return true
	}
	for i := range p.containers {
		if c := &p.containers[i]; c.stage == starting && c.act != 0 || c.hooked() {
			return true
		}
	}
	return false
}

func (p *pod) cancelled() bool { return p.remove.class != 0 }

// watch asks for the probes that should run now: the startup probe gates the
// others.
func (m *Machine) watch(p *pod) {
	for i := range p.containers {
		c := &p.containers[i]
		for k := Startup; k <= Readiness; k++ {
			want := p.life == living && c.probe(k) != nil && c.stage == running && !c.wantStop && !c.hooked() && (k == Startup) != c.started
			if want == c.probing[k] {
				continue
			}
			c.probing[k] = want
			verb := StopProbe
			if want {
				verb = StartProbe
			}
			m.do(Action{
				Do: verb, UID: p.uid, Pod: p.want, Container: c.spec.Name, Attempt: c.attempt, Probe: k, IP: p.ip, Started: c.startedAt,
			})
		}
	}
}

func (m *Machine) probed(p *pod, e *Probed) {
	c := p.container(e.Container)
	if c == nil || c.attempt != e.Attempt || c.stage != running || !c.probing[e.Probe%3] || p.life != living {
		return
	}
	k, spec := e.Probe%3, c.probe(e.Probe%3)
	times := max(e.Times, 1)
	if e.OK {
		c.bad[k] = 0
		c.good[k] = min(c.good[k]+times, 1<<20)
		if c.good[k] >= max(spec.SuccessThreshold, 1) {
			p.passedProbe(c, k)
		}
		return
	}
	c.good[k] = 0
	c.bad[k] = min(c.bad[k]+times, 1<<20)
	limit := spec.FailureThreshold
	if limit <= 0 {
		limit = 3
	}
	if c.bad[k] < limit {
		return
	}
	if k == Readiness {
		if c.ready || c.unready != e.Text {
			c.ready, c.unready, p.dirty = false, e.Text, true
		}
		return
	}
	if !c.wantStop {
		c.wantStop, c.why, c.text, p.dirty = true, state.ReasonUnhealthy, k.String()+" probe failed: "+e.Text, true
		c.ready, c.ownGrace = false, spec.TerminationGracePeriodSeconds
	}
}

func (p *pod) passedProbe(c *container, k Probe) {
	switch k {
	case Startup:
		if !c.started {
			c.started, p.dirty = true, true
			c.ready = c.spec.ReadinessProbe == nil
		}
	case Readiness:
		if !c.ready {
			c.ready, c.unready, p.dirty = true, "", true
		}
	case Liveness:
	}
}
