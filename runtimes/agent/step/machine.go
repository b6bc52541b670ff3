package step

import (
	"cmp"
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Config is what stays for one process of an agent.
type Config struct {
	Node        state.NodeName
	Facts       *state.NodeFacts
	BootID      string
	Incarnation uint64 // grows with every start of the agent on this node
	Parked      bool   // the controller left this boot's leases for ever when it stopped
	Fenced      bool   // a fencer guards identities: none starts that it hasn't opened
	Image       Meaning
}

// A Meaning says which manifest an image name of a pod means on a node. Nil is
// ImageDigest; a test means something else, to see that it is noticed.
type Meaning func(p *state.AssignedPod, name string, facts *state.NodeFacts) (state.Digest, bool)

// A Machine is one node's agent without its goroutines. Same events at the same
// instants: same actions, same reports.
type Machine struct {
	cfg        Config
	pods       []*pod // sorted by UID
	objects    []*state.Object
	assignment *state.Assignment // as applied; nil before the first
	fresh      bool              // it came in this process, not from the disk
	seen       bool              // a whole observation has come
	full       bool              // the next report is full
	number     uint64
	ids        uint64
	gone       []state.UID
	drops      []*drop
	dropped    []state.UID
	actions    []Action
	lease      lease.Keeper
	floor      state.Grant         // the newest, by the assignment that it was given for
	guards     []state.UID         // identities that the fencer guards and lets run
	pulls      map[uint64]underway // by action
}

// New is a machine that goes on from what a former process saved; nil: nothing.
func New(cfg Config, saved *Saved) *Machine {
	m := &Machine{cfg: cfg, full: true}
	if cfg.Image == nil {
		m.cfg.Image = ImageDigest
	}
	m.lease.Endless = cfg.Parked
	if saved != nil {
		m.restore(saved)
	}
	return m
}

// Applied is the assignment that the machine follows; nil before the first.
func (m *Machine) Applied() *state.Assignment { return m.assignment }

// Step takes in events and decides. Events of one step are taken in order.
func (m *Machine) Step(now state.Instant, events ...Event) Output {
	actions, wake := m.Decide(now, events...)
	return Output{Actions: actions, Report: m.Report(), Wake: wake}
}

// Decide is Step without its report: a driver that knows that more events come
// at the same instant asks for the Report after them.
func (m *Machine) Decide(now state.Instant, events ...Event) ([]Action, state.Instant) {
	m.actions = nil
	for _, e := range events {
		m.take(now, e)
	}
	wake := never
	if !m.seen {
		return nil, state.Instant{}
	}
	for i := 0; i < len(m.pods); i++ {
		p := m.pods[i]
		if p.dirty || p.wake <= now.Mono {
			p.dirty, p.wake = false, never
			m.settle(now, p)
			p.change = m.describe(p) || p.change
		}
		if p.life == gone && (p.want == nil || !m.assigned(p.uid)) {
			m.pods = slices.Delete(m.pods, i, i+1)
			i--
			continue
		}
		wake = min(wake, p.wake)
	}
	wake = min(wake, m.dropVolumes(now))
	if wake == never {
		return m.actions, state.Instant{}
	}
	return m.actions, now.Add(wake - now.Mono)
}

func (m *Machine) take(now state.Instant, e Event) {
	switch e := e.(type) {
	case *Assigned:
		m.assign(now, e.Assignment)
	case *Connected:
		m.full = true
		m.reached(now)
	case *Granted:
		m.granted(now, &e.Grant)
	case *Guarded:
		m.guarded(e)
	case *Observed:
		m.observe(now, e)
	case *Done:
		m.pulled(e)
		if p := m.find(e.UID); p != nil {
			p.dirty = true
			m.done(now, p, e)
		} else {
			m.droppedVolume(now, e)
		}
	case *Exceeded:
		if p := m.find(e.UID); p != nil && p.life == living && p.want != nil && p.failed == state.ReasonNone {
			p.failed, p.failText, p.dirty = state.ReasonEvicted, e.Text, true
		}
	case *Probed:
		if p := m.find(e.UID); p != nil {
			m.probed(p, e)
		}
	}
}

func (m *Machine) find(uid state.UID) *pod {
	if i, ok := m.index(uid); ok {
		return m.pods[i]
	}
	return nil
}

func (m *Machine) index(uid state.UID) (int, bool) {
	return slices.BinarySearchFunc(m.pods, uid, func(p *pod, u state.UID) int { return p.uid.Compare(u) })
}

func (m *Machine) insert(p *pod) {
	i, _ := m.index(p.uid)
	m.pods = slices.Insert(m.pods, i, p)
}

func (m *Machine) assigned(uid state.UID) bool {
	if m.assignment == nil {
		return false
	}
	_, ok := slices.BinarySearchFunc(m.assignment.Pods, uid, func(p *state.AssignedPod, u state.UID) int { return p.UID.Compare(u) })
	return ok
}

// older says whether a is from before b: it must not be applied after it.
func older(a, b *state.Assignment) bool {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Seq, b.Seq)) < 0
}

