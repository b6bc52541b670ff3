package recordpb

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

var update = flag.Bool("update", false, "write record.proto anew")

func TestRecordProtoIsCurrent(t *testing.T) {
	if *update {
		if err := os.WriteFile("record.proto", []byte(Proto()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("record.proto")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Proto(), string(got)); diff != "" {
		t.Errorf("record.proto is stale; run go test ./reconciler/history/recordpb -update:\n%s", diff)
	}
}

// fill sets every tagged field below v to a drawn value.
func fill(t *rapid.T, v reflect.Value, depth int) {
	if v.Type() == reflect.TypeFor[netip.Addr]() {
		addrs := []netip.Addr{{}, netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fe80::1%eth0")}
		v.Set(reflect.ValueOf(rapid.SampledFrom(addrs).Draw(t, "addr")))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64Range(-1<<(v.Type().Bits()-1), 1<<(v.Type().Bits()-1)-1).Draw(t, "int"))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "uint") >> (64 - v.Type().Bits()))
	case reflect.String:
		v.SetString(rapid.StringN(0, 200, -1).Draw(t, "string"))
	case reflect.Array:
		if rapid.Bool().Draw(t, "set") {
			for i := range v.Len() {
				v.Index(i).SetUint(uint64(rapid.Byte().Draw(t, "byte")))
			}
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 4).Draw(t, "len")
		if n == 0 || depth > 6 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i), depth+1)
		}
	case reflect.Map:
		n := rapid.IntRange(0, 4).Draw(t, "len")
		if n == 0 || depth > 6 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range n {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, k, depth+1)
			fill(t, e, depth+1)
			v.SetMapIndex(k, e)
		}
	case reflect.Pointer:
		if depth < 6 && rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if tag := v.Type().Field(i).Tag.Get("pb"); tag != "" && tag != "-" {
				fill(t, v.Field(i), depth+1)
			}
		}
	}
}

func drawRecord(t *rapid.T, k state.Kind) *state.Record {
	r := &state.Record{Fact: state.NewFact(k)}
	fill(t, reflect.ValueOf(r).Elem(), 0)
	fill(t, reflect.ValueOf(r.Fact).Elem(), 0)
	return r
}

func TestEveryKindComesBack(t *testing.T) {
	for _, k := range state.Kinds() {
		t.Run(k.String(), rapid.MakeCheck(func(t *rapid.T) {
			want := drawRecord(t, k)
			b, err := MarshalRecord(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := UnmarshalRecord(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatal(diff)
			}
			again, err := MarshalRecord(got)
			if err != nil || !bytes.Equal(b, again) {
				t.Fatalf("encoded again it differs: %x, then %x (%v)", b, again, err)
			}
		}))
	}
}

type everything struct {
	B     bool                     `pb:"1"`
	I8    int8                     `pb:"2"`
	I64   int64                    `pb:"3"`
	U16   uint16                   `pb:"4"`
	D     time.Duration            `pb:"5"`
	Raw   []byte                   `pb:"6"`
	Addr  netip.Addr               `pb:"7"`
	Addrs []netip.Addr             `pb:"8"`
	Ptr   *everything              `pb:"9"`
	Ptrs  []*everything            `pb:"10"`
	Nums  []int32                  `pb:"11"`
	Verb  []state.Verb             `pb:"12"`
	M     map[string]string        `pb:"13"`
	MS    map[string]state.Ref     `pb:"14"`
	MP    map[state.OS]*everything `pb:"15"`
	MN    map[string]int64         `pb:"16"`
	Raws  [][]byte                 `pb:"17"`
	UIDs  []state.UID              `pb:"18"`
	Bits  []bool                   `pb:"300"`
	Not   chan int
}

func TestEveryTypeComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want, got everything
		fill(t, reflect.ValueOf(&want).Elem(), 0)
		b, err := Marshal(&want)
		if err != nil {
			t.Fatal(err)
		}
		if err := Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		again, err := Marshal(&got)
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("encoded again it differs: %v", err)
		}
		opts := cmp.Options{
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
			cmp.Comparer(func(a, b chan int) bool { return a == b }),
			// A nil element of a list is an empty message on the wire.
			cmp.Comparer(func(a, b *everything) bool {
				x, _ := Marshal(orEmpty(a))
				y, _ := Marshal(orEmpty(b))
				return bytes.Equal(x, y)
			}),
			cmp.Comparer(bytes.Equal),
		}
		if diff := cmp.Diff(want, got, opts); diff != "" {
			t.Fatal(diff)
		}
	})
}

func orEmpty(e *everything) *everything {
	if e == nil {
		return &everything{}
	}
	return e
}

func TestWhatIsNotKnownIsRefused(t *testing.T) {
	good, err := MarshalRecord(placed())
	if err != nil {
		t.Fatal(err)
	}
	kind := protowire.AppendBytes(protowire.AppendTag(nil, factBase+200, protowire.BytesType), nil)
	if _, err := UnmarshalRecord(kind); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "kind 200") {
		t.Errorf("kind 200: %v", err)
	}
	field := protowire.AppendVarint(protowire.AppendTag(bytes.Clone(good), 9, protowire.VarintType), 1)
	if _, err := UnmarshalRecord(field); !errors.Is(err, ErrUnknown) {
		t.Errorf("field 9: %v", err)
	}
	ref := protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), "web")
	ref = protowire.AppendVarint(protowire.AppendTag(ref, 77, protowire.VarintType), 1)
	var r state.Ref
	if err := Unmarshal(ref, &r); !errors.Is(err, ErrUnknown) {
		t.Errorf("strict: %v", err)
	}
	if err := UnmarshalLenient(ref, &r); err != nil || r.Name != "web" {
		t.Errorf("lenient: %v, %v", r, err)
	}
}

