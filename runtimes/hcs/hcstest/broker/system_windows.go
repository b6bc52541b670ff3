package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/windows"
)

// A system is a compute system: a job object and its processes.
type system struct {
	id        string
	document  document
	job       windows.Handle
	processes map[uint32]*process
	audience  audience
	stopping  bool
	stopped   chan struct{}
}

// document is what the double reads of a compute system's; a field that it
// doesn't know is an error, as Windows has it.
type document struct {
	Owner         string
	SchemaVersion struct{ Major, Minor int }

	ShouldTerminateOnLastHandleClosed bool

	Container struct {
		GuestOs struct{ HostName string }
		Storage struct {
			Layers []struct{ ID, Path string }
			Path   string
		}
		MappedDirectories []struct {
			HostPath, ContainerPath string
			ReadOnly                bool
		}
		Memory     *struct{ SizeInMB int64 }
		Processor  *struct{ Maximum, Count, Weight int64 }
		Networking *struct {
			AllowUnqualifiedDNSQuery bool
			Namespace                string
		}
	}

	// Of a guest.
	endpoints []string
	folder    string // its scratch layer
}

// guestDocument is what the double reads of schema 1: a container in a Hyper-V
// guest of its own.
type guestDocument struct {
	SystemType, Name, Owner, LayerFolderPath, HostName string

	Layers            []struct{ ID, Path string }
	ProcessorCount    int64
	MemoryMaximumInMB int64
	MappedDirectories []struct {
		HostPath, ContainerPath string
		ReadOnly                bool
	}
	HvPartition              bool
	EndpointList             []string
	HvRuntime                struct{ ImagePath string }
	AllowUnqualifiedDNSQuery bool
}

// system is the guest's document as the double keeps all: no guest is started,
// and its scratch layer is a volume of the same name.
func (g *guestDocument) system() document {
	d := document{Owner: g.Owner, endpoints: g.EndpointList, folder: g.LayerFolderPath}
	d.SchemaVersion.Major = 1
	d.Container.GuestOs.HostName = g.HostName
	d.Container.Storage.Layers, d.Container.Storage.Path = g.Layers, volume(g.LayerFolderPath)
	d.Container.MappedDirectories = g.MappedDirectories
	return d
}

type (
	systemRef struct {
		*system
		closed chan struct{}
	}
	processRef struct {
		*process
		of     *system
		closed chan struct{}
	}
)

// An operation is what asynchronous calls answer through.
type operation struct {
	once   sync.Once
	done   chan struct{}
	hr     uint32
	result string
	info   []uint64 // pid, in, out, err
}

func (o *operation) finish(hr uint32, result string, info ...uint64) {
	o.once.Do(func() {
		o.hr, o.result, o.info = hr, result, info
		if hr != ok && result == "" {
			o.result = fmt.Sprintf(`{"Error":%d,"ErrorMessage":"the double says so"}`, int32(hr))
		}
		close(o.done)
	})
}

func (b *broker) operationCalls() map[string]handler {
	return map[string]handler{
		"HcsCreateOperation": func(*request) (uint32, []any) {
			b.mu.Lock()
			defer b.mu.Unlock()
			return ok, []any{b.handle(&operation{done: make(chan struct{})})}
		},
		"HcsCloseOperation": b.closeHandle,
		"HcsCancelOperation": func(r *request) (uint32, []any) {
			o := b.operation(r.number(0))
			if o == nil {
				return invalidHandle, nil
			}
			o.finish(operationCancelled, "")
			return ok, nil
		},
		"HcsWaitForOperationResult": func(r *request) (uint32, []any) {
			hr, _, result := b.await(r)
			return hr, []any{result}
		},
		"HcsWaitForOperationResultAndProcessInfo": func(r *request) (uint32, []any) {
			hr, info, result := b.await(r)
			outs := make([]any, 0, 5)
			for i := range 4 {
				v := uint64(0)
				if i < len(info) {
					v = info[i]
				}
				outs = append(outs, v)
			}
			return hr, append(outs, result)
		},
	}
}

func (b *broker) operation(h uint64) *operation {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, _ := b.handles[h].(*operation)
	return o
}

func (b *broker) await(r *request) (uint32, []uint64, any) {
	o := b.operation(r.number(0))
	if o == nil {
		return invalidHandle, nil, none{}
	}
	select {
	case <-o.done:
		if o.result == "" {
			return o.hr, o.info, none{}
		}
		return o.hr, o.info, o.result
	case <-time.After(time.Duration(r.number(1)) * time.Millisecond):
		return operationTimeout, nil, none{}
	}
}

