// Package plan compares what is wanted with what is there: what to do, what is
// held and why.
//
//	render ──desired──► [ plan: diff → rollout → schedule ] ──decisions──► machine ──► records
//
// In: the state, one workload and the time. Out: a Decision, which the machine
// turns into records. It is pure; it never remembers a sequence, order comes
// from planning again after each change was recorded.
package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Decision is all that is to be done for one workload now. Planning again
// after it was recorded gives an empty one.
type Decision struct {
	Revise   []Revise
	Refused  []Refusal // variants that another template is wanted for, which no node could take
	Stop     []rollout.Stop
	Decided  []Placement
	Held     []state.Held // all that hold now, sorted by ID; Decided is left to the machine
	Scaled   []rollout.Scaled
	Complete bool
	Partial  bool
	Gone     bool
	Stalled  bool
	Count    []rollout.Count // of a Job; it comes alone, as the next
	Job      *rollout.Move
	Drop     []Drop // of a CronJob, as the next
	Fire     *Fire
	Expired  bool          // of a CronJob's Job: it is to be dropped
	Forfeit  []Forfeit     // of a StatefulSet: data that its policy gives up
	Waiting  bool          // pods or a revision wait for room, a node or an image
	Wake     time.Duration // steady time at which the answer changes by itself; 0: never
}

// Revise gives a variant another template.
type Revise struct {
	Variant  *state.WorkloadVariant
	Template *state.Template
	Raw      []byte // its stored form
}

// A Refusal is a template that no node could take even if it were empty: the
// pods that run are not touched.
type Refusal struct {
	Revise
	Groups []state.ReasonGroup
}

// A Placement is what the scheduler answered for one batch.
type Placement struct {
	Start  rollout.Start
	Answer schedule.Answer
	Bind   []state.ClaimBound // claims that get their volumes at the first spot
}

// A Planner decides for workloads. It remembers compiled templates and what it
// worked out of the nodes, and nothing that could change a decision: a new one decides the same.
type Planner struct {
	// Next replaces rollout.Next where a test plants a defect; nil in earnest.
	Next func(*state.Workload, state.Instant) rollout.Step

	// Default fills in what a template leaves out, as this version reads it: two
	// that are equal then are one revision. Nil: none is filled in.
	Default func(*corev1.PodTemplateSpec)

	memos  map[*state.WorkloadVariant]*memo
	roster schedule.Roster
}

// Forget drops what is remembered of a workload (nil: nothing is) whose text is
// about to change, or that is about to go.
func (p *Planner) Forget(w *state.Workload) {
	if w == nil {
		return
	}
	for _, v := range w.Variants {
		delete(p.memos, v)
	}
}

func (p *Planner) next(w *state.Workload, now state.Instant) rollout.Step {
	if p.Next != nil {
		return p.Next(w, now)
	}
	return rollout.Next(w, now)
}

// Workload decides for one workload. Revisions come alone: what they lead to is
// planned once they are recorded.
func (p *Planner) Workload(s *state.State, w *state.Workload, now state.Instant) Decision {
	var d Decision
	moved := moveOf(&d, s, w)
	if !w.Deleting {
		p.revise(&d, s, w)
		if len(d.Revise) > 0 {
			d.seal()
			return d
		}
	}
	// What waits for an image or is held isn't what the text wants yet.
	behind := d.Waiting || len(d.Held) > 0
	if c, ok := w.CronJob(); ok {
		p.cron(&d, s, w, &c.Spec, now)
		d.seal()
		return d
	}
	if set, ok := w.Owned.Object.First().(*appsv1.DaemonSet); ok {
		p.daemon(&d, s, w, &set.Spec, now)
		d.seal()
		return d
	}
	step := p.next(w, now)
	moved.apply(&d, w, &step)
	d.Stop, d.Partial, d.Gone, d.Stalled, d.Wake = step.Stop, step.Partial, step.Gone, step.Stalled, step.Wake
	d.Complete = step.Complete && !behind
	d.Count, d.Job, d.Expired, d.Scaled = step.Count, step.Job, step.Expired, step.Scaled
	if len(d.Count) > 0 || d.Job != nil {
		d.seal()
		return d
	}
	d.Held = append(d.Held, step.Held...)
	var before earlier
	here := map[state.Ref]state.NodeName{}
	for _, start := range step.Start {
		p.place(&d, s, w, start, &before, here)
	}
	forfeit(&d, s, w)
	displace(&d, s, w, now)
	if len(d.Held) > 0 || len(w.Holds) > 0 {
		d.Waiting = true
	}
	d.seal()
	return d
}

func noRoom(w *state.Workload, start rollout.Start, answer schedule.Answer, lack int) state.Held {
	h := state.Held{Object: w.Ref, Code: state.HoldNoRoom, OS: start.Template.OS, Count: int32(lack)}
	if start.Ordinal >= 0 {
		h.Params = []string{fmt.Sprintf("%s-%d", w.Ref.Name, start.Ordinal)}
	}
	if start.Surge {
		h.Params = []string{state.SurgeFirst}
	}
	if answer.Static {
		h.Code = state.HoldNoNode
		if allGroups(answer.Groups, state.NodeImageUnknown) {
			h.Code = state.HoldImageUnknown
			h.Params = assumed(start.Template.Images)
		}
	}
	return h
}

// allGroups says whether, but for nodes of another OS, every node gives this reason.
func allGroups(groups []state.ReasonGroup, reason state.NodeReason) bool {
	found := false
	for _, g := range groups {
		switch g.Reason {
		case reason:
			found = true
		case state.NodeOtherOS:
		default:
			return false
		}
	}
	return found
}

func assumed(images []state.Image) []string {
	var names []string
	for _, im := range images {
		if im.Assumed {
			names = append(names, im.Name)
		}
	}
	return names
}

// seal names the holds and puts them in order.
func (d *Decision) seal() {
	if len(d.Held) == 0 {
		return
	}
	byID := map[string]state.Held{}
	for _, h := range d.Held {
		h.ID = HoldID(h)
		if old, ok := byID[h.ID]; ok {
			h.Count += old.Count
			h.Params = append(slices.Clone(old.Params), h.Params...)
			slices.Sort(h.Params)
			h.Params = slices.Compact(h.Params)
		}
		byID[h.ID] = h
	}
	d.Held = slices.SortedFunc(maps.Values(byID), func(a, b state.Held) int { return cmp.Compare(a.ID, b.ID) })
}

// HoldID names a hold: the same one while the same thing is waited for.
func HoldID(h state.Held) string {
	sum := state.DigestOf(fmt.Appendf(nil, "%s/%d/%s", h.Object, h.Code, h.OS))
	return fmt.Sprintf("h-%x", sum[:3])
}
