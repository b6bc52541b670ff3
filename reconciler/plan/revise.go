package plan

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// restartAnnotation makes a person's restart another template.
const restartAnnotation = "tandem.dev/restarted-by-record"

// memo is what was compiled last for a variant, and from what.
type memo struct {
	names    []string
	restart  state.Seq
	known    []*state.Image
	images   []state.Image
	os       state.OS
	held     *state.Held
	template *state.Template
	raw      []byte
	like     *state.Template // needs no replacing by template
}

// wanted compiles the template that a variant should have. False: an image's
// meaning isn't known yet, a look-up is under way.
func (p *Planner) wanted(s *state.State, w *state.Workload, v *state.WorkloadVariant) (*memo, bool) {
	if p.memos == nil {
		p.memos = map[*state.WorkloadVariant]*memo{}
	}
	m := p.memos[v]
	if m == nil {
		m = &memo{names: state.ImageNames(&v.Spec.Spec)}
		p.memos[v] = m
	}
	app := s.Apps[w.App]
	if app == nil {
		return nil, false
	}
	same := len(m.known) == len(m.names) && m.restart == w.Restart
	for i, name := range m.names {
		im := s.Images[state.ImageKey{App: w.App, Manifest: app.Manifest, Name: name}]
		if im == nil {
			return nil, false
		}
		same = same && m.known[i] == im
	}
	if same {
		return m, true
	}
	m.known, m.images, m.restart = nil, nil, w.Restart
	for _, name := range m.names {
		im := s.Images[state.ImageKey{App: w.App, Manifest: app.Manifest, Name: name}]
		m.known = append(m.known, im)
		c := *im
		c.Failure = 0 // why a look-up failed doesn't make another template
		m.images = append(m.images, c)
	}
	m.template, m.raw, m.like = nil, nil, nil
	if m.os, m.held = variantOS(w, v, m.images); m.held == nil {
		m.template, m.raw = state.NewTemplate(m.os, specOf(w, v), m.images)
	}
	return m, true
}

// stored is the template's stored form.
func (m *memo) stored() []byte {
	if m.raw == nil {
		_, m.raw = state.NewTemplate(m.template.OS, &m.template.Spec, m.template.Images)
	}
	return m.raw
}

// revise finds the variants that need another template. A workload that runs
// is held whole, before its first old pod is touched, while any variant's new
// template can't run anywhere; a person can let the others go on.
func (p *Planner) revise(d *Decision, s *state.State, w *state.Workload) {
	if w.Parent != nil {
		return // its CronJob gave it the templates that it has
	}
	var ready []Revise
	var blocked []state.Held
	for _, v := range w.Variants {
		m, ok := p.wanted(s, w, v)
		if !ok {
			d.Waiting = true
			if h := (state.Held{Object: w.Ref, Code: state.HoldPaused}); w.Holds[HoldID(h)] != nil {
				d.Held = append(d.Held, h) // whatever the image is
			}
			return
		}
		if m.held != nil {
			blocked = append(blocked, *m.held)
			continue
		}
		t := m.template
		if v.Update != nil && v.Update.Digest == t.Digest {
			m.template, m.raw = v.Update, nil // one of both is enough, for each workload that there is
			continue
		}
		if v.Update != nil && (m.like == v.Update || keepsAssumed(v, t) || keepsImages(w, v, t) || p.keepsDefaults(v, m)) {
			m.like = v.Update
			continue
		}
		if name := schedule.Unclassed(s, &v.Spec.Spec); name != "" {
			blocked = append(blocked, state.Held{Object: w.Ref, Code: state.HoldPriority, OS: t.OS, Params: []string{name}})
			continue
		}
		if gates := t.Spec.Spec.SchedulingGates; len(gates) > 0 {
			h := state.Held{Object: w.Ref, Code: state.HoldGated, OS: t.OS, Count: v.Replicas}
			for i := range gates {
				h.Params = append(h.Params, gates[i].Name)
			}
			blocked = append(blocked, h)
			continue
		}
		if v.Replicas > 0 || w.Cron != nil { // a Job keeps the template with which it began
			req := schedule.Request{Workload: w, Variant: v, Template: t, Count: 1}
			if schedule.Possible(s, req) {
				ready = append(ready, Revise{v, t, m.stored()})
				continue
			}
			answer := p.roster.Place(s, req)
			if answer.Static {
				h := state.Held{Object: w.Ref, Code: state.HoldNoNode, OS: t.OS, Count: v.Replicas}
				if allGroups(answer.Groups, state.NodeImageUnknown) {
					h.Code, h.Params = state.HoldImageUnknown, assumed(m.images)
				}
				blocked = append(blocked, h)
				d.Refused = append(d.Refused, Refusal{Revise{v, t, m.stored()}, answer.Groups})
				continue
			}
		}
		ready = append(ready, Revise{v, t, m.stored()})
	}
	for _, h := range blocked {
		d.Waiting = true
		d.Held = append(d.Held, h)
	}
	if len(blocked) > 0 && runs(w) && !slices.ContainsFunc(blocked, func(h state.Held) bool {
		old := w.Holds[HoldID(h)]
		return old != nil && old.Approved
	}) {
		return
	}
	if len(ready) > 0 && rollout.Paused(w) {
		d.Held = append(d.Held, state.Held{Object: w.Ref, Code: state.HoldPaused})
		return
	}
	d.Revise = ready
}

// runs says whether the workload has pods, or had a template, that the new
// revision would replace.
func runs(w *state.Workload) bool {
	return len(w.Pods) > 0 || slices.ContainsFunc(w.Variants, func(v *state.WorkloadVariant) bool { return v.Update != nil })
}

