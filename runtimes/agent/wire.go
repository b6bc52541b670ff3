package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// wireDelta is an assignment against the one before it on the same stream; a
// whole one is against nothing. Templates and objects travel once per stream,
// by digest, and are named again when they are gone.
type wireDelta struct {
	Node       state.NodeName `pb:"1"`
	Epoch      uint64         `pb:"2"`
	Generation uint64         `pb:"3"`
	Seq        state.Seq      `pb:"4"`
	Whole      bool           `pb:"5"`
	Pods       []wirePod      `pb:"6"` // new or changed
	Gone       []state.UID    `pb:"7"`
	Templates  [][]byte       `pb:"8"` // not sent before
	Objects    []wireObject   `pb:"9"` // new or changed
	Dropped    []state.Ref    `pb:"10"`
	Base       state.Seq      `pb:"11"` // of the assignment that this one is against
	// All volumes of the node, unless they are as before.
	Volumes     []state.AssignedVolume `pb:"70"`
	SameVolumes bool                   `pb:"71"`
}

type wirePod struct {
	UID       state.UID       `pb:"1"`
	Key       state.PodKey    `pb:"2"`
	Workload  state.Ref       `pb:"3"`
	Ordinal   int32           `pb:"4"`
	Service   string          `pb:"5"`
	Template  state.Digest    `pb:"6"`
	Isolation state.Isolation `pb:"7"`
	Placement state.Seq       `pb:"8"`
	Stop      bool            `pb:"9"`
	Grace     time.Duration   `pb:"10"`
	Loss      lease.Class     `pb:"11"`
	Given     string          `pb:"12"`
}

type wireObject struct {
	Ref      state.Ref     `pb:"1"`
	Variants []wireVariant `pb:"2"`
}

type wireVariant struct {
	OS     state.OS     `pb:"1"`
	Digest state.Digest `pb:"2"`
	Body   []byte       `pb:"3"` // JSON of the Kubernetes type
}

// An encoder makes deltas for one stream.
type encoder struct {
	cache     *templateCache
	last      *state.Assignment
	templates map[state.Digest]bool
}

func (e *encoder) encode(a *state.Assignment) (*wireDelta, error) {
	d := &wireDelta{Node: a.Node, Epoch: a.Epoch, Generation: a.Generation, Seq: a.Seq, Whole: e.last == nil}
	var pods []*state.AssignedPod
	var objects []*state.Object
	if e.last != nil {
		pods, objects, d.Base = e.last.Pods, e.last.Objects, e.last.Seq
	}
	had := make(map[state.UID]*state.AssignedPod, len(pods))
	for _, p := range pods {
		had[p.UID] = p
	}
	for _, p := range a.Pods {
		old := had[p.UID]
		delete(had, p.UID)
		if old != nil && (old == p || *old == *p) {
			continue
		}
		d.Pods = append(d.Pods, wirePod{
			UID: p.UID, Key: p.Key, Workload: p.Workload, Ordinal: p.Ordinal, Service: p.Service, Template: p.Template.Digest,
			Isolation: p.Isolation, Placement: p.Placement, Stop: p.Stop, Grace: p.Grace, Loss: p.Loss, Given: p.Given,
		})
		if !e.templates[p.Template.Digest] {
			if e.templates == nil {
				e.templates = map[state.Digest]bool{}
			}
			e.templates[p.Template.Digest] = true
			d.Templates = append(d.Templates, e.cache.bytes(p.Template))
		}
	}
	for uid := range had {
		d.Gone = append(d.Gone, uid)
	}
	slices.SortFunc(d.Gone, state.UID.Compare)
	if err := d.addObjects(objects, a.Objects); err != nil {
		return nil, err
	}
	d.Volumes = a.Volumes
	if e.last != nil && slices.Equal(e.last.Volumes, a.Volumes) {
		d.Volumes, d.SameVolumes = nil, true
	}
	e.last = a
	// What no pod uses any more is forgotten at both ends.
	used := templatesOf(a)
	maps.DeleteFunc(e.templates, func(d state.Digest, _ bool) bool { return !used[d] })
	return d, nil
}

func templatesOf(a *state.Assignment) map[state.Digest]bool {
	used := map[state.Digest]bool{}
	for _, p := range a.Pods {
		used[p.Template.Digest] = true
	}
	return used
}

func (d *wireDelta) addObjects(before, after []*state.Object) error {
	had := make(map[state.Ref]*state.Object, len(before))
	for _, o := range before {
		had[o.Ref] = o
	}
	for _, o := range after {
		old := had[o.Ref]
		delete(had, o.Ref)
		if old == o || old != nil && old.Digest() == o.Digest() {
			continue
		}
		w := wireObject{Ref: o.Ref}
		for _, v := range o.Variants {
			body, err := json.Marshal(v.Body)
			if err != nil {
				return fmt.Errorf("encode %s: %w", o.Ref, err)
			}
			w.Variants = append(w.Variants, wireVariant{OS: v.OS, Digest: v.Digest, Body: body})
		}
		d.Objects = append(d.Objects, w)
	}
	for ref := range had {
		d.Dropped = append(d.Dropped, ref)
	}
	slices.SortFunc(d.Dropped, state.Ref.Compare)
	return nil
}