func (b *broker) closeHandle(r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch h := b.handles[r.number(0)].(type) {
	case systemRef:
		close(h.closed)
	case processRef:
		close(h.closed)
	}
	delete(b.handles, r.number(0))
	return ok, nil
}

// onSystem begins an operation on the system of a handle.
func (b *broker) onSystem(do func(*system, *operation, *request)) handler {
	return func(r *request) (uint32, []any) {
		b.mu.Lock()
		ref, isSystem := b.handles[r.number(0)].(systemRef)
		b.mu.Unlock()
		o := b.operation(r.number(1))
		if !isSystem || o == nil {
			return invalidHandle, nil
		}
		go do(ref.system, o, r)
		return ok, nil
	}
}

func (b *broker) systemCalls() map[string]handler {
	return map[string]handler{
		"HcsEnumerateComputeSystems":    b.enumerate,
		"HcsCreateComputeSystem":        b.create,
		"HcsOpenComputeSystem":          b.open,
		"HcsCloseComputeSystem":         b.closeHandle,
		"HcsStartComputeSystem":         b.onSystem(b.start),
		"HcsShutDownComputeSystem":      b.onSystem(b.shutdown),
		"HcsTerminateComputeSystem":     b.onSystem(b.terminate),
		"HcsGetComputeSystemProperties": b.onSystem(b.systemProperties),
	}
}