// keepsAssumed says whether the only difference is that an image could be
// looked up before and can't now: no reason to replace a pod.
func keepsAssumed(v *state.WorkloadVariant, t *state.Template) bool {
	if v.Update == nil || v.Update.OS != t.OS || len(assumed(t.Images)) == 0 {
		return false
	}
	known := make([]state.Image, 0, len(t.Images))
	for _, im := range t.Images {
		if im.Assumed {
			old, ok := v.Update.Image(im.Name)
			if !ok {
				return false
			}
			im = old
		}
		known = append(known, im)
	}
	same, _ := state.NewTemplate(t.OS, &t.Spec, known)
	return same.Digest == v.Update.Digest
}

// keepsDefaults says whether the pods' template means the same as the wanted one,
// and differs only in what another version of Tandem filled in (kubernetes#135017:
// every StatefulSet rolled out when the defaults' form changed).
func (p *Planner) keepsDefaults(v *state.WorkloadVariant, m *memo) bool {
	t := m.template
	if p.Default == nil || v.Update == nil || v.Update.OS != t.OS {
		return false
	}
	if !slices.EqualFunc(v.Update.Images, t.Images, func(a, b state.Image) bool { return equality.Semantic.DeepEqual(a, b) }) {
		return false
	}
	was, now := v.Update.Spec.DeepCopy(), t.Spec.DeepCopy()
	p.Default(was)
	p.Default(now)
	return equality.Semantic.DeepEqual(was, now)
}

// keepsImages says whether the only difference is what an image name means now:
// no reason to run again what runs once.
func keepsImages(w *state.Workload, v *state.WorkloadVariant, t *state.Template) bool {
	if v.Update == nil || w.Job == nil && w.Ref.Kind != "Pod" {
		return false
	}
	same, _ := state.NewTemplate(v.Update.OS, &t.Spec, v.Update.Images)
	return same.Digest == v.Update.Digest
}

// specOf is the variant's pod template, marked with the restart that a person
// asked for last.
func specOf(w *state.Workload, v *state.WorkloadVariant) *corev1.PodTemplateSpec {
	daemon, fields := w.Ref.Kind == "DaemonSet", jobFields(w)
	if w.Restart == 0 && !daemon && fields == "" {
		return v.Spec
	}
	spec := v.Spec.DeepCopy()
	if fields != "" {
		annotate(spec, jobAnnotation, fields)
	}
	if daemon {
		spec.Spec.Tolerations = daemonTolerations(spec.Spec.Tolerations)
	}
	if w.Restart == 0 {
		return spec
	}
	annotate(spec, restartAnnotation, fmt.Sprint(w.Restart))
	return spec
}

func annotate(spec *corev1.PodTemplateSpec, name, value string) {
	if spec.Annotations == nil {
		spec.Annotations = map[string]string{}
	}
	spec.Annotations[name] = value
}

// variantOS is the OS of a variant's pods: what the text says, else what the
// image index has; an index with both runs on either. Where nothing is known it
// is linux.
func variantOS(w *state.Workload, v *state.WorkloadVariant, images []state.Image) (state.OS, *state.Held) {
	has := map[state.OS]bool{state.Linux: true, state.Windows: true}
	known := false
	for _, im := range images {
		if im.Assumed {
			continue
		}
		known = true
		for os := range has {
			if !slices.ContainsFunc(im.Platforms, func(p state.Platform) bool { return p.OS == os }) {
				has[os] = false
			}
		}
	}
	if v.OS != state.AnyOS {
		if known && !has[v.OS] {
			return v.OS, lacksOS(w, v, v.OS, images)
		}
		return v.OS, nil
	}
	switch {
	case !known || has[state.Linux] && !has[state.Windows]:
		return state.Linux, nil
	case has[state.Windows] && !has[state.Linux]:
		return state.Windows, nil
	case has[state.Linux]:
		return state.AnyOS, nil
	default:
		return state.AnyOS, lacksOS(w, v, state.AnyOS, images)
	}
}

func lacksOS(w *state.Workload, v *state.WorkloadVariant, os state.OS, images []state.Image) *state.Held {
	h := &state.Held{Object: w.Ref, Code: state.HoldImageOS, OS: os, Count: v.Replicas}
	for _, im := range images {
		if im.Assumed || slices.ContainsFunc(im.Platforms, func(p state.Platform) bool { return os == state.AnyOS || p.OS == os }) {
			continue
		}
		h.Params = append(h.Params, im.Name)
	}
	return h
}

// PodName is the name of a workload's next pod: derived, never random. Of a
// StatefulSet and a bare Pod it is always the same.
func PodName(w *state.Workload, t *state.Template, ordinal int32, serial uint64) string {
	if w.Ref.Kind == "Pod" {
		return w.Ref.Name
	}
	if w.Ref.Kind == "StatefulSet" {
		return fmt.Sprintf("%s-%d", w.Ref.Name, ordinal)
	}
	id := state.SafeHash(state.DigestOf(fmt.Appendf(nil, "%s/%d", w.Ref, serial)), 5)
	switch {
	case w.Ref.Kind == "Deployment":
		return fmt.Sprintf("%s-%s-%s", w.Ref.Name, t.Hash, id)
	case ordinal >= 0:
		return fmt.Sprintf("%s-%d-%s", w.Ref.Name, ordinal, id)
	default:
		return fmt.Sprintf("%s-%s", w.Ref.Name, id)
	}
}