// A commit of as many objects as a render may have is one record.
func TestLargestCommit(t *testing.T) {
	f := &state.RevisionApplied{Revision: "main@sha1:0123456789012345678901234567890123456789"}
	for i := range 20_000 {
		ref := state.Ref{Kind: "StatefulSet", Namespace: strings.Repeat("n", 63), Name: fmt.Sprintf("%s-%d", strings.Repeat("x", 57), i)}
		f.Changes = append(f.Changes, state.Change{Ref: ref, Verb: state.Create, Digest: state.DigestOf([]byte(ref.Name))})
	}
	raw, err := MarshalRecord(&state.Record{Seq: 7, Fact: f})
	if err != nil {
		t.Fatal(err)
	}
	r, err := UnmarshalRecord(raw)
	if err != nil || len(r.Fact.(*state.RevisionApplied).Changes) != 20_000 { //nolint:forcetypeassert // what was encoded
		t.Fatalf("%d bytes: %v", len(raw), err)
	}
}

func TestTooLargeAndFactlessRecordsAreRefused(t *testing.T) {
	big := &state.Record{Seq: 7, Fact: &state.ControllerStarted{Version: strings.Repeat("x", MaxRecord)}}
	if _, err := MarshalRecord(big); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "record 7 (ControllerStarted)") {
		t.Errorf("got %v", err)
	}
	for _, r := range []*state.Record{nil, {}, {Fact: (*state.PodGone)(nil)}} {
		if _, err := MarshalRecord(r); err == nil {
			t.Errorf("%v was encoded", r)
		}
	}
	if _, err := UnmarshalRecord(nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("empty: %v", err)
	}
}

func TestTypesWithoutEncodingAreNamed(t *testing.T) {
	for want, v := range map[string]any{
		"float64": &struct {
			X float64 `pb:"1"`
		}{},
		"int has": &struct {
			X int `pb:"1"`
		}{},
		"twice": &struct {
			X, Y bool `pb:"1"`
		}{},
		"pb:\"0\"": &struct {
			X bool `pb:"0"`
		}{},
		"map keys": &struct {
			X map[int32]bool `pb:"1"`
		}{},
		"list or map": &struct {
			X [][]string `pb:"1"`
		}{},
		"arrays of": &struct {
			X [2]int32 `pb:"1"`
		}{},
		"a pointer to": state.Ref{},
	} {
		if _, err := Marshal(v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%T: got %v, want %q", v, err, want)
		}
	}
}

func FuzzUnmarshalRecord(f *testing.F) {
	b, _ := MarshalRecord(placed())
	f.Add(b)
	b, _ = MarshalRecord(&state.Record{Seq: 1, Fact: &state.Decided{Groups: []state.ReasonGroup{{Reason: 3, Nodes: []uint32{1, 2, 300}}}}})
	f.Add(b)
	b, _ = MarshalRecord(&state.Record{Fact: &state.NodeJoined{Facts: state.NodeFacts{Labels: map[string]string{"a": "b", "": ""}}}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := UnmarshalRecord(b)
		if err != nil {
			return
		}
		once, err := MarshalRecord(r)
		if errors.Is(err, ErrTooLarge) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		again, err := UnmarshalRecord(once)
		if err != nil {
			t.Fatalf("its own encoding is refused: %v", err)
		}
		twice, err := MarshalRecord(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("not canonical: %x, then %x (%v)", once, twice, err)
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte{8, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, decode := range []func([]byte, any) error{Unmarshal, UnmarshalLenient} {
			var e everything
			if decode(b, &e) != nil {
				continue
			}
			once, err := Marshal(&e)
			if err != nil {
				t.Fatal(err)
			}
			var e2 everything
			if err := Unmarshal(once, &e2); err != nil {
				t.Fatalf("its own encoding is refused: %v", err)
			}
			if twice, _ := Marshal(&e2); !bytes.Equal(once, twice) {
				t.Fatalf("not canonical: %x, then %x", once, twice)
			}
		}
	})
}

func placed() *state.Record {
	return &state.Record{
		Seq: 40_000, At: state.Instant{Mono: 12 * time.Second, Wall: 1_795_000_000_000_000_000}, Cause: 39_000, App: "shop-prod",
		Fact: &state.PodPlaced{
			Pod:      state.PodKey{Namespace: "prod", Name: "web-7c9d8f6b5c-x2x4z"},
			Workload: state.Ref{Kind: "Deployment", Namespace: "prod", Name: "web"}, OS: state.Linux, Ordinal: -1,
			Template: state.DigestOf([]byte("t")), Node: "node-0421", Serial: 17,
		},
	}
}

func BenchmarkEncodePodPlaced(b *testing.B) {
	r := placed()
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = AppendRecord(buf[:0], r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(buf)), "B/record")
}

func BenchmarkDecodePodPlaced(b *testing.B) {
	raw, err := MarshalRecord(placed())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := UnmarshalRecord(raw); err != nil {
			b.Fatal(err)
		}
	}
}
