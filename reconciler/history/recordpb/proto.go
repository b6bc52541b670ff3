package recordpb

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Proto describes the wire form of records in protobuf's own language, for
// whoever wants to read a log with other tools. The file record.proto is its
// output.
func Proto() string {
	rp := plans()
	d := describer{done: map[*plan]bool{}}
	d.printf("// The records of a Tandem log. Generated from the structs of package state; do not edit.\n")
	d.printf("syntax = \"proto3\";\n\npackage tandem.history.v1;\n")
	d.message(rp.record, func() {
		d.printf("  oneof fact {\n")
		for _, k := range state.Kinds() {
			d.printf("    %s %s = %d;\n", rp.facts[k].typ.Name(), protoName(k.String()), factBase+int(k))
		}
		d.printf("  }\n")
	})
	for _, k := range state.Kinds() {
		d.later = append(d.later, rp.facts[k].plan)
	}
	for len(d.later) > 0 {
		p := d.later[0]
		d.later = d.later[1:]
		d.message(p, nil)
	}
	return d.out.String()
}

type describer struct {
	out   strings.Builder
	done  map[*plan]bool
	later []*plan
}

func (d *describer) printf(format string, args ...any) { fmt.Fprintf(&d.out, format, args...) }

func (d *describer) message(p *plan, more func()) {
	if d.done[p] {
		return
	}
	d.done[p] = true
	d.printf("\nmessage %s {\n", p.typ.Name())
	var below []*plan
	for _, f := range p.fields {
		d.printf("  %s %s = %d;%s\n", f.protoType(), protoName(f.name), f.num, f.note())
		v := &f.value
		if v.elem != nil {
			v = v.elem
		}
		if v.plan != nil {
			below = append(below, v.plan)
		}
	}
	if more != nil {
		more()
	}
	d.printf("}\n")
	d.later = slices.Concat(below, d.later)
}

func (v *value) protoType() string {
	switch v.op {
	case opBool:
		return "bool"
	case opInt8, opInt16, opInt32:
		return "sint32"
	case opInt64:
		return "sint64"
	case opUint8, opUint16, opUint32:
		return "uint32"
	case opUint64:
		return "uint64"
	case opString:
		return "string"
	case opBytes, opArray, opAddr:
		return "bytes"
	case opStruct, opPtr:
		return v.plan.typ.Name()
	case opSlice:
		return "repeated " + v.elem.protoType()
	case opMap:
		return "map<string, " + v.elem.protoType() + ">"
	}
	return ""
}

// note is the Go type, where it says more than protobuf's.
func (v *value) note() string {
	t := v.typ
	if v.elem != nil {
		t = v.elem.typ
	}
	if t.PkgPath() == "" || t.Kind() == reflect.Struct {
		return ""
	}
	return " // " + t.Name()
}
