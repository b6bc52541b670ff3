package agent

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

var freeze = flag.Bool("freeze", false, "keep frames in testdata/wire that aren't there yet; those that are stay as they were")

// A frozen frame is one as some release sent it, and what it says.
type frozen struct {
	Type  string          `json:"type"`
	Frame []byte          `json:"frame"`
	Says  json.RawMessage `json:"says"`
}

const frozenFrames = "testdata/wire/v1.json"

// filler fills values with things that differ, so that two fields which are
// exchanged are noticed.
type filler struct {
	n        int
	untagged []string // fields that would never be sent
}

func (f *filler) fill(v reflect.Value, depth int) {
	f.n++
	switch x := v.Addr().Interface().(type) {
	case *netip.Addr:
		*x = netip.AddrFrom4([4]byte{10, 1, byte(f.n >> 8), byte(f.n)})
		return
	case *state.NodeName:
		*x = "n1"
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(int64(1 + f.n%100))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		v.SetUint(uint64(1 + f.n%100))
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", f.n))
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i), depth)
		}
	case reflect.Slice:
		if depth > 6 {
			return
		}
		s := reflect.MakeSlice(v.Type(), 1, 1)
		f.fill(s.Index(0), depth+1)
		v.Set(s)
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key, depth+1)
		f.fill(value, depth+1)
		m.SetMapIndex(key, value)
		v.Set(m)
	case reflect.Pointer:
		if depth > 6 {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			switch field := v.Type().Field(i); field.Tag.Get("pb") {
			case "":
				f.untagged = append(f.untagged, v.Type().String()+"."+field.Name)
			case "-":
			default:
				f.fill(v.Field(i), depth+1)
			}
		}
	default:
	}
}

// frames are one of each kind that today's code sends, by name.
func frames(t *testing.T) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, kind := range []any{upFrame{}, downFrame{}, wireOpen{}} {
		typ := reflect.TypeOf(kind)
		for i := range typ.NumField() {
			frame := reflect.New(typ)
			f := &filler{n: 10 * i}
			f.fill(frame.Elem().Field(i), 0)
			if len(f.untagged) > 0 {
				t.Errorf("%s.%s: never sent, for want of a number: %v", typ.Name(), typ.Field(i).Name, f.untagged)
			}
			v := frame.Interface()
			if o, ok := v.(*wireOpen); ok {
				v = &downFrame{Open: o}
			}
			all[typ.Name()+"."+typ.Field(i).Name] = v
		}
	}
	c := &chunk{}
	(&filler{}).fill(reflect.ValueOf(c).Elem(), 0)
	all["chunk"] = c
	tm, _ := state.NewTemplate(state.Linux, &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:1"}}},
	}, nil)
	body := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "shop"}, Data: map[string]string{"a": "b"}}
	object := &state.Object{
		Ref: state.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "settings"}, Variants: []state.Variant{{OS: state.Linux, Digest: state.Digest{7}, Body: body}},
	}
	e := encoder{cache: &templateCache{}}
	pod := &state.AssignedPod{UID: state.UID{3}, Key: state.PodKey{Namespace: "shop", Name: "web-1"}, Ordinal: -1, Template: tm, Placement: 17, Grace: 30 * time.Second}
	d, err := e.encode(&state.Assignment{Node: "n1", Epoch: 1, Generation: 4, Seq: 19, Pods: []*state.AssignedPod{pod}, Objects: []*state.Object{object}})
	if err != nil {
		t.Fatal(err)
	}
	all["downFrame.Delta"] = &downFrame{Delta: d}
	return all
}

