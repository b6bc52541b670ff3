package history

import (
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Postings say in which records of a segment a term occurs. A term is a letter
// for the dimension and a value; they come from the types of a fact's fields,
// not from its meaning.
//
//	section: terms in order, each: length, term, length of list, list;
//	list: differences of positions in the segment, the first plus one; varints

func kindTerm(k state.Kind) string     { return "k" + string([]byte{byte(k)}) }
func appTerm(a state.AppName) string   { return "a" + string(a) }
func objectTerm(r state.Ref) string    { return "o" + r.String() }
func nodeTerm(n state.NodeName) string { return "n" + string(n) }
func uidTerm(u state.UID) string       { return "u" + string(u[:]) }
func podRef(k state.PodKey) state.Ref {
	return state.Ref{Kind: "Pod", Namespace: k.Namespace, Name: k.Name}
}

// terms calls add for each term of a record, some of them twice.
func terms(r *state.Record, add func(string)) {
	add(kindTerm(r.Fact.Kind()))
	if r.App != "" {
		add(appTerm(r.App))
	}
	v := reflect.ValueOf(r.Fact).Elem()
	if p := termPlans()[v.Type()]; p != nil {
		p.walk(v, add)
	}
}

// A termPlan says where in a type terms are: in it as a whole, in some of its
// fields, or in its elements. A type without any has none.
type termPlan struct {
	whole  func(at any, add func(string)) // at is a pointer to the value
	fields []termField
	elem   *termPlan
}

type termField struct {
	index int
	plan  *termPlan
}

func (p *termPlan) walk(v reflect.Value, add func(string)) {
	if p.whole != nil {
		p.whole(v.Addr().Interface(), add)
		return
	}
	for _, f := range p.fields {
		f.plan.walk(v.Field(f.index), add)
	}
	if p.elem != nil {
		for i := range v.Len() {
			p.elem.walk(v.Index(i), add)
		}
	}
}

// termPlans are those of every fact that has terms.
var termPlans = sync.OnceValue(func() map[reflect.Type]*termPlan { //nolint:gochecknoglobals // computed once from types alone
	out := map[reflect.Type]*termPlan{}
	for _, k := range state.Kinds() {
		t := reflect.TypeOf(state.NewFact(k)).Elem()
		if p := planTerms(t); p != nil {
			out[t] = p
		}
	}
	return out
})

// planTerms is the plan of a type, nil where it has no terms.
func planTerms(t reflect.Type) *termPlan {
	if whole, ok := wholeTerms(t); ok {
		if whole == nil {
			return nil
		}
		return &termPlan{whole: whole}
	}
	p := &termPlan{}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			switch field := t.Field(i).Type; field.Kind() {
			case reflect.Struct, reflect.Slice, reflect.String, reflect.Array:
				if sub := planTerms(field); sub != nil {
					p.fields = append(p.fields, termField{i, sub})
				}
			}
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			p.elem = planTerms(t.Elem())
		}
	}
	if p.fields == nil && p.elem == nil {
		return nil
	}
	return p
}

// wholeTerms are the types that are terms themselves, and those in which nobody
// looks for any.
func wholeTerms(t reflect.Type) (whole func(at any, add func(string)), ok bool) {
	switch t {
	case reflect.TypeFor[state.Ref]():
		return func(at any, add func(string)) {
			if x := at.(*state.Ref); !x.IsZero() {
				add(objectTerm(*x))
				if x.Kind == "Node" {
					add(nodeTerm(state.NodeName(x.Name)))
				}
			}
		}, true
	case reflect.TypeFor[state.PodKey]():
		return func(at any, add func(string)) { add(objectTerm(podRef(*at.(*state.PodKey)))) }, true
	case reflect.TypeFor[state.NodeName]():
		return func(at any, add func(string)) {
			x := *at.(*state.NodeName)
			add(nodeTerm(x))
			add(objectTerm(state.Ref{Kind: "Node", Name: string(x)}))
		}, true
	case reflect.TypeFor[state.AppName]():
		return func(at any, add func(string)) { add(appTerm(*at.(*state.AppName))) }, true
	case reflect.TypeFor[state.UID]():
		return func(at any, add func(string)) { add(uidTerm(*at.(*state.UID))) }, true
	case reflect.TypeFor[state.Instant](), reflect.TypeFor[state.Digest](), reflect.TypeFor[state.NodeFacts](), reflect.TypeFor[state.Commit](), reflect.TypeFor[state.Image]():
		return nil, true
	default:
		return nil, false
	}
}

// collectPostings reads a segment and indexes its records.
func collectPostings(d Disk, seg *segment) ([]byte, error) {
	lists := map[string][]uint32{}
	ss := &segments{disk: d, list: []segment{*seg}}
	err := ss.batches(seg, seg.first, func(f *frame) error {
		for i, raw := range f.records {
			r, err := recordpb.UnmarshalRecord(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", logName(seg.first), err)
			}
			pos := uint32(f.first-seg.first) + uint32(i) + 1
			terms(r, func(t string) {
				if l := lists[t]; len(l) == 0 || l[len(l)-1] != pos {
					lists[t] = append(l, pos)
				}
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out, list []byte
	for _, t := range slices.Sorted(maps.Keys(lists)) {
		list = list[:0]
		last := uint32(0)
		for _, pos := range lists[t] {
			list = binary.AppendUvarint(list, uint64(pos-last))
			last = pos
		}
		out = binary.AppendUvarint(out, uint64(len(t)))
		out = append(out, t...)
		out = binary.AppendUvarint(out, uint64(len(list)))
		out = append(out, list...)
	}
	return out, nil
}

// lookUp finds the records of a segment that have any of the terms, ascending.
func (x *diskIndex) lookUp(d Disk, want map[string]bool) ([]state.Seq, error) {
	b, err := x.section(d, sectionPostings)
	if err != nil {
		return nil, err
	}
	var out []state.Seq
	bad := damaged(x.name, x.at[sectionPostings], "postings are malformed; the file is a cache: delete it")
	take := func() ([]byte, bool) {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, false
		}
		part := b[w : w+int(n)]
		b = b[w+int(n):]
		return part, true
	}
	for len(b) > 0 {
		term, ok := take()
		list, ok2 := take()
		if !ok || !ok2 {
			return nil, bad
		}
		if !want[string(term)] {
			continue
		}
		pos := uint64(0)
		for len(list) > 0 {
			n, w := binary.Uvarint(list)
			if w <= 0 || n == 0 || pos+n > uint64(x.count) {
				return nil, bad
			}
			pos += n
			out = append(out, x.first+state.Seq(pos)-1)
			list = list[w:]
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
