package step

import (
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A drop is a volume that the applied assignment gives up. One that no
// assignment speaks of stays as it is: data is never deleted for want of a word.
type drop struct {
	uid   state.UID
	claim state.Ref
	task  task
}

// followVolumes takes over which volumes are to be deleted.
func (m *Machine) followVolumes() {
	var out []*drop
	for _, v := range m.assignment.Volumes {
		if !v.Drop {
			continue
		}
		d := m.dropOf(v.UID)
		if d == nil {
			d = &drop{uid: v.UID, claim: v.Claim}
		}
		out = append(out, d)
	}
	m.drops = out
}

func (m *Machine) dropOf(uid state.UID) *drop {
	if i := slices.IndexFunc(m.drops, func(d *drop) bool { return d.uid == uid }); i >= 0 {
		return m.drops[i]
	}
	return nil
}

// dropVolumes deletes what no pod of this node has any more, and says when to
// look again.
func (m *Machine) dropVolumes(now state.Instant) time.Duration {
	wake := never
	for _, d := range m.drops {
		switch {
		case d.task.done || d.task.id != 0 || m.mayUse(d.claim):
		case d.task.until > now.Mono:
			wake = min(wake, d.task.until)
		default:
			d.task.id = m.do(Action{Do: DropVolume, UID: d.uid})
		}
	}
	return wake
}

// mayUse says whether something of a pod that has the claim may still be here.
// Of one that nobody assigned it isn't known.
func (m *Machine) mayUse(claim state.Ref) bool {
	return slices.ContainsFunc(m.pods, func(p *pod) bool {
		if p.life == gone {
			return false
		}
		if p.want == nil || p.want.Template == nil {
			return true
		}
		return p.key.Namespace == claim.Namespace && slices.ContainsFunc(p.want.Template.Claims, func(u state.ClaimUse) bool {
			return u.ClaimName(p.want.Ordinal) == claim.Name
		})
	})
}

func (m *Machine) droppedVolume(now state.Instant, e *Done) {
	d := m.dropOf(e.UID)
	if d == nil || d.task.id != e.ID {
		return
	}
	if e.Class != OK {
		d.task.failed(now, retryFirst, e)
		return
	}
	d.task.succeeded()
	m.dropped = append(m.dropped, d.uid)
}

// allDropped are the volumes of which nothing is left.
func (m *Machine) allDropped() []state.UID {
	var out []state.UID
	for _, d := range m.drops {
		if d.task.done {
			out = append(out, d.uid)
		}
	}
	return out
}

// volumesOf finds a pod's volumes in the assignment; missing is a claim that
// isn't there.
func (m *Machine) volumesOf(p *pod) (volumes []PodVolume, missing string) {
	for _, u := range p.want.Template.Claims {
		ref := u.Claim(p.key.Namespace, p.want.Ordinal)
		v, ok := m.assignment.Volume(ref)
		if !ok {
			return nil, ref.String()
		}
		volumes = append(volumes, PodVolume{Name: u.Volume, AssignedVolume: v})
	}
	return volumes, ""
}