func (m *Machine) assign(now state.Instant, a *state.Assignment) {
	if a == nil || a.Node != m.cfg.Node || m.assignment != nil && older(a, m.assignment) {
		return
	}
	if m.assignment == nil || m.assignment.Epoch != a.Epoch || !m.fresh {
		m.full = true
	}
	m.assignment, m.objects, m.fresh = a, a.Objects, true
	m.follow(now)
}

// follow brings the pods in line with the applied assignment.
func (m *Machine) follow(now state.Instant) {
	for _, want := range m.assignment.Pods {
		p := m.find(want.UID)
		if p == nil {
			p = newPod(want, now)
			p.hold(m.fresh && p.class() != lease.Wait, state.ReasonContainerCreating)
			if want.Stop && m.seen {
				p.life = removing // nothing of it is here: make sure, and say so
			}
			m.insert(p)
		}
		m.adopt(p, want)
	}
	for _, p := range m.pods {
		if !m.assigned(p.uid) && p.life == living {
			p.stop(p.ownGrace())
		}
	}
	m.followVolumes()
}

func (m *Machine) adopt(p *pod, want *state.AssignedPod) {
	if p.want != want {
		p.want, p.key, p.dirty = want, want.Key, true
		p.fill()
	}
	if m.fresh && p.held {
		p.hold(p.class() != lease.Wait, p.heldFor) // a lease says when; see abide
		p.dirty = true
	}
	if want.Stop && p.life == living {
		p.stop(want.Grace)
	} else if want.Stop && p.life == stopping {
		p.grace = min(p.grace, want.Grace)
	}
	m.configure(p)
}

// configure looks up the ConfigMaps, Secrets and volumes of a pod.
func (m *Machine) configure(p *pod) {
	m.credit(p)
	if p.want == nil || p.want.Template == nil || len(p.want.Template.Configs)+len(p.want.Template.Claims) == 0 {
		return
	}
	volumes, missing := m.volumesOf(p)
	var sum []byte
	for _, v := range volumes {
		sum = append(sum, v.UID[:]...)
	}
	var objects []*state.Object
	for _, c := range p.want.Template.Configs {
		ref := state.Ref{Kind: c.Kind, Namespace: p.key.Namespace, Name: c.Name}
		o := m.object(ref)
		switch {
		case o != nil:
			d := o.Digest()
			sum = append(sum, d[:]...)
			objects = append(objects, o)
		case !c.Optional && missing == "":
			missing = ref.String()
		}
		sum = append(sum, 0)
	}
	digest := state.DigestOf(sum)
	if missing == p.missing && digest == p.configs {
		return
	}
	p.missing, p.configs, p.objects, p.volumes, p.dirty = missing, digest, objects, volumes, true
	if p.prepare.id == 0 {
		p.prepare.until = 0
	}
	for i := range p.containers {
		if f := &p.containers[i].runFail; f.class == ConfigMissing {
			f.until = 0
		}
	}
}

func (m *Machine) observe(now state.Instant, o *Observed) {
	if o.Whole {
		m.vanished(now, o)
	}
	for i := range o.Sandboxes {
		s := &o.Sandboxes[i]
		p := m.known(now, s.UID, s.Key)
		if p.life == gone {
			continue
		}
		if p.ip != s.IP || !p.sandboxSeen {
			p.ip, p.dirty = s.IP, true
		}
		if p.sandbox.id == 0 && p.life == living {
			p.sandbox.succeeded()
		}
		p.sandboxSeen = true
	}
	for i := range o.Containers {
		m.sawContainer(now, &o.Containers[i])
	}
	if o.Whole && !m.seen {
		m.seen = true
		for _, p := range m.pods {
			p.dirty = true
			p.resume(now)
		}
	}
}

