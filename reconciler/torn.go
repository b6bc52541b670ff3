package reconciler

import (
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/plan"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A crash in the middle of a write leaves the first records of a decision. Most
// decisions are made anew from what there is. mend makes the others whole.
func (m *Machine) mend() {
	m.cutDrains()
	m.cutRemovals()
	m.cutPrunes()
	m.cutSizes()
	m.unseen()
	m.cutNoes()
	m.cutJobs()
}

// cutDrains cordons the nodes that are drained and not cordoned: the first record
// of a drain stayed alone, and pods would go back to where they leave.
func (m *Machine) cutDrains() {
	for _, name := range sorted(m.fold.Nodes) {
		if n := m.fold.Nodes[name]; n.Duty.Draining && !n.Cordoned {
			m.emit("", &state.NodeCordoned{Node: name, On: true})
		}
	}
}

// cutRemovals ends what applications wait for a person for that were removed: they
// are told no more commits, which would end it.
func (m *Machine) cutRemovals() {
	for _, id := range sorted(m.fold.Holds) {
		h := m.fold.Holds[id]
		if h.Object.Kind != "Application" {
			continue
		}
		if a := m.fold.Apps[h.App]; a == nil || a.Removed {
			m.emit(h.App, &state.Released{ID: id, Object: h.Object})
		}
	}
}

// cutPrunes asks about what left the text and waits for a person, where the question
// was cut off. Where the answer was, it is asked again: the person was told nothing.
func (m *Machine) cutPrunes() {
	for _, a := range m.fold.SortedApps() {
		if a.Removed {
			continue
		}
		if h := m.fold.Holds[plan.HoldID(state.Held{Object: appHold(a), Code: state.HoldPrune})]; h != nil && h.Approved {
			m.releaseApp(a, state.HoldPrune)
		}
		m.askToPrune(a)
	}
}

// cutSizes records what claims of the text ask for.
func (m *Machine) cutSizes() {
	for _, c := range m.fold.SortedClaims() {
		m.resize([]state.Change{{Ref: c.Ref, Verb: state.Update}})
	}
}

// cutNoes ends the promotions that a person said no to: one no is enough.
func (m *Machine) cutNoes() {
	for _, p := range m.fold.SortedPromotions() {
		if p.Started == nil && slices.ContainsFunc(p.Votes, func(v state.Vote) bool { return !v.Approve }) {
			m.emitFor(p, &state.PromotionEnded{ID: p.ID, Outcome: state.PromotionRejected})
		}
	}
}

// cutJobs stops the Jobs of gates whose word no longer counts.
func (m *Machine) cutJobs() {
	for _, l := range m.fold.SortedLines() {
		for _, u := range l.Stages {
			for i := range u.Jobs {
				if j := &u.Jobs[i]; j.Outcome == state.GateVoid {
					m.dropVoid(j.Job)
				}
			}
		}
	}
}
