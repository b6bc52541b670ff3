package history

import (
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"

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
	walkTerms(reflect.ValueOf(r.Fact).Elem(), add)
}

func walkTerms(v reflect.Value, add func(string)) {
	switch x := v.Addr().Interface().(type) {
	case *state.Ref:
		if !x.IsZero() {
			add(objectTerm(*x))
			if x.Kind == "Node" {
				add(nodeTerm(state.NodeName(x.Name)))
			}
		}
		return
	case *state.PodKey:
		add(objectTerm(podRef(*x)))
		return
	case *state.NodeName:
		add(nodeTerm(*x))
		add(objectTerm(state.Ref{Kind: "Node", Name: string(*x)}))
		return
	case *state.AppName:
		add(appTerm(*x))
		return
	case *state.UID:
		add(uidTerm(*x))
		return
	case *state.Instant, *state.Digest, *state.NodeFacts, *state.Commit, *state.Image:
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			switch field.Kind() {
			case reflect.Struct, reflect.Slice, reflect.String, reflect.Array:
				walkTerms(field, add)
			}
		}
	case reflect.Slice:
		if k := v.Type().Elem().Kind(); k == reflect.Struct {
			for i := range v.Len() {
				walkTerms(v.Index(i), add)
			}
		}
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
