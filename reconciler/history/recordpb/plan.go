package recordpb

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// op says how a value lies in memory and on the wire.
type op uint8

const (
	opBool op = iota + 1
	opInt8
	opInt16
	opInt32
	opInt64
	opUint8
	opUint16
	opUint32
	opUint64
	opString
	opBytes
	opArray  // [n]byte
	opAddr   // netip.Addr
	opStruct // left out where its encoding is empty
	opPtr    // to a struct; nil is left out
	opSlice  // of elem
	opMap    // from strings to elem
)

func (o op) isNumber() bool { return o <= opUint64 }

// A value is the compiled form of a type.
type value struct {
	op   op
	typ  reflect.Type
	size int    // opArray: bytes
	plan *plan  // opStruct, opPtr
	elem *value // opSlice, opMap
}

// A field is a tagged field of a struct.
type field struct {
	value
	num    int
	name   string
	offset uintptr
	tag    uint64 // number and wire type
}

// A plan is the compiled form of a struct: its fields by number.
type plan struct {
	typ    reflect.Type
	fields []*field
	byNum  []*field // index is the number
}

func (p *plan) find(num int) *field {
	if num < len(p.byNum) {
		return p.byNum[num]
	}
	return nil
}

// planner compiles types; plans refer to each other, also in circles.
type planner struct {
	mu    sync.Mutex
	plans map[reflect.Type]*plan
}

// compiled holds finished plans only: a type's plan never changes.
var compiled sync.Map //nolint:gochecknoglobals // a cache of pure function results, by reflect.Type

// planning serialises compilation.
var planning = planner{plans: map[reflect.Type]*plan{}} //nolint:gochecknoglobals // see compiled

func planOf(t reflect.Type) (*plan, error) {
	if p, ok := compiled.Load(t); ok {
		return p.(*plan), nil
	}
	planning.mu.Lock()
	defer planning.mu.Unlock()
	p, err := planning.compile(t)
	if err != nil {
		// Half-made plans may refer to what failed: forget them all.
		planning.plans = map[reflect.Type]*plan{}
		return nil, err
	}
	compiled.Store(t, p)
	return p, nil
}

func (pl *planner) compile(t reflect.Type) (*plan, error) {
	if p := pl.plans[t]; p != nil {
		return p, nil
	}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("recordpb: %s is not a struct", t)
	}
	p := &plan{typ: t}
	pl.plans[t] = p
	for sf := range t.Fields() {
		tag := sf.Tag.Get("pb")
		if tag == "" || tag == "-" {
			continue
		}
		num, err := strconv.Atoi(tag)
		if err != nil || num < 1 || num > 2047 {
			return nil, fmt.Errorf("recordpb: %s.%s: tag pb:%q is not a number from 1 to 2047", t, sf.Name, tag)
		}
		v, err := pl.value(sf.Type)
		if err != nil {
			return nil, fmt.Errorf("%w (field %s of %s)", err, sf.Name, t)
		}
		f := &field{value: *v, num: num, name: sf.Name, offset: sf.Offset}
		f.tag = protowire.EncodeTag(protowire.Number(num), v.wireType())
		p.fields = append(p.fields, f)
	}
	slices.SortFunc(p.fields, func(a, b *field) int { return a.num - b.num })
	for i, f := range p.fields {
		if i > 0 && p.fields[i-1].num == f.num {
			return nil, fmt.Errorf("recordpb: %s has number %d twice: %s and %s", t, f.num, p.fields[i-1].name, f.name)
		}
		for len(p.byNum) <= f.num {
			p.byNum = append(p.byNum, nil)
		}
		p.byNum[f.num] = f
	}
	return p, nil
}

// wireType is that of one value, and of a packed slice.
func (v *value) wireType() protowire.Type {
	if v.op.isNumber() {
		return protowire.VarintType
	}
	return protowire.BytesType
}

func (pl *planner) value(t reflect.Type) (*value, error) {
	v := &value{typ: t}
	if t == reflect.TypeFor[netip.Addr]() {
		v.op = opAddr
		return v, nil
	}
	var err error
	switch t.Kind() {
	case reflect.Bool:
		v.op = opBool
	case reflect.Int, reflect.Uint:
		return nil, fmt.Errorf("recordpb: %s has no encoding: its size depends on the machine", t)
	case reflect.Int8:
		v.op = opInt8
	case reflect.Int16:
		v.op = opInt16
	case reflect.Int32:
		v.op = opInt32
	case reflect.Int64:
		v.op = opInt64
	case reflect.Uint8:
		v.op = opUint8
	case reflect.Uint16:
		v.op = opUint16
	case reflect.Uint32:
		v.op = opUint32
	case reflect.Uint64:
		v.op = opUint64
	case reflect.String:
		v.op = opString
	case reflect.Struct:
		v.op = opStruct
		v.plan, err = pl.compile(t)
	case reflect.Pointer:
		v.op = opPtr
		v.plan, err = pl.compile(t.Elem())
	case reflect.Array:
		v.op, v.size = opArray, t.Len()
		if t.Elem().Kind() != reflect.Uint8 {
			return nil, fmt.Errorf("recordpb: %s: only arrays of bytes have an encoding", t)
		}
	case reflect.Slice:
		return pl.slice(v)
	case reflect.Map:
		v.op = opMap
		if t.Key().Kind() != reflect.String {
			return nil, fmt.Errorf("recordpb: %s: map keys must be strings", t)
		}
		v.elem, err = pl.value(t.Elem())
		if err == nil && (v.elem.op == opSlice || v.elem.op == opMap) {
			err = fmt.Errorf("recordpb: %s: a map's value can't be a list or map; use a struct", t)
		}
	default:
		return nil, fmt.Errorf("recordpb: %s has no encoding; use a sized type", t)
	}
	return v, err
}

func (pl *planner) slice(v *value) (*value, error) {
	elem := v.typ.Elem()
	if elem == reflect.TypeFor[byte]() {
		v.op = opBytes
		return v, nil
	}
	v.op = opSlice
	var err error
	v.elem, err = pl.value(elem)
	if err == nil && (v.elem.op == opSlice || v.elem.op == opMap) {
		err = fmt.Errorf("recordpb: %s: an element can't be a list or map; use a struct", v.typ)
	}
	return v, err
}

// protoName is the field's name in record.proto: BootID is boot_id.
func protoName(name string) string {
	var b strings.Builder
	for i, r := range name {
		upper := r >= 'A' && r <= 'Z'
		if upper && i > 0 {
			lower := name[i-1] >= 'a' && name[i-1] <= 'z'
			ends := i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z'
			if lower || ends {
				b.WriteByte('_')
			}
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}