// known is the pod of that UID; one that nobody assigned is made to be removed.
func (m *Machine) known(now state.Instant, uid state.UID, key state.PodKey) *pod {
	p := m.find(uid)
	if p == nil {
		p = &pod{uid: uid, key: key, life: living, since: now, dirty: true}
		if m.assignment != nil {
			p.life = removing
		}
		m.insert(p)
	}
	return p
}

func (m *Machine) sawContainer(now state.Instant, s *Container) {
	p := m.known(now, s.UID, state.PodKey{})
	c := p.container(s.Name)
	if c == nil || p.life == gone || s.Attempt < c.attempt {
		return
	}
	if s.Attempt == c.attempt && c.stage == ended {
		if !s.Running && c.exit != s.ExitCode && c.endedAt == 0 {
			// Stop returned before the end was seen: now its code is known.
			c.exit, c.lastExit, c.endedAt, p.dirty = s.ExitCode, s.ExitCode, s.Finished, true
		}
		return
	}
	was := c.stage
	c.begin(s.Attempt, s.Started)
	if was != running && was != ending || !s.Running {
		p.dirty = true
	}
	if !s.Running {
		why, text := exitReason(s.ExitCode, s.OOMKilled), s.Error
		if c.wantStop && c.why == state.ReasonUnhealthy {
			why, text = state.ReasonUnhealthy, c.text
		}
		c.end(now, s.ExitCode, s.Finished, why, text)
	}
}

// vanished ends what was there and isn't any more.
func (m *Machine) vanished(now state.Instant, o *Observed) {
	type name struct {
		uid  state.UID
		name string
	}
	boxes := make(map[state.UID]bool, len(o.Sandboxes))
	for i := range o.Sandboxes {
		boxes[o.Sandboxes[i].UID] = true
	}
	there := make(map[name]int32, len(o.Containers))
	for i := range o.Containers {
		c := &o.Containers[i]
		there[name{c.UID, c.Name}] = c.Attempt
	}
	for _, p := range m.pods {
		if p.sandboxSeen && !boxes[p.uid] {
			p.sandboxSeen, p.dirty = false, true
			if p.life != removing { // else it is no news: the pod goes with it
				p.ip = ""
			}
			if p.sandbox.id == 0 {
				p.sandbox = task{}
			}
		}
		for i := range p.containers {
			c := &p.containers[i]
			attempt, ok := there[name{p.uid, c.spec.Name}]
			if (c.stage == running || c.stage == ending) && !c.unseen && (!ok || attempt < c.attempt) {
				p.dirty = true
				c.end(now, 137, now.Wall, state.ReasonError, "it is no longer there: somebody removed it")
			}
		}
	}
}

// Report is what changed since the last one, or nil. It counts as sent: a
// driver that may have lost it says Connected.
func (m *Machine) Report() *state.Report {
	if !m.seen {
		return nil
	}
	r := &state.Report{Node: m.cfg.Node, BootID: m.cfg.BootID, Incarnation: m.cfg.Incarnation, Full: m.full, Gone: m.gone}
	if m.assignment != nil {
		r.Epoch, r.Applied = m.assignment.Epoch, m.assignment.Generation
	}
	for _, p := range m.pods {
		if (p.change || m.full) && p.life != gone {
			r.Pods = append(r.Pods, p.status)
		} else if m.full && !slices.Contains(r.Gone, p.uid) && p.life == gone {
			r.Gone = append(r.Gone, p.uid)
		}
		p.change = false
	}
	r.Dropped = m.dropped
	if m.full {
		r.Dropped = m.allDropped()
	}
	m.gone, m.dropped = nil, nil
	if !r.Full && len(r.Pods) == 0 && len(r.Gone) == 0 && len(r.Dropped) == 0 {
		return nil
	}
	m.full = false
	m.number++
	r.Number = m.number
	return r
}

// Knows says whether the machine has a pod of that UID: something of it may be
// on the node.
func (m *Machine) Knows(uid state.UID) bool { return m.find(uid) != nil }
