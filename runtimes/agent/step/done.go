package step

import "github.com/tandem-gitops/tandem/reconciler/state"

// done takes in the end of an action. One that nothing waits for is late.
func (m *Machine) done(now state.Instant, p *pod, d *Done) {
	switch d.ID {
	case p.sandbox.id:
		m.madeSandbox(now, p, d)
		return
	case p.prepare.id:
		m.prepared(now, p, d)
		return
	case p.remove.id:
		if d.Class == OK || d.Class == NotFound {
			p.life = gone
			m.gone = append(m.gone, p.uid)
			p.remove = task{done: true}
			p.containers = nil
		} else {
			p.remove.failed(now, retryFirst, d)
			p.remove.until = min(p.remove.until, now.Mono+BackoffMost)
		}
		return
	}
	for i := range p.images {
		if t := &p.images[i].task; t.id == d.ID {
			if d.Class == OK {
				t.succeeded()
			} else {
				t.failed(now, BackoffFirst, d)
			}
			return
		}
	}
	for i := range p.containers {
		c := &p.containers[i]
		if c.act != d.ID {
			continue
		}
		c.act = 0
		switch c.stage {
		case starting:
			m.ran(now, p, c, d)
		case running: // it was seen to run before Run returned: its postStart hook took its time
		default:
			m.stopped(now, c, d)
		}
		if c.stage == running && d.Class == OK && d.Text != "" && !c.wantStop {
			c.wantStop, c.why, c.text, c.ready = true, state.ReasonUnhealthy, d.Text, false
		}
		return
	}
}

func (m *Machine) madeSandbox(now state.Instant, p *pod, d *Done) {
	if d.Class != OK {
		p.sandbox.failed(now, retryFirst, d)
		return
	}
	p.sandbox.succeeded()
	if d.IP != "" {
		p.ip = d.IP
	}
}

func (m *Machine) prepared(now state.Instant, p *pod, d *Done) {
	if d.Class == OK {
		p.prepare.succeeded()
		return
	}
	was := p.prepare.done
	p.prepare.failed(now, retryFirst, d)
	p.prepare.done = was
	if was {
		p.preparing = state.Digest{} // not up to date: again
	}
}

func (m *Machine) ran(now state.Instant, p *pod, c *container, d *Done) {
	if d.Class == OK {
		c.begin(c.attempt, now.Wall)
		c.unseen, c.ran = true, now.Mono
		return
	}
	// The attempt did not begin: the same one is tried again.
	c.stage = waiting
	c.runFail.failed(now, BackoffFirst, d)
	c.runFail.id = 0
	if d.Class == NotFound {
		// The image or the sandbox went away under it.
		if im := p.image(c.spec.Image); im != nil {
			im.task = task{}
		}
		p.sandbox = task{}
		c.runFail.until = now.Mono + retryFirst
	}
}

func (m *Machine) stopped(now state.Instant, c *container, d *Done) {
	if c.stage != ending {
		return // its end was seen before Stop returned
	}
	if d.Class != OK && d.Class != NotFound {
		c.runFail.failed(now, retryFirst, d)
		c.runFail.until = min(c.runFail.until, now.Mono+BackoffMost)
		return
	}
	why := state.ReasonError
	if c.wantStop {
		why = c.why
	}
	c.end(now, 137, 0, why, c.text)
}
