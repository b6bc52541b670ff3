package main

import (
	"crypto/sha1" //nolint:gosec // a name, no secret
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A broker is the services' state. What must survive a restart is in kept.
type broker struct {
	mu      sync.Mutex
	kept    kept
	systems map[string]*system
	handles map[uint64]any // *operation, systemRef, processRef, objectRef
	last    uint64
	faults  []fault
	notes   []note
	spawn   sync.Mutex // handles are inheritable only meanwhile
}

// kept is state.json.
type kept struct {
	Systems map[string]*keptSystem               `json:"systems"`
	Objects map[string]map[string]map[string]any `json:"objects"` // of the network service: kind, ID
	Volumes map[string]string                    `json:"volumes"` // of a mounted layer: its directory
	Reached bool                                 `json:"reached"` // addresses of networks are this machine's
}

type keptSystem struct {
	Document  json.RawMessage         `json:"document"`
	State     string                  `json:"state"` // Created, Running, Stopped
	Processes map[uint32]*keptProcess `json:"processes"`
}

type keptProcess struct {
	Created  int64  `json:"created"` // tells it from another of the same number
	Exited   bool   `json:"exited"`
	ExitCode uint32 `json:"exitCode"`
}

// A fault is what a test has asked for: the answer of the next calls.
type fault struct {
	Call    string        `json:"call"`
	HRESULT uint32        `json:"hresult"`
	Times   int           `json:"times"`
	Delay   time.Duration `json:"delay"`
	Late    bool          `json:"late"` // the call is taken; its operation ends so
}

// A note is a call with its documents, for golden files.
type note struct {
	Call  string   `json:"call"`
	Texts []string `json:"texts"`
}

func newBroker() (*broker, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	b := &broker{systems: map[string]*system{}, handles: map[uint64]any{}, last: uint64(time.Now().UnixNano()) &^ 0xffff}
	raw, err := os.ReadFile(filepath.Join(root, "state.json"))
	if err == nil {
		err = json.Unmarshal(raw, &b.kept)
	}
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if b.kept.Systems == nil {
		b.kept = kept{Systems: map[string]*keptSystem{}, Objects: map[string]map[string]map[string]any{}, Volumes: map[string]string{}}
	}
	for id, k := range b.kept.Systems {
		if err := b.adopt(id, k); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// save keeps the state; the caller holds mu.
func (b *broker) save() {
	raw, err := json.Marshal(b.kept)
	file := filepath.Join(root, "state.json")
	if err == nil {
		err = os.WriteFile(file+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker: keep the state:", err)
	}
}

// handle makes one; the caller holds mu.
func (b *broker) handle(v any) uint64 {
	b.last += 4
	b.handles[b.last] = v
	return b.last
}

// faulty answers in a call's place; it says so with true.
func (b *broker) faulty(r *request) (uint32, bool) {
	call := r.name
	b.mu.Lock()
	var hit fault
	for i := range b.faults {
		if f := &b.faults[i]; f.Call == call && f.Times > 0 {
			f.Times--
			hit = *f
			break
		}
	}
	b.mu.Unlock()
	time.Sleep(hit.Delay)
	if !hit.Late {
		return hit.HRESULT, hit.HRESULT != ok
	}
	for _, a := range r.args {
		if h, isNumber := a.(uint64); isNumber {
			if o := b.operation(h); o != nil {
				o.finish(hit.HRESULT, "")
				return ok, true
			}
		}
	}
	fmt.Fprintln(os.Stderr, "broker: no operation in", call)
	return notSupported, true
}

func (b *broker) note(r *request) {
	n := note{Call: r.name}
	for _, a := range r.args {
		if s, ok := a.(string); ok {
			n.Texts = append(n.Texts, s)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(n.Texts) > 0 {
		b.notes = append(b.notes, n)
	}
}

type handler = func(*request) (uint32, []any)

// calls are what the broker knows to do.
func (b *broker) calls() map[string]handler {
	all := map[string]handler{
		"test.fault": b.addFault, "test.notes": b.showNotes, "test.crash": b.crash, "test.left": b.left, "test.reset": b.resetNetworks, "test.reach": b.reach, "test.drop": b.drop, "test.leak": b.leak, "test.objects": b.objects,
		"HNSCall": hnsCall, "NameToGuid": nameToGUID,
	}
	for _, group := range []map[string]handler{b.operationCalls(), b.systemCalls(), b.processCalls(), b.networkCalls(), b.layerCalls()} {
		maps.Copy(all, group)
	}
	return all
}

func (b *broker) addFault(r *request) (uint32, []any) {
	var f fault
	if err := json.Unmarshal([]byte(r.text(0)), &f); err != nil {
		return invalidJSON, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, f)
	return ok, nil
}

func (b *broker) showNotes(*request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	raw, err := json.Marshal(b.notes)
	if err != nil {
		return invalidJSON, nil
	}
	return ok, []any{string(raw)}
}

// left says what a test has left behind.
func (b *broker) left(*request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	count := map[string]int{}
	for _, s := range b.kept.Systems {
		if s.State != "Stopped" {
			count["systems"]++
		}
	}
	for kind, objects := range b.kept.Objects {
		if len(objects) > 0 {
			count[kind] = len(objects)
		}
	}
	if n := len(b.kept.Volumes); n > 0 {
		count["volumes"] = n
	}
	raw, err := json.Marshal(count)
	if err != nil {
		return invalidJSON, nil
	}
	return ok, []any{string(raw)}
}

func guidOf(name string) [16]byte {
	sum := sha1.Sum([]byte(name)) //nolint:gosec // a name, no secret
	return [16]byte(sum[:16])
}

func guidText(g [16]byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(g[0:]), binary.LittleEndian.Uint16(g[4:]), binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}

func nameToGUID(r *request) (uint32, []any) {
	g := guidOf(r.text(0))
	return ok, []any{binary.LittleEndian.Uint64(g[:8]), binary.LittleEndian.Uint64(g[8:])}
}

func hnsCall(r *request) (uint32, []any) {
	if r.text(0) == "GET" && r.text(1) == "/globals/version" {
		return ok, []any{`{"Success":true,"Output":{"Major":15,"Minor":4}}`}
	}
	return ok, []any{`{"Success":false,"Error":"the double knows no such path"}`}
}
