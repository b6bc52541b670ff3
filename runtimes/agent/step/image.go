package step

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

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

// underway is a pull that has not ended.
type underway struct {
	image state.Digest
	keys  state.Digest // of the pull Secrets that it has
}

// pullKeys are a pod's pull Secrets.
type pullKeys struct {
	digest  state.Digest
	objects []*state.Object // those that are there, in order
	missing []string
}

// credit looks up the pull Secrets of a pod. What failed without them, or with
// others, is tried again at once.
func (m *Machine) credit(p *pod) {
	if p.want == nil || p.want.Template == nil {
		return
	}
	var keys pullKeys
	var sum []byte
	for _, name := range p.want.PullSecrets() {
		o := m.object(state.Ref{Kind: "Secret", Namespace: p.key.Namespace, Name: name})
		if o == nil {
			keys.missing = append(keys.missing, name)
			continue
		}
		d := o.Digest()
		sum, keys.objects = append(sum, d[:]...), append(keys.objects, o)
	}
	if sum != nil {
		keys.digest = state.DigestOf(sum)
	}
	changed := keys.digest != p.keys.digest
	if p.keys = keys; !changed {
		return
	}
	for i := range p.images {
		if t := &p.images[i].task; t.id == 0 && !t.done && t.class != Unsupported {
			t.until, p.dirty = 0, true
		}
	}
}

// object is one of the assignment; nil: it has none of that name.
func (m *Machine) object(ref state.Ref) *state.Object {
	i, ok := slices.BinarySearchFunc(m.objects, ref, func(o *state.Object, r state.Ref) int { return o.Ref.Compare(r) })
	if !ok {
		return nil
	}
	return m.objects[i]
}

// pull asks for an image, unless it is on its way for another pod: ten pods of
// one image would take every place that pulls have, and of a runtime that
// doesn't share, unpack it ten times (containerd#11451). The end of that pull is
// this one's too; where it failed, this pod asks itself.
func (m *Machine) pull(now state.Instant, p *pod, im *image) {
	digest, ok := m.cfg.Image(p.want, im.name, m.cfg.Facts)
	if ok && !im.task.done && im.task.id == 0 {
		for _, u := range m.pulls {
			if u.image == digest {
				return
			}
		}
	}
	before := im.task.id
	m.try(now, p, &im.task, Action{Do: Pull, Image: im.name, Objects: p.keys.objects, Missing: p.keys.missing})
	if ok && im.task.id != before {
		if m.pulls == nil {
			m.pulls = map[uint64]underway{}
		}
		m.pulls[im.task.id] = underway{digest, p.keys.digest}
	}
}

// pulled ends a pull for all pods that wait for the same image, whatever became
// of the pod that asked. One whose policy is Always, and that has other
// credentials, still has to show that they suffice.
func (m *Machine) pulled(d *Done) {
	u, ok := m.pulls[d.ID]
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
			if same, _ := m.cfg.Image(p.want, im.name, m.cfg.Facts); same != u.image {
				continue
			}
			if p.dirty = true; d.Class == OK && (p.keys.digest == u.keys || !p.always(im.name)) {
				im.task.succeeded()
			}
		}
	}
}

// always says whether a container with that image wants its registry asked.
func (p *pod) always(name string) bool {
	for i := range p.containers {
		if c := p.containers[i].spec; c.Image == name && c.ImagePullPolicy == corev1.PullAlways {
			return true
		}
	}
	return false
}
