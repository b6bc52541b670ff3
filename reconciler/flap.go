package reconciler

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Hysteresis: a pod may become ready and unready, or restart, so often within
// the window; beyond that one record says that it flaps, a summary follows each
// minute, and it counts as unavailable until it has been calm for as long.
const (
	flapEdges  = 8
	flapWindow = time.Minute
)

// flap counts a pod's changes.
type flap struct {
	edges   int32
	since   time.Duration // when the count began
	last    time.Duration // the newest edge
	ready   bool          // as last reported
	pending *state.PodStatus
	flaps   bool // PodFlapping was recorded
}

// next is when something is to be recorded of it; 0: nothing.
func (f *flap) next() time.Duration {
	if !f.flaps {
		return 0
	}
	return min(f.last, f.since) + flapWindow
}

// calm says whether a change may be recorded.
func (m *Machine) calm(p *state.Pod, s *state.PodStatus) bool {
	f := m.flaps[p.UID]
	if f == nil {
		edge := p.Reported && (s.Ready != p.Ready || s.Restarts() != p.Restarts)
		if p.Flapping {
			// A controller's restart forgot the count, not the verdict.
			m.flaps[p.UID] = &flap{edges: 1, since: m.now.Mono, last: m.now.Mono, ready: s.Ready, pending: s, flaps: true}
			return false
		}
		if edge {
			m.flaps[p.UID] = &flap{edges: 1, since: m.now.Mono, last: m.now.Mono, ready: s.Ready}
		}
		return true
	}
	if s.Ready != f.ready || s.Restarts() != p.Restarts && f.pending == nil || f.pending != nil && s.Restarts() != f.pending.Restarts() {
		if !f.flaps && m.now.Mono-f.since > flapWindow {
			f.edges, f.since = 0, m.now.Mono
		}
		f.edges++
		f.last, f.ready = m.now.Mono, s.Ready
	}
	if f.flaps {
		f.pending = s
		return false
	}
	if f.edges <= flapEdges {
		return true
	}
	f.flaps, f.pending = true, s
	m.emit(m.appOf(p), &state.PodFlapping{UID: p.UID, Edges: f.edges})
	f.edges, f.since = 0, m.now.Mono
	return false
}

// settle ends what has been calm for the window, and sums up what hasn't.
func (m *Machine) settle() {
	for _, p := range m.flapping() {
		f := m.flaps[p.UID]
		if m.now.Mono < f.next() {
			continue
		}
		if m.now.Mono-f.last >= flapWindow {
			delete(m.flaps, p.UID)
			m.emit(m.appOf(p), &state.PodSettled{UID: p.UID})
			if f.pending != nil {
				m.emit(m.appOf(p), factOf(f.pending))
			}
			continue
		}
		m.emit(m.appOf(p), &state.PodFlapping{UID: p.UID, Edges: f.edges})
		f.edges, f.since = 0, m.now.Mono
	}
	if len(m.dirty) > 0 {
		m.plan()
	}
}

func (m *Machine) flapping() []*state.Pod {
	var pods []*state.Pod
	for uid, f := range m.flaps {
		p := m.fold.Pods[uid]
		switch {
		case p == nil || !f.flaps && m.now.Mono-f.last > flapWindow:
			delete(m.flaps, uid)
		case f.flaps:
			pods = append(pods, p)
		}
	}
	sortPods(pods)
	return pods
}
