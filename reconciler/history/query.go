package history

import (
	"context"
	"iter"
	"maps"
	"reflect"
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Filter says which records are asked for; a zero field asks for all.
type Filter struct {
	Kinds  []state.Kind
	App    state.AppName
	Object state.Ref      // also Kind "Pod" and "Node"
	Node   state.NodeName // also what happens to pods that were placed there
	// After and Until are wall nanoseconds: records with After ≤ time < Until.
	After, Until int64
	From, To     state.Seq // inclusive; To 0: the head
}

// Select yields the records that a filter asks for, in order. Sealed segments
// are answered from their postings, the rest by reading. A pod's records after
// its placement name it by UID only: with an Object or Node, records of the pods
// that were placed for it or on it are found too, when From doesn't hide the
// placement.
func (s *Store) Select(ctx context.Context, f Filter) iter.Seq2[*state.Record, error] {
	view := s.view()
	return func(yield func(*state.Record, error) bool) {
		q := query{f: f, log: state.Digest{}, uids: map[state.UID]bool{}}
		if len(view.list) > 0 && (!f.Object.IsZero() || f.Node != "") {
			first, err := s.ReadAt(1)
			if err != nil {
				yield(nil, err)
				return
			}
			if started, ok := first.Fact.(*state.LogStarted); ok {
				q.log = started.ID
			}
		}
		for i := range view.list {
			seg := &view.list[i]
			if seg.end() < f.From || f.To != 0 && seg.first > f.To {
				continue
			}
			if seg.disk != nil && q.indexed() {
				if !s.selectSealed(ctx, view, seg, &q, yield) {
					return
				}
				continue
			}
			only := &segments{disk: view.disk, list: view.list[i : i+1]}
			for r, err := range s.read(ctx, only, max(f.From, seg.first)) {
				if err != nil {
					yield(nil, err)
					return
				}
				if q.wants(r) && !yield(r, nil) {
					return
				}
			}
		}
	}
}

// selectSealed answers from postings: first the records that name the object,
// then those of the pods that were found.
func (s *Store) selectSealed(ctx context.Context, view *segments, seg *segment, q *query, yield func(*state.Record, error) bool) bool {
	found := map[state.Seq]*state.Record{}
	look := func(want map[string]bool) error {
		seqs, err := seg.disk.lookUp(view.disk, want)
		if err != nil {
			return err
		}
		for _, seq := range seqs {
			if found[seq] != nil || seq < q.f.From || q.f.To != 0 && seq > q.f.To {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := s.ReadAt(seq)
			if err != nil {
				return err
			}
			found[seq] = r
			q.learn(r)
		}
		return nil
	}
	err := look(q.terms())
	if err == nil && len(q.uids) > 0 {
		pods := make(map[string]bool, len(q.uids))
		for u := range q.uids {
			pods[uidTerm(u)] = true
		}
		err = look(pods)
	}
	if err != nil {
		yield(nil, err)
		return false
	}
	for _, seq := range slices.Sorted(maps.Keys(found)) {
		if r := found[seq]; q.wants(r) && !yield(r, nil) {
			return false
		}
	}
	return true
}

type query struct {
	f    Filter
	log  state.Digest
	uids map[state.UID]bool // pods of the object or node
}

// indexed says whether postings narrow the query down.
func (q *query) indexed() bool {
	return !q.f.Object.IsZero() || q.f.Node != "" || q.f.App != "" || len(q.f.Kinds) > 0
}

// terms are those of the narrowest dimension; wants does the rest.
func (q *query) terms() map[string]bool {
	switch {
	case !q.f.Object.IsZero():
		return map[string]bool{objectTerm(q.f.Object): true}
	case q.f.Node != "":
		return map[string]bool{nodeTerm(q.f.Node): true}
	case len(q.f.Kinds) > 0:
		out := map[string]bool{}
		for _, k := range q.f.Kinds {
			out[kindTerm(k)] = true
		}
		return out
	default:
		return map[string]bool{appTerm(q.f.App): true}
	}
}

// learn remembers a pod that was placed for the object or on the node.
func (q *query) learn(r *state.Record) {
	p, ok := r.Fact.(*state.PodPlaced)
	if !ok {
		return
	}
	if !q.f.Object.IsZero() && p.Workload != q.f.Object && podRef(p.Pod) != q.f.Object {
		return
	}
	if q.f.Object.IsZero() && (q.f.Node == "" || p.Node != q.f.Node) {
		return
	}
	q.uids[state.NewUID(q.log, r.Seq, p.Pod.Namespace, p.Pod.Name)] = true
}

func (q *query) wants(r *state.Record) bool {
	f := &q.f
	q.learn(r)
	if r.Seq < f.From || f.To != 0 && r.Seq > f.To || r.At.Wall < f.After || f.Until != 0 && r.At.Wall >= f.Until {
		return false
	}
	if len(f.Kinds) > 0 && !slices.Contains(f.Kinds, r.Fact.Kind()) {
		return false
	}
	var app, object, node bool
	terms(r, func(t string) {
		app = app || t == appTerm(f.App)
		object = object || t == objectTerm(f.Object)
		node = node || t == nodeTerm(f.Node)
		if t[0] == 'u' && q.uids[state.UID([]byte(t[1:]))] {
			object = object || !f.Object.IsZero()
			node = node || f.Object.IsZero() && f.Node != ""
		}
	})
	return (f.App == "" || app) && (f.Object.IsZero() || object) && (f.Node == "" || node)
}

// TextsOf are the tokens of texts in a record, each once.
func TextsOf(r *state.Record) []state.Text {
	var out []state.Text
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		if t, ok := reflect.TypeAssert[state.Text](v); ok {
			if !t.IsZero() && !slices.Contains(out, t) {
				out = append(out, t)
			}
			return
		}
		switch v.Kind() {
		case reflect.Struct:
			for _, field := range v.Fields() {
				walk(field)
			}
		case reflect.Slice:
			if v.Type().Elem().Kind() == reflect.Struct {
				for i := range v.Len() {
					walk(v.Index(i))
				}
			}
		}
	}
	if !r.Actor.IsZero() {
		out = append(out, r.Actor)
	}
	walk(reflect.ValueOf(r.Fact).Elem())
	return out
}
