package recordpb

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrUnknown means that the bytes hold a field or a kind of record that this
// version does not know: a newer one wrote them.
var ErrUnknown = errors.New("written by a newer version of Tandem; use that version or a later one")

// ErrMalformed means that the bytes are not the encoding of the type.
var ErrMalformed = errors.New("malformed protobuf")

const (
	maxDepth   = 64
	maxAliased = 4 << 10 // strings of a larger message are copied out, so that one doesn't keep it all
	maxShared  = 64      // strings of a larger message up to this size are shared when equal
)

// Unmarshal decodes b into the struct that v points to, which should be zero.
// An unknown field is ErrUnknown.
func Unmarshal(b []byte, v any) error { return unmarshal(b, v, true) }

// UnmarshalLenient is Unmarshal for the wire: fields that this version doesn't
// know are skipped, so that two versions can talk.
func UnmarshalLenient(b []byte, v any) error { return unmarshal(b, v, false) }

func unmarshal(b []byte, v any, strict bool) error {
	p, ptr, err := target(v)
	if err != nil {
		return err
	}
	d := newDecoder(b, strict)
	if err := d.message(d.bytes, p, ptr, 0); err != nil {
		return fmt.Errorf("decode %s: %w", p.typ, err)
	}
	return nil
}

// A decoder reads one message. Strings of a small message share one copy of it.
type decoder struct {
	bytes  []byte
	strict bool
	alias  bool
	shared map[string]string
}

func newDecoder(b []byte, strict bool) *decoder {
	d := &decoder{bytes: b, strict: strict}
	if len(b) <= maxAliased {
		d.alias = true
		d.bytes = append(make([]byte, 0, len(b)), b...)
	} else {
		d.shared = map[string]string{}
	}
	return d
}

func (d *decoder) string(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if d.alias {
		return unsafe.String(&b[0], len(b)) // of d.bytes, which nobody changes
	}
	if len(b) > maxShared {
		return string(b)
	}
	if s, ok := d.shared[string(b)]; ok {
		return s
	}
	s := string(b)
	d.shared[s] = s
	return s
}

func (d *decoder) message(b []byte, p *plan, base unsafe.Pointer, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrMalformed, maxDepth)
	}
	for len(b) > 0 {
		tag, n := varint(b)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return fmt.Errorf("%w: %s: bad tag", ErrMalformed, p.typ)
		}
		b = b[n:]
		num, typ := int(tag>>3), protowire.Type(tag&7)
		f := p.find(num)
		if f == nil {
			if d.strict {
				return fmt.Errorf("%s: field %d: %w", p.typ, num, ErrUnknown)
			}
			n = protowire.ConsumeFieldValue(protowire.Number(num), typ, b)
			if n < 0 {
				return fmt.Errorf("%w: %s: field %d", ErrMalformed, p.typ, num)
			}
			b = b[n:]
			continue
		}
		n, err := d.field(b, f, typ, unsafe.Add(base, f.offset), depth)
		if err != nil {
			return err
		}
		if n <= 0 {
			return fmt.Errorf("%w: %s.%s", ErrMalformed, p.typ, f.name)
		}
		b = b[n:]
	}
	return nil
}

// field decodes one occurrence of a field. It answers how many bytes it took,
// none where they are malformed.
func (d *decoder) field(b []byte, f *field, typ protowire.Type, at unsafe.Pointer, depth int) (int, error) {
	if f.op.isNumber() {
		if typ != protowire.VarintType {
			return 0, nil
		}
		n, size := varint(b)
		if size <= 0 || !f.setNumber(at, n) {
			return 0, nil
		}
		return size, nil
	}
	if f.op == opSlice && f.elem.op.isNumber() && typ == protowire.VarintType {
		// Not packed: other writers may.
		n, size := varint(b)
		if size <= 0 || !f.elem.setNumber(f.grow(at), n) {
			return 0, nil
		}
		return size, nil
	}
	if typ != protowire.BytesType {
		return 0, nil
	}
	body, n := delimited(b)
	if n <= 0 {
		return 0, nil
	}
	switch f.op {
	case opSlice:
		if f.elem.op.isNumber() {
			return n, packed(body, f, at)
		}
		return n, d.body(body, f.elem, f.grow(at), depth)
	case opMap:
		return n, d.entry(body, f, at, depth)
	default:
		return n, d.body(body, &f.value, at, depth)
	}
}

// grow adds a zero element to the slice and returns its address.
func (f *field) grow(at unsafe.Pointer) unsafe.Pointer {
	s := reflect.NewAt(f.typ, at).Elem()
	n := s.Len()
	if n == s.Cap() {
		s.Grow(1)
	}
	s.SetLen(n + 1)
	e := s.Index(n)
	e.SetZero()
	return e.Addr().UnsafePointer()
}