func (b *broker) enumerate(r *request) (uint32, []any) {
	o := b.operation(r.number(1))
	if o == nil {
		return invalidHandle, nil
	}
	var query struct{ Owners []string }
	if r.text(0) != "" {
		if err := json.Unmarshal([]byte(r.text(0)), &query); err != nil {
			return invalidJSON, nil
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	found := []map[string]any{}
	for id, s := range b.systems {
		if len(query.Owners) == 0 || slices.Contains(query.Owners, s.document.Owner) {
			found = append(found, map[string]any{"Id": id, "SystemType": "Container", "Owner": s.document.Owner, "State": b.kept.Systems[id].State})
		}
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return invalidJSON, nil
	}
	o.finish(ok, string(raw))
	return ok, nil
}

func parse(text string) (document, error) {
	var which struct{ SystemType string }
	if err := json.Unmarshal([]byte(text), &which); err != nil {
		return document{}, err
	}
	if which.SystemType == "" {
		var d document
		err := strictly(text, &d)
		if err == nil && d.SchemaVersion.Major != 2 {
			err = fmt.Errorf("schema %d", d.SchemaVersion.Major)
		}
		return d, err
	}
	var g guestDocument
	if err := strictly(text, &g); err != nil {
		return document{}, err
	}
	if g.SystemType != "Container" || !g.HvPartition || len(g.Layers) == 0 {
		return document{}, errors.New("schema 1 is for guests alone")
	}
	if !there(g.HvRuntime.ImagePath) || !there(g.LayerFolderPath) {
		return document{}, fmt.Errorf("%s and %s: %w", g.HvRuntime.ImagePath, g.LayerFolderPath, os.ErrNotExist)
	}
	return g.system(), nil
}

func strictly(text string, into any) error {
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

func (b *broker) create(r *request) (uint32, []any) {
	id := r.text(0)
	o := b.operation(r.number(2))
	if o == nil {
		return invalidHandle, nil
	}
	d, err := parse(r.text(1))
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker: create:", err)
		if errors.Is(err, os.ErrNotExist) {
			return fileNotFound, nil
		}
		return invalidJSON, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.systems[id] != nil {
		return alreadyExists, nil
	}
	if d.SchemaVersion.Major == 2 {
		if _, mounted := b.kept.Volumes[d.Container.Storage.Path]; !mounted {
			return fileNotFound, nil
		}
	}
	for _, e := range d.endpoints {
		if b.object("Endpoints", e) == nil {
			return elementNotFound, nil
		}
	}
	if n := d.Container.Networking; n != nil && b.object("Namespaces", n.Namespace) == nil {
		return elementNotFound, nil
	}
	job, err := newJob(id)
	if err != nil {
		fmt.Fprintln(os.Stderr, "broker: make a job:", err)
		return notSupported, nil
	}
	s := &system{id: id, document: d, job: job, processes: map[uint32]*process{}, stopped: make(chan struct{})}
	b.systems[id] = s
	b.kept.Systems[id] = &keptSystem{Document: json.RawMessage(r.text(1)), State: "Created", Processes: map[uint32]*keptProcess{}}
	b.save()
	o.finish(ok, "")
	return ok, []any{b.handle(systemRef{s, make(chan struct{})})}
}

func (b *broker) open(r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.systems[r.text(0)]
	if s == nil {
		return noSuchSystem, nil
	}
	return ok, []any{b.handle(systemRef{s, make(chan struct{})})}
}

func (b *broker) start(s *system, o *operation, _ *request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.kept.Systems[s.id]
	switch {
	case k == nil:
		o.finish(alreadyStopped, "")
	case k.State != "Created":
		o.finish(invalidState, "")
	default:
		k.State = "Running"
		b.save()
		o.finish(ok, "")
	}
}

// askAgain is how often processes are asked to end: Wine loses a question that
// comes while a process begins.
const askAgain = 2 * time.Second

// shutdown asks every process to end and is done when all have.
func (b *broker) shutdown(s *system, o *operation, _ *request) {
	b.mu.Lock()
	s.stopping = true
	b.mu.Unlock()
	b.settle(s)
	for {
		b.mu.Lock()
		var running []*process
		for _, p := range s.processes {
			if !p.exited {
				running = append(running, p)
			}
		}
		b.mu.Unlock()
		for _, p := range running {
			if err := p.ask(); err != nil {
				fmt.Fprintln(os.Stderr, "broker: shut down", p.pid, err)
			}
		}
		select {
		case <-s.stopped:
			o.finish(ok, "")
			return
		case <-o.done: // cancelled
			return
		case <-time.After(askAgain):
		}
	}
}

func (b *broker) terminate(s *system, o *operation, _ *request) {
	b.mu.Lock()
	over := b.systems[s.id] != s
	s.stopping = true
	b.mu.Unlock()
	if over {
		o.finish(alreadyStopped, "")
		return
	}
	b.killSystem(s)
	<-s.stopped
	o.finish(ok, "")
}

const processAborted = 1067 // what processes of a terminated system end with

func (b *broker) killSystem(s *system) {
	if err := windows.TerminateJobObject(s.job, processAborted); err != nil {
		fmt.Fprintln(os.Stderr, "broker: terminate", s.id, err)
	}
	b.mu.Lock()
	var all []*process
	for _, p := range s.processes {
		if !p.exited {
			all = append(all, p)
		}
	}
	b.mu.Unlock()
	for _, p := range all {
		_ = windows.TerminateProcess(p.handle, processAborted) // the job's end may have come first
	}
	b.settle(s)
}

// settle ends a system that is to stop once its last process has.
func (b *broker) settle(s *system) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !s.stopping || b.systems[s.id] != s {
		return
	}
	for _, p := range s.processes {
		if !p.exited {
			return
		}
	}
	delete(b.systems, s.id)
	delete(b.kept.Systems, s.id)
	b.save()
	_ = windows.TerminateJobObject(s.job, processAborted) // what the processes left
	_ = windows.CloseHandle(s.job)
	close(s.stopped)
	s.audience.tell(event{eventSystemExited, `{"Status":0,"ExitType":"GracefulExit"}`})
}

// crash ends a system by itself, as a failure of Windows does.
func (b *broker) crash(r *request) (uint32, []any) {
	b.mu.Lock()
	s := b.systems[r.text(0)]
	if s != nil {
		s.stopping = true
	}
	b.mu.Unlock()
	if s == nil {
		return noSuchSystem, nil
	}
	b.killSystem(s)
	return ok, nil
}

func (b *broker) systemProperties(s *system, o *operation, _ *request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := "Stopped"
	if k := b.kept.Systems[s.id]; k != nil {
		state = k.State
	}
	raw, err := json.Marshal(map[string]any{"Id": s.id, "Owner": s.document.Owner, "State": state, "Stopped": state == "Stopped"})
	if err != nil {
		o.finish(invalidJSON, "")
		return
	}
	o.finish(ok, string(raw))
}

// killAll ends everything, for a broker that leaves for good.
func (b *broker) killAll() {
	b.mu.Lock()
	var all []*system
	for _, s := range b.systems {
		s.stopping = true
		all = append(all, s)
	}
	b.mu.Unlock()
	for _, s := range all {
		b.killSystem(s)
		<-s.stopped
	}
}

// audienceOf finds who hears the events of a handle, and when that is closed.
func (b *broker) audienceOf(r *request) (*audience, chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch h := b.handles[r.number(0)].(type) {
	case systemRef:
		return &h.audience, h.closed
	case processRef:
		return &h.audience, h.closed
	}
	return nil, nil
}
