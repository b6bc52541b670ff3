package reconciler

import (
	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Claims. Where a claim's data is, is decided with the pod that first uses it.
// To delete data is no level-triggered effect: that it should go is recorded,
// the node is told once no pod uses it, and what the node then finds is recorded
// too. Nothing but these records makes a node delete.

// appOfClaim is the application that a claim belongs to.
func (m *Machine) appOfClaim(w *state.Workload, claim state.Ref) state.AppName {
	if o := m.fold.Objects[claim]; o != nil {
		return o.App
	}
	return w.App
}

// ownerOf is the application that a claim belongs to now: its object or its
// StatefulSet may have moved since.
func (m *Machine) ownerOf(c *state.Claim) state.AppName {
	if o := m.fold.Objects[c.Ref]; o != nil {
		return o.App
	}
	if w := m.fold.Workloads[c.Workload]; w != nil {
		return w.App
	}
	return c.App
}

// dropClaim records that a claim's data is to go.
func (m *Machine) dropClaim(c *state.Claim, why state.ClaimsFate) {
	if c.Dropped != 0 {
		return
	}
	m.emit(m.ownerOf(c), &state.ClaimDropped{Claim: c.Ref, Volume: c.Volume, Why: why})
	m.unseen()
}

// unseen ends dropped volumes of nodes that are removed: there is nobody to ask.
func (m *Machine) unseen() {
	for _, c := range m.fold.SortedClaims() {
		if c.Dropped != 0 && m.fold.Nodes[c.Node] == nil {
			m.emit(m.ownerOf(c), &state.VolumeGone{Volume: c.Volume, Unseen: true})
		}
	}
}

// volumesGone takes what a report says of dropped volumes. Nobody but the node
// that had the data may say that it is gone.
func (m *Machine) volumesGone(r *state.Report) {
	for _, uid := range r.Dropped {
		c := m.fold.ClaimOfVolume(uid)
		if c == nil || c.Node != r.Node || c.Dropped == 0 || m.fold.InUse(c) {
			continue
		}
		m.cause = c.Changed
		m.emit(m.ownerOf(c), &state.VolumeGone{Volume: uid})
		m.cause = 0
	}
}

// touchClaim marks what a claim's end may change: its node is to delete, and
// pods wait for it.
func (m *Machine) touchClaim(c *state.Claim) {
	if c == nil {
		return
	}
	if m.fold.Nodes[c.Node] != nil {
		m.touched[c.Node] = true
	}
	m.touchWorkload(c.Workload)
	m.helped()
}

// mayDrop says whether a person may have a claim's data deleted: what the text
// wants stays, unless its node can't give it back.
func (m *Machine) mayDrop(c *state.Claim) state.ReplyCode {
	switch o := m.fold.Objects[claimRef(c)]; {
	case c == nil:
		return state.ReplyNotFound
	case c.Dropped != 0:
		return state.ReplyRefused
	case o != nil && !o.Kept:
		if n := m.fold.Nodes[c.Node]; n != nil && n.Ready {
			return state.ReplyRefused
		}
	}
	return state.ReplyDone
}

func claimRef(c *state.Claim) state.Ref {
	if c == nil {
		return state.Ref{}
	}
	return c.Ref
}

// resize records what claims of the text ask for now.
func (m *Machine) resize(changes []state.Change) {
	for i := range changes {
		c := m.fold.Claims[changes[i].Ref]
		o := m.fold.Objects[changes[i].Ref]
		if c == nil || o == nil || changes[i].Verb != state.Update && changes[i].Verb != state.Adopt && changes[i].Verb != state.Create {
			continue
		}
		if bytes := plan.Asked(o.Object); bytes != c.Capacity {
			m.emit(o.App, &state.ClaimResized{Claim: c.Ref, Capacity: bytes})
		}
	}
}