func packed(b []byte, f *field, at unsafe.Pointer) error {
	count := 0
	for _, c := range b {
		if c < 0x80 {
			count++
		}
	}
	s := reflect.NewAt(f.typ, at).Elem()
	have := s.Len()
	s.Grow(count)
	s.SetLen(have + count)
	size := f.elem.typ.Size()
	to := unsafe.Add(s.UnsafePointer(), uintptr(have)*size)
	for range count {
		n, w := varint(b)
		if w <= 0 || !f.elem.setNumber(to, n) {
			return fmt.Errorf("%w: %s", ErrMalformed, f.name)
		}
		b, to = b[w:], unsafe.Add(to, size)
	}
	if len(b) > 0 {
		return fmt.Errorf("%w: %s", ErrMalformed, f.name)
	}
	return nil
}

func (d *decoder) body(b []byte, v *value, at unsafe.Pointer, depth int) error {
	switch v.op {
	case opString:
		*(*string)(at) = d.string(b)
	case opBytes:
		*(*[]byte)(at) = append([]byte(nil), b...)
	case opArray:
		if len(b) != v.size {
			return fmt.Errorf("%w: %s of %d bytes", ErrMalformed, v.typ, len(b))
		}
		copy(unsafe.Slice((*byte)(at), v.size), b)
	case opAddr:
		if err := (*netip.Addr)(at).UnmarshalBinary(b); err != nil {
			return fmt.Errorf("%w: address of %d bytes", ErrMalformed, len(b))
		}
	case opStruct:
		return d.message(b, v.plan, at, depth+1)
	case opPtr:
		to := (*unsafe.Pointer)(at)
		if *to == nil {
			*to = reflect.New(v.plan.typ).UnsafePointer()
		}
		return d.message(b, v.plan, *to, depth+1)
	default:
		return fmt.Errorf("%w: %s", ErrMalformed, v.typ)
	}
	return nil
}

func (d *decoder) entry(b []byte, f *field, at unsafe.Pointer, depth int) error {
	m := reflect.NewAt(f.typ, at).Elem()
	if m.IsNil() {
		m.Set(reflect.MakeMap(f.typ))
	}
	key := reflect.New(f.typ.Key()).Elem()
	elem := reflect.New(f.elem.typ)
	if f.elem.op == opPtr {
		elem.Elem().Set(reflect.New(f.elem.plan.typ))
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %s: map entry", ErrMalformed, f.name)
		}
		b = b[n:]
		switch {
		case num == 1 && typ == protowire.BytesType:
			body, n := delimited(b)
			if n <= 0 {
				return fmt.Errorf("%w: %s: map key", ErrMalformed, f.name)
			}
			key.SetString(d.string(body))
			b = b[n:]
		case num == 2:
			n, err := d.field(b, &field{value: *f.elem, name: f.name}, typ, elem.UnsafePointer(), depth)
			if err != nil {
				return err
			}
			if n <= 0 {
				return fmt.Errorf("%w: %s: map value", ErrMalformed, f.name)
			}
			b = b[n:]
		default:
			return fmt.Errorf("%w: %s: map entry has field %d", ErrMalformed, f.name, num)
		}
	}
	m.SetMapIndex(key, elem.Elem())
	return nil
}

// setNumber stores a varint; it says no where the number doesn't fit the type.
func (v *value) setNumber(at unsafe.Pointer, n uint64) bool {
	s := protowire.DecodeZigZag(n)
	switch v.op {
	case opBool:
		*(*bool)(at) = n == 1
		return n <= 1
	case opUint8:
		*(*uint8)(at) = uint8(n)
		return n <= math.MaxUint8
	case opUint16:
		*(*uint16)(at) = uint16(n)
		return n <= math.MaxUint16
	case opUint32:
		*(*uint32)(at) = uint32(n)
		return n <= math.MaxUint32
	case opUint64:
		*(*uint64)(at) = n
	case opInt8:
		*(*int8)(at) = int8(s)
		return s >= math.MinInt8 && s <= math.MaxInt8
	case opInt16:
		*(*int16)(at) = int16(s)
		return s >= math.MinInt16 && s <= math.MaxInt16
	case opInt32:
		*(*int32)(at) = int32(s)
		return s >= math.MinInt32 && s <= math.MaxInt32
	default:
		*(*int64)(at) = s
	}
	return true
}

// varint reads a varint, with the one-byte case inlined by hand: nearly all are.
func varint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return protowire.ConsumeVarint(b)
}

// delimited reads a length and as many bytes.
func delimited(b []byte) (body []byte, size int) {
	n, w := varint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, -1
	}
	end := w + int(n)
	return b[w:end:end], end
}