// kept are the frozen frames; those of today's that aren't among them are added
// with -freeze.
func kept(t *testing.T) map[string]frozen {
	t.Helper()
	all := map[string]frozen{}
	raw, err := os.ReadFile(frozenFrames)
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err != nil && (!*freeze || !errors.Is(err, os.ErrNotExist)) {
		t.Fatal(err)
	}
	for name, v := range frames(t) {
		if _, ok := all[name]; ok {
			continue
		}
		if !*freeze {
			t.Errorf("no release's %s is kept: go test ./runtimes/agent -run TestFramesOfEarlierReleases -freeze", name)
			continue
		}
		b, err := recordpb.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		says, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = frozen{reflect.TypeOf(v).Elem().Name(), b, says}
	}
	if *freeze {
		raw, err := json.MarshalIndent(all, "", " ")
		if err == nil {
			err = os.WriteFile(frozenFrames, append(raw, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func empty(t *testing.T, name string) any {
	t.Helper()
	switch name {
	case "upFrame":
		return &upFrame{}
	case "downFrame":
		return &downFrame{}
	case "chunk":
		return &chunk{}
	}
	t.Fatalf("no frame is called %s", name)
	return nil
}

// within says where have lacks something of want.
func within(want, have any, at string) []string {
	switch w := want.(type) {
	case map[string]any:
		h, _ := have.(map[string]any)
		var missing []string
		for k, v := range w {
			missing = append(missing, within(v, h[k], at+"."+k)...)
		}
		return missing
	case []any:
		h, _ := have.([]any)
		if len(h) != len(w) {
			return []string{fmt.Sprintf("%s: %d elements, want %d", at, len(h), len(w))}
		}
		var missing []string
		for i := range w {
			missing = append(missing, within(w[i], h[i], fmt.Sprintf("%s[%d]", at, i))...)
		}
		return missing
	}
	if !reflect.DeepEqual(want, have) {
		return []string{fmt.Sprintf("%s is %v, want %v", at, have, want)}
	}
	return nil
}

func parsed(t *testing.T, raw []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestFramesOfEarlierReleases: what a release has ever sent is read today as it
// was meant: no field has another number, type or meaning, none was taken away,
// and what a newer release adds is skipped.
func TestFramesOfEarlierReleases(t *testing.T) {
	for name, f := range kept(t) {
		newer := protowire.AppendTag(slices.Clone(f.Frame), 1999, protowire.BytesType)
		newer = protowire.AppendBytes(newer, []byte("of a newer release"))
		newer = protowire.AppendVarint(protowire.AppendTag(newer, 2000, protowire.VarintType), 80)
		for _, frame := range [][]byte{f.Frame, newer} {
			v := empty(t, f.Type)
			if err := recordpb.UnmarshalLenient(frame, v); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			says, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range within(parsed(t, f.Says), parsed(t, says), name) {
				t.Error(m)
			}
			if again, err := recordpb.Marshal(v); err != nil || !slices.Equal(again, f.Frame) {
				t.Errorf("%s: sent again it is %x, it was %x (%v)", name, again, f.Frame, err)
			}
		}
	}
}

// raw is a stream that carries frozen frames as they are.
func raw(t *testing.T, s messenger, frame []byte) {
	t.Helper()
	if err := s.SendMsg(wrapperspb.Bytes(frame)); err != nil {
		t.Fatal(err)
	}
}

func listen(t *testing.T, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	s := grpc.NewServer()
	register(s)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); s.Stop() })
	return conn
}

func n1(context.Context) (state.NodeName, error) { return "n1", nil }

// TestOlderAgent: today's controller answers the bytes that the first release's
// agent sends.
func TestOlderAgent(t *testing.T) {
	all := kept(t)
	events := make(chan state.Event, 10)
	hub := NewHub(HubConfig{Submit: func(es ...state.Event) {
		for _, e := range es {
			events <- e
		}
	}})
	conn := listen(t, func(s *grpc.Server) { hub.Register(s, n1) })
	stream, err := conn.NewStream(t.Context(), streamDesc(sessionMethod), "/"+serviceName+"/"+sessionMethod)
	if err != nil {
		t.Fatal(err)
	}
	var down downFrame
	raw(t, stream, all["upFrame.Hello"].Frame)
	if err := receive(stream, &down); err != nil || down.Welcome == nil || down.Speaks == nil || down.Speaks.Version != wireVersion {
		t.Fatalf("hello was answered by %+v, %v", down, err)
	}
	if e, ok := (<-events).(*state.NodeHello); !ok || e.Node != "n1" || e.BootID == "" || e.Facts.Arch == "" {
		t.Errorf("hello became %+v", e)
	}
	raw(t, stream, all["upFrame.Report"].Frame)
	if e, ok := (<-events).(*state.Reported); !ok || len(e.Report.Pods) != 1 || e.Report.Pods[0].UID.IsZero() {
		t.Errorf("the report became %+v", e)
	}
	raw(t, stream, all["upFrame.Renew"].Frame)
	if _, ok := (<-events).(*state.Renewed); !ok {
		t.Error("the renewal is none")
	}
	down = downFrame{}
	if err := receive(stream, &down); err != nil || down.Granted == 0 {
		t.Errorf("the renewal was answered by %+v, %v", down, err)
	}
}

// heard is an agent that notes what it was told.
type heard struct {
	noServer
	what chan string
}

func (h *heard) Assign(a *state.Assignment) { h.what <- fmt.Sprintf("assigned %s", a.Pods[0].Key) }
func (h *heard) Network(*state.Network)     { h.what <- "network" }
func (h *heard) Grant(g state.Grant)        { h.what <- fmt.Sprintf("granted %t", g.Sent > 0 && g.Endless) }
func (h *heard) Resync()                    { h.what <- "resync" }
func (h *heard) Lost(err error)             { h.what <- fmt.Sprint("lost: ", err) }

func (h *heard) Logs(_ context.Context, r LogRequest) (io.ReadCloser, error) {
	h.what <- "logs of " + r.Container
	return io.NopCloser(strings.NewReader("")), nil
}

type noServer struct{}

func (noServer) Logs(context.Context, LogRequest) (io.ReadCloser, error) {
	return nil, runtimes.ErrUnsupported
}

func (noServer) Exec(context.Context, ExecRequest) (int, error) { return 0, runtimes.ErrUnsupported }

func (noServer) PortForward(context.Context, state.UID, uint16, io.ReadWriteCloser) error {
	return runtimes.ErrUnsupported
}

// speaking is a controller that says what it is told to, once it was greeted.
func speaking(t *testing.T, downs ...[]byte) *grpc.ClientConn {
	return listen(t, func(s *grpc.Server) {
		session := func(_ any, stream grpc.ServerStream) error {
			var up upFrame
			if err := receive(stream, &up); err != nil || up.Hello == nil {
				return fmt.Errorf("greeted by %+v: %w", up, err)
			}
			for _, d := range downs {
				if err := stream.SendMsg(wrapperspb.Bytes(d)); err != nil {
					return err
				}
			}
			<-stream.Context().Done()
			return nil
		}
		tunnel := func(_ any, stream grpc.ServerStream) error { return receive(stream, &chunk{}) }
		s.RegisterService(&grpc.ServiceDesc{ServiceName: serviceName, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
			{StreamName: sessionMethod, ServerStreams: true, ClientStreams: true, Handler: session},
			{StreamName: tunnelMethod, ServerStreams: true, ClientStreams: true, Handler: tunnel},
		}}, nil)
	})
}

// TestOlderController: today's agent does what the bytes of the first release's
// controller say.
func TestOlderController(t *testing.T) {
	all := kept(t)
	told := []string{"downFrame.Welcome", "downFrame.Delta", "downFrame.Grant", "downFrame.Granted", "downFrame.Resync", "wireOpen.Logs"}
	var downs [][]byte
	for _, name := range told {
		downs = append(downs, all[name].Frame)
	}
	peer := &heard{what: make(chan string, 10)}
	s, err := Remote(speaking(t, downs...)).Open(t.Context(), Hello{Node: "n1"}, peer)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Welcome().Renew == 0 || s.Welcome().Head.Log.IsZero() {
		t.Errorf("welcome is %+v", s.Welcome())
	}
	for _, want := range []string{"assigned shop/web-1", "granted true", "resync", "logs of s"} {
		if got := <-peer.what; !strings.HasPrefix(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	}
}

// TestTooManyReleasesApart: both ends refuse by name, and say whom to upgrade.
func TestTooManyReleasesApart(t *testing.T) {
	frame := func(v any) []byte {
		b, err := recordpb.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	far := &speaks{Version: wireVersion + 9, Least: wireVersion + 8, Program: "9.9.0"}
	hub := NewHub(HubConfig{Submit: func(...state.Event) {}, Version: "1.0.0"})
	stream, err := listen(t, func(s *grpc.Server) { hub.Register(s, n1) }).NewStream(t.Context(), streamDesc(sessionMethod), "/"+serviceName+"/"+sessionMethod)
	if err != nil {
		t.Fatal(err)
	}
	raw(t, stream, frame(&upFrame{Hello: &wireHello{Node: "n1"}, Speaks: far}))
	err = classOfStatus(receive(stream, &downFrame{}))
	want := "the agent of node n1 (tandem 9.9.0) speaks versions 9 to 10 of the wire, this controller (tandem 1.0.0) speaks 1 to 1: they are too many releases apart; upgrade this controller, one release after the other"
	if !errors.Is(err, runtimes.ErrRejected) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the controller says\n%v, want\n%s", err, want)
	}
	if len(hub.Connected()) > 0 {
		t.Error("it is connected all the same")
	}
	_, err = Remote(speaking(t, frame(&downFrame{Welcome: &wireWelcome{}, Speaks: far}))).Open(t.Context(), Hello{Node: "n1"}, &heard{what: make(chan string, 10)})
	want = "the controller (tandem 9.9.0) speaks versions 9 to 10 of the wire, this agent (tandem of an unknown version) speaks 1 to 1"
	if !errors.Is(err, runtimes.ErrRejected) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the agent says\n%v, want\n%s", err, want)
	}
	newer := &speaks{Version: 3, Least: 2, Program: "3.0.0"}
	if err := newer.understands(nil, "this controller", "the agent"); err == nil || !strings.Contains(err.Error(), "upgrade the agent,") {
		t.Errorf("a newer controller says of the first release's agent: %v", err)
	}
	if err := newer.understands(&speaks{Version: 2, Least: 1}, "this controller", "the agent"); err != nil {
		t.Errorf("one version apart: %v", err)
	}
}
