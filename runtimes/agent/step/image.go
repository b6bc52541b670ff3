package step

import (
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
)

// ImageDigest is the manifest that an image name of a pod means on a node: the
// one that the scheduler placed it for. False: the name was not resolved, or has
// nothing for this machine.
func ImageDigest(p *state.AssignedPod, name string, facts *state.NodeFacts) (state.Digest, bool) {
	im, ok := p.Template.Image(name)
	if !ok {
		return state.Digest{}, false
	}
	found, reason := platform.Match(&im, facts, p.Isolation, platform.HostProcess(&p.Template.Spec.Spec))
	return found.Digest, reason == state.NodeFits
}

// pull asks for an image, unless it is on its way for another pod: ten pods of
// one image would take every place that pulls have, and of a runtime that
// doesn't share, unpack it ten times (containerd#11451). The end of that pull is
// this one's too; where it failed, this pod asks itself.
func (m *Machine) pull(now state.Instant, p *pod, im *image) {
	digest, ok := m.cfg.Image(p.want, im.name, m.cfg.Facts)
	if ok && !im.task.done && im.task.id == 0 {
		for _, d := range m.pulls {
			if d == digest {
				return
			}
		}
	}
	before := im.task.id
	m.try(now, p, &im.task, Action{Do: Pull, Image: im.name})
	if ok && im.task.id != before {
		if m.pulls == nil {
			m.pulls = map[uint64]state.Digest{}
		}
		m.pulls[im.task.id] = digest
	}
}

// pulled ends a pull for all pods that wait for the same image, whatever became
// of the pod that asked.
func (m *Machine) pulled(d *Done) {
	digest, ok := m.pulls[d.ID]
	if !ok {
		return
	}
	delete(m.pulls, d.ID)
	for _, p := range m.pods {
		for i := range p.images {
			im := &p.images[i]
			if im.task.done || im.task.id != 0 || p.want == nil {
				continue
			}
			if same, _ := m.cfg.Image(p.want, im.name, m.cfg.Facts); same != digest {
				continue
			}
			if p.dirty = true; d.Class == OK {
				im.task.succeeded()
			}
		}
	}
}
