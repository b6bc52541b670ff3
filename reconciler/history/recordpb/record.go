package recordpb

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// MaxRecord is how large one record may be, in bytes. Most have a few hundred;
// the largest says what a commit changes in as many objects as a render may
// have (20,000), each a name and a digest.
const MaxRecord = 8 << 20

// ErrTooLarge means that a record is over MaxRecord.
var ErrTooLarge = errors.New("record is larger than 8 MiB")

// factBase plus the kind is the field number of a record's fact.
const factBase = 16

type factPlan struct {
	*plan
	ptr reflect.Type
}

// recordPlans are the plans of Record and of every fact, by kind.
type recordPlans struct {
	record *plan
	facts  [256]factPlan
}

// plans compiles the records' types once. A type without an encoding is a
// mistake in package state that its own tests would show.
var plans = sync.OnceValue(func() *recordPlans { //nolint:gochecknoglobals // computed once from types alone
	must := func(t reflect.Type) *plan {
		p, err := planOf(t)
		if err != nil {
			panic(err)
		}
		return p
	}
	rp := &recordPlans{record: must(reflect.TypeFor[state.Record]())}
	for _, k := range state.Kinds() {
		t := reflect.TypeOf(state.NewFact(k))
		rp.facts[k] = factPlan{plan: must(t.Elem()), ptr: t}
	}
	return rp
})

// MarshalRecord encodes a record: its own fields, then its fact as field
// 16 + Kind.
func MarshalRecord(r *state.Record) ([]byte, error) { return AppendRecord(nil, r) }

// AppendRecord encodes a record onto b.
func AppendRecord(b []byte, r *state.Record) ([]byte, error) {
	rp := plans()
	start := len(b)
	if r == nil || r.Fact == nil {
		return nil, errors.New("a record without a fact")
	}
	kind := r.Fact.Kind()
	fp := rp.facts[kind]
	v := reflect.ValueOf(r.Fact)
	if fp.plan == nil || v.Type() != fp.ptr || v.IsNil() {
		return nil, fmt.Errorf("record %d: %T is not the fact of kind %d", r.Seq, r.Fact, kind)
	}
	b = rp.record.append(b, reflect.ValueOf(r).UnsafePointer())
	b = protowire.AppendTag(b, protowire.Number(factBase+int(kind)), protowire.BytesType)
	b = appendMessage(b, fp.plan, v.UnsafePointer())
	if len(b)-start > MaxRecord {
		return nil, fmt.Errorf("record %d (%s) has %d bytes: %w", r.Seq, kind, len(b)-start, ErrTooLarge)
	}
	return b, nil
}

// UnmarshalRecord decodes what MarshalRecord wrote. An unknown kind or field is
// ErrUnknown: folding a log without understanding it is worse than not starting.
func UnmarshalRecord(b []byte) (*state.Record, error) {
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrTooLarge)
	}
	rp := plans()
	r := new(state.Record)
	base := reflect.ValueOf(r).UnsafePointer()
	d := decoder{bytes: append(make([]byte, 0, len(b)), b...), strict: true, alias: true}
	b = d.bytes
	for len(b) > 0 {
		tag, n := varint(b)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return nil, fmt.Errorf("decode record: %w: bad tag", ErrMalformed)
		}
		num, body := int(tag>>3), b[n:]
		if num <= factBase {
			f := rp.record.find(num)
			if f == nil {
				return nil, fmt.Errorf("decode record: %s: field %d: %w", rp.record.typ, num, ErrUnknown)
			}
			size, err := d.field(body, f, protowire.Type(tag&7), unsafe.Add(base, f.offset), 0)
			if err != nil {
				return nil, fmt.Errorf("decode record: %w", err)
			}
			if size <= 0 {
				return nil, fmt.Errorf("decode record: %w: field %d", ErrMalformed, num)
			}
			b = body[size:]
			continue
		}
		kind := num - factBase
		if kind > 255 || rp.facts[kind].plan == nil {
			return nil, fmt.Errorf("decode record %d: kind %d: %w", r.Seq, kind, ErrUnknown)
		}
		raw, size := delimited(body)
		if size <= 0 || protowire.Type(tag&7) != protowire.BytesType || r.Fact != nil {
			return nil, fmt.Errorf("decode record %d: %w: fact", r.Seq, ErrMalformed)
		}
		fp := &rp.facts[kind]
		fact := reflect.New(fp.typ)
		if err := d.message(raw, fp.plan, fact.UnsafePointer(), 0); err != nil {
			return nil, fmt.Errorf("decode record %d (%s): %w", r.Seq, state.Kind(kind), err)
		}
		r.Fact = fact.Interface().(state.Fact)
		b = body[size:]
	}
	if r.Fact == nil {
		return nil, fmt.Errorf("decode record %d: %w: no fact", r.Seq, ErrMalformed)
	}
	return r, nil
}