// A decoder makes whole assignments of one stream's deltas.
type decoder struct {
	last      *state.Assignment
	templates map[state.Digest]*state.Template
}

func (x *decoder) decode(d *wireDelta) (*state.Assignment, error) {
	a := &state.Assignment{Node: d.Node, Epoch: d.Epoch, Generation: d.Generation, Seq: d.Seq}
	switch {
	case d.Whole:
		x.last = nil
	case x.last == nil || x.last.Seq != d.Base:
		return nil, fmt.Errorf("a change of assignment %d, which this stream did not carry: %w", d.Base, runtimes.ErrUnavailable)
	default:
		a.Pods, a.Objects = slices.Clone(x.last.Pods), slices.Clone(x.last.Objects)
	}
	if a.Volumes = d.Volumes; d.SameVolumes && x.last != nil {
		a.Volumes = x.last.Volumes
	}
	if x.templates == nil {
		x.templates = map[state.Digest]*state.Template{}
	}
	for _, raw := range d.Templates {
		t, err := state.ParseTemplate(raw)
		if err != nil {
			return nil, err
		}
		x.templates[t.Digest] = t
	}
	for _, uid := range d.Gone {
		if i, ok := findPod(a.Pods, uid); ok {
			a.Pods = slices.Delete(a.Pods, i, i+1)
		}
	}
	for i := range d.Pods {
		if err := x.pod(a, &d.Pods[i]); err != nil {
			return nil, err
		}
	}
	for _, ref := range d.Dropped {
		if i, ok := findObject(a.Objects, ref); ok {
			a.Objects = slices.Delete(a.Objects, i, i+1)
		}
	}
	for i := range d.Objects {
		o, err := d.Objects[i].object()
		if err != nil {
			return nil, err
		}
		if j, ok := findObject(a.Objects, o.Ref); ok {
			a.Objects[j] = o
		} else {
			a.Objects = slices.Insert(a.Objects, j, o)
		}
	}
	x.last = a
	used := templatesOf(a)
	maps.DeleteFunc(x.templates, func(d state.Digest, _ *state.Template) bool { return !used[d] })
	return a, nil
}

func (x *decoder) pod(a *state.Assignment, w *wirePod) error {
	t := x.templates[w.Template]
	if t == nil {
		return fmt.Errorf("pod %s has template %s, which this stream did not carry: %w", w.Key, w.Template.Short(), runtimes.ErrUnavailable)
	}
	p := &state.AssignedPod{
		UID: w.UID, Key: w.Key, Workload: w.Workload, Ordinal: w.Ordinal, Service: w.Service, Template: t, Isolation: w.Isolation,
		Placement: w.Placement, Stop: w.Stop, Grace: w.Grace, Loss: w.Loss, Given: w.Given,
	}
	if i, ok := findPod(a.Pods, p.UID); ok {
		a.Pods[i] = p
	} else {
		a.Pods = slices.Insert(a.Pods, i, p)
	}
	return nil
}

func findPod(pods []*state.AssignedPod, uid state.UID) (int, bool) {
	return slices.BinarySearchFunc(pods, uid, func(p *state.AssignedPod, u state.UID) int { return p.UID.Compare(u) })
}

func findObject(objects []*state.Object, ref state.Ref) (int, bool) {
	return slices.BinarySearchFunc(objects, ref, func(o *state.Object, r state.Ref) int { return o.Ref.Compare(r) })
}

func (w *wireObject) object() (*state.Object, error) {
	o := &state.Object{Ref: w.Ref}
	if len(w.Variants) == 0 {
		return nil, fmt.Errorf("%s has no content: %w", w.Ref, runtimes.ErrRejected)
	}
	for _, v := range w.Variants {
		var body state.Body
		switch w.Ref.Kind {
		case "ConfigMap":
			body = &corev1.ConfigMap{}
		case "Secret":
			body = &corev1.Secret{}
		default:
			return nil, fmt.Errorf("%s is neither ConfigMap nor Secret: %w", w.Ref, runtimes.ErrRejected)
		}
		if err := json.Unmarshal(v.Body, body); err != nil {
			return nil, fmt.Errorf("%s is malformed: %w", w.Ref, runtimes.ErrRejected) // without its text: it may quote a secret
		}
		o.Variants = append(o.Variants, state.Variant{OS: v.OS, Digest: v.Digest, Body: body})
	}
	return o, nil
}

// encodeWhole is the form in which an agent keeps its assignment.
func encodeWhole(a *state.Assignment) ([]byte, error) {
	e := encoder{cache: &templateCache{}}
	d, err := e.encode(a)
	if err != nil {
		return nil, err
	}
	return recordpb.Marshal(d)
}

func decodeWhole(raw []byte) (*state.Assignment, error) {
	var d wireDelta
	if err := recordpb.UnmarshalLenient(raw, &d); err != nil {
		return nil, err
	}
	var x decoder
	return x.decode(&d)
}
