package recordpb

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// Marshal encodes the struct that v points to.
func Marshal(v any) ([]byte, error) { return Append(nil, v) }

// Append encodes the struct that v points to onto b.
func Append(b []byte, v any) ([]byte, error) {
	p, ptr, err := target(v)
	if err != nil {
		return nil, err
	}
	return p.append(b, ptr), nil
}

// target is the plan and the address of the struct that v points to.
func target(v any) (*plan, unsafe.Pointer, error) {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() || rv.Type().Elem().Kind() != reflect.Struct {
		return nil, nil, fmt.Errorf("recordpb: want a pointer to a struct, got %T", v)
	}
	p, err := planOf(rv.Type().Elem())
	return p, rv.UnsafePointer(), err
}

// append writes the fields that aren't zero, in the order of their numbers.
func (p *plan) append(b []byte, base unsafe.Pointer) []byte {
	for _, f := range p.fields {
		b = f.append(b, unsafe.Add(base, f.offset))
	}
	return b
}

func (f *field) append(b []byte, at unsafe.Pointer) []byte {
	switch f.op {
	case opString:
		s := *(*string)(at)
		if s == "" {
			return b
		}
		return protowire.AppendString(protowire.AppendVarint(b, f.tag), s)
	case opArray:
		a := unsafe.Slice((*byte)(at), f.size)
		if allZero(a) {
			return b
		}
		return protowire.AppendBytes(protowire.AppendVarint(b, f.tag), a)
	case opStruct:
		start := len(b)
		b = protowire.AppendVarint(b, f.tag)
		body := len(b)
		b = appendMessage(b, f.plan, at)
		if len(b) == body+1 {
			return b[:start]
		}
		return b
	case opSlice:
		return f.appendSlice(b, at)
	case opMap:
		return f.appendMap(b, at)
	case opBool, opInt8, opInt16, opInt32, opInt64, opUint8, opUint16, opUint32, opUint64:
		n := f.number(at)
		if n == 0 {
			return b
		}
		return protowire.AppendVarint(protowire.AppendVarint(b, f.tag), n)
	case opBytes, opAddr, opPtr:
		if f.isZero(at) {
			return b
		}
		return f.appendBody(protowire.AppendVarint(b, f.tag), at)
	}
	return b
}

// appendMessage writes the length and the fields of a struct. Most are shorter
// than 128 bytes, so the length is guessed as one byte and mended.
func appendMessage(b []byte, p *plan, at unsafe.Pointer) []byte {
	body := len(b) + 1
	b = p.append(append(b, 0), at)
	n := len(b) - body
	if n < 0x80 {
		b[body-1] = byte(n)
		return b
	}
	width := protowire.SizeVarint(uint64(n))
	b = slices.Grow(b, width-1)[:len(b)+width-1]
	copy(b[body+width-1:], b[body:body+n])
	protowire.AppendVarint(b[:body-1], uint64(n))
	return b
}

func (f *field) appendSlice(b []byte, at unsafe.Pointer) []byte {
	n := *(*sliceHeader)(at)
	if n.len == 0 {
		return b
	}
	size := f.elem.typ.Size()
	if !f.elem.op.isNumber() {
		for i := range n.len {
			b = f.elem.appendBody(protowire.AppendVarint(b, f.tag), unsafe.Add(n.data, uintptr(i)*size))
		}
		return b
	}
	var length int
	for i := range n.len {
		length += protowire.SizeVarint(f.elem.number(unsafe.Add(n.data, uintptr(i)*size)))
	}
	b = protowire.AppendVarint(protowire.AppendVarint(b, f.tag), uint64(length))
	for i := range n.len {
		b = protowire.AppendVarint(b, f.elem.number(unsafe.Add(n.data, uintptr(i)*size)))
	}
	return b
}

// sliceHeader is the runtime's representation of a slice.
type sliceHeader struct {
	data unsafe.Pointer
	len  int
	cap  int
}

func (f *field) appendMap(b []byte, at unsafe.Pointer) []byte {
	m := reflect.NewAt(f.typ, at).Elem()
	if m.Len() == 0 {
		return b
	}
	keys := make([]string, 0, m.Len())
	for k := range m.Seq() {
		keys = append(keys, k.String())
	}
	slices.Sort(keys)
	elem := reflect.New(f.elem.typ)
	key := reflect.New(f.typ.Key()).Elem()
	entry := []byte(nil)
	for _, k := range keys {
		key.SetString(k)
		elem.Elem().Set(m.MapIndex(key))
		// Key and value are written even where they are zero, as protobuf's own encoders do.
		entry = protowire.AppendString(protowire.AppendVarint(entry[:0], mapKeyTag), k)
		entry = protowire.AppendTag(entry, 2, f.elem.wireType())
		entry = f.elem.appendBody(entry, elem.UnsafePointer())
		b = protowire.AppendBytes(protowire.AppendVarint(b, f.tag), entry)
	}
	return b
}

const mapKeyTag = 1<<3 | uint64(protowire.BytesType)

// appendBody writes a value without its tag; zero is written too.
func (v *value) appendBody(b []byte, at unsafe.Pointer) []byte {
	switch v.op {
	case opString:
		return protowire.AppendString(b, *(*string)(at))
	case opBytes:
		return protowire.AppendBytes(b, *(*[]byte)(at))
	case opArray:
		return protowire.AppendBytes(b, unsafe.Slice((*byte)(at), v.size))
	case opAddr:
		raw, _ := (*netip.Addr)(at).MarshalBinary() // it has no error to return
		return protowire.AppendBytes(b, raw)
	case opStruct:
		return appendMessage(b, v.plan, at)
	case opPtr:
		to := *(*unsafe.Pointer)(at)
		if to == nil {
			return append(b, 0)
		}
		return appendMessage(b, v.plan, to)
	case opBool, opInt8, opInt16, opInt32, opInt64, opUint8, opUint16, opUint32, opUint64:
		return protowire.AppendVarint(b, v.number(at))
	case opSlice, opMap:
		panic("recordpb: a list of lists was planned") // planner.value refuses it
	}
	return b
}

// number is the varint of a number.
func (v *value) number(at unsafe.Pointer) uint64 {
	switch v.op {
	case opBool, opUint8:
		return uint64(*(*uint8)(at))
	case opUint16:
		return uint64(*(*uint16)(at))
	case opUint32:
		return uint64(*(*uint32)(at))
	case opUint64:
		return *(*uint64)(at)
	case opInt8:
		return protowire.EncodeZigZag(int64(*(*int8)(at)))
	case opInt16:
		return protowire.EncodeZigZag(int64(*(*int16)(at)))
	case opInt32:
		return protowire.EncodeZigZag(int64(*(*int32)(at)))
	default:
		return protowire.EncodeZigZag(*(*int64)(at))
	}
}

func (v *value) isZero(at unsafe.Pointer) bool {
	switch v.op {
	case opString:
		return *(*string)(at) == ""
	case opBytes, opSlice:
		return (*sliceHeader)(at).len == 0
	case opArray:
		return allZero(unsafe.Slice((*byte)(at), v.size))
	case opAddr:
		return !(*netip.Addr)(at).IsValid()
	case opPtr:
		return *(*unsafe.Pointer)(at) == nil
	case opBool, opInt8, opInt16, opInt32, opInt64, opUint8, opUint16, opUint32, opUint64:
		return v.number(at) == 0
	case opStruct, opMap: // append decides by what comes out
	}
	return false
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
