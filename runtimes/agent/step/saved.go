package step

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Saved is what a later process needs to go on: the assignment, and of each
// container what can't be observed. It holds no secret but the assignment's.
type Saved struct {
	Assignment *state.Assignment `json:"-"` // kept in its own form
	BootID     string            `json:"bootID"`
	Pods       []SavedPod        `json:"pods,omitempty"`
	Lease      lease.Keeper      `json:"lease"`
}

// SavedPod is a pod of Saved.
type SavedPod struct {
	UID        state.UID        `json:"uid"`
	Since      int64            `json:"since"` // wall nanoseconds
	Failed     state.PodReason  `json:"failed,omitempty"`
	FailText   string           `json:"failText,omitempty"`
	Containers []SavedContainer `json:"containers,omitempty"`
}

// SavedContainer is a container of SavedPod. Of one that never began nothing is saved.
type SavedContainer struct {
	Name    string          `json:"name"`
	Attempt int32           `json:"attempt,omitempty"`
	Running bool            `json:"running,omitempty"`
	Started bool            `json:"started,omitempty"`
	Ready   bool            `json:"ready,omitempty"`
	Exit    int32           `json:"exit,omitempty"`
	At      int64           `json:"at,omitempty"` // wall nanoseconds of its start, or of its end
	Why     state.PodReason `json:"why,omitempty"`
	Backoff time.Duration   `json:"backoff,omitempty"`
	From    int64           `json:"from,omitempty"` // when the life began that ended last
	End     int64           `json:"end,omitempty"`  // when that one ended
	Words   string          `json:"words,omitempty"`
}

// Save is what New of a later process takes.
func (m *Machine) Save() *Saved {
	s := &Saved{Assignment: m.assignment, BootID: m.cfg.BootID, Lease: m.lease}
	for _, p := range m.pods {
		if p.want == nil || p.life == gone {
			continue
		}
		sp := SavedPod{UID: p.uid, Since: p.since.Wall, Failed: p.failed, FailText: p.failText}
		for i := range p.containers {
			c := &p.containers[i]
			attempt := c.attempt
			if c.stage == starting {
				attempt-- // whether it began is for the runtime to say
			}
			if attempt < 0 || c.stage == waiting && attempt == 0 && c.lastWhy == state.ReasonNone {
				continue
			}
			sc := SavedContainer{
				Name: c.spec.Name, Attempt: attempt, Started: c.started, Ready: c.ready, Exit: c.lastExit, Why: c.lastWhy,
				Backoff: c.backoff, At: c.endedAt, From: c.lastFrom, End: c.lastEnd, Words: c.lastText,
			}
			if c.stage == running || c.stage == ending {
				sc.Running, sc.At = true, c.startedAt
			} else if c.endedAt == 0 {
				sc.At = c.startedAt
			}
			sp.Containers = append(sp.Containers, sc)
		}
		s.Pods = append(s.Pods, sp)
	}
	return s
}

func (m *Machine) restore(s *Saved) {
	if s.Assignment == nil || s.Assignment.Node != m.cfg.Node {
		return
	}
	rebooted := s.BootID != m.cfg.BootID
	if !rebooted {
		endless := m.lease.Endless
		m.lease = s.Lease
		m.lease.Endless = endless
	} else {
		m.lease = lease.Keeper{}
	}
	m.assignment, m.objects = s.Assignment, s.Assignment.Objects
	m.follow(state.Instant{})
	for _, p := range m.pods {
		p.hold(rebooted && p.identity() && p.life == living, state.ReasonHostRestart)
	}
	for i := range s.Pods {
		sp := &s.Pods[i]
		p := m.find(sp.UID)
		if p == nil {
			continue
		}
		p.failed, p.failText = sp.Failed, sp.FailText
		p.since.Wall = sp.Since
		for j := range sp.Containers {
			if c := p.container(sp.Containers[j].Name); c != nil {
				c.restore(&sp.Containers[j], rebooted)
			}
		}
	}
}

// resume puts what was saved onto this process's steady clock.
func (p *pod) resume(now state.Instant) {
	p.since.Mono = now.Mono - max(0, time.Duration(now.Wall-p.since.Wall))
	for i := range p.containers {
		c := &p.containers[i]
		if c.stage == ended && c.lastEnd == 0 && c.lastWhy == state.ReasonHostRestart {
			c.endedAt, c.lastEnd = now.Wall, now.Wall
		}
		if c.stage == ended && c.backoff > 0 {
			passed := max(0, time.Duration(now.Wall-c.endedAt))
			c.notUntil = now.Mono + max(0, c.backoff-passed)
			c.restarted = now.Mono
		}
	}
}

// restore sets a container as it was. A running one is taken to run until the
// first observation says otherwise.
func (c *container) restore(s *SavedContainer, rebooted bool) {
	c.attempt, c.backoff = s.Attempt, s.Backoff
	c.lastExit, c.lastWhy, c.lastFrom, c.lastEnd, c.lastText = s.Exit, s.Why, s.From, s.End, s.Words
	switch {
	case s.Running && rebooted:
		c.stage, c.exit, c.why = ended, 255, state.ReasonHostRestart
		c.lastExit, c.lastWhy, c.backoff = 255, state.ReasonHostRestart, 0
		c.lastFrom, c.lastEnd, c.lastText = s.At, 0, "" // it ended before resume, nobody knows when
	case s.Running:
		c.begin(s.Attempt, s.At)
		c.stage, c.startedAt = running, s.At
		c.started, c.ready = s.Started, s.Ready
	default:
		c.stage, c.exit, c.why, c.endedAt, c.lastEnd = ended, s.Exit, s.Why, s.At, s.At
	}
}
