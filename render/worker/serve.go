package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"filippo.io/age"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/overlay"
	"github.com/tandem-gitops/tandem/render/sops"
	"github.com/tandem-gitops/tandem/sources"
)

// How often a worker looks at what it uses, and from which heap on it gives
// memory back after a render.
const (
	watchEvery = 20 * time.Millisecond
	roomy      = 96 << 20
	gcPercent  = 400
)

// Overlay makes the renderer of a worker: render/overlay.
func Overlay(tokens manifest.Tokens, keys *sops.Keys) render.Renderer {
	return overlay.New(overlay.Options{Tokens: tokens, Keys: keys})
}

// Serve is the whole life of a worker: it confines this process for good, then
// renders what comes in until in ends. Its process must exit when it returns: a
// render may still hang.
func Serve(in io.Reader, out io.Writer, renderer func(manifest.Tokens, *sops.Keys) render.Renderer) error {
	s := &server{pipe: newPipe(in, out), messages: make(chan down), ended: make(chan error, 2), renderer: renderer}
	var first down
	if err := s.pipe.dec.Decode(&first); err != nil || first.Limits == nil {
		return errors.New("this command is started by Tandem itself, to render in")
	}
	s.limits = *first.Limits
	// A render lives shortly: garbage is collected seldom while there is room, and
	// harder before the limit is passed.
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(s.limits.Memory / 4 * 3)
	if err := silence(); err != nil {
		return errors.Join(err, s.pipe.send(up{Ready: &ready{Refused: err.Error()}}))
	}
	if err := confine(s.limits); err != nil {
		return errors.Join(err, s.pipe.send(up{Ready: &ready{Refused: err.Error()}}))
	}
	if err := s.pipe.send(up{Ready: &ready{}}); err != nil {
		return fmt.Errorf("tell the controller: %w", err)
	}
	go s.receive()
	go s.work()
	return <-s.ended
}

// silence lets libraries say nothing on the standard error: what the runtime says
// there when it ends is the controller's to read.
func silence() error {
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("be silent: %w", err)
	}
	os.Stderr = nowhere
	log.SetOutput(io.Discard)
	return nil
}

// server is the worker's side of the pipe.
type server struct {
	pipe     *pipe
	limits   Limits
	messages chan down
	ended    chan error
	renderer func(manifest.Tokens, *sops.Keys) render.Renderer
}

// receive ends the worker when the controller does, also while a render hangs.
func (s *server) receive() {
	for {
		var m down
		if err := s.pipe.dec.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			s.ended <- err
			return
		}
		s.messages <- m
	}
}

func (s *server) work() {
	for m := range s.messages {
		if m.Job == nil {
			s.ended <- errors.New("want a job")
			return
		}
		if err := s.render(m.Job); err != nil {
			s.ended <- err
			return
		}
	}
}

// render does one job and sends its result.
func (s *server) render(j *job) error {
	stop := make(chan struct{})
	defer close(stop)
	begun, err := processorTime()
	if err != nil {
		return err
	}
	go s.watch(begun, stop)
	var keys *sops.Keys
	if j.Keys {
		keys = sops.KeysOf(remoteIdentity{s})
	}
	tree := &remoteTree{server: s, looked: map[string]*answer{}}
	snap := sources.Snapshot{Revision: j.Revision, FS: tree}
	result, err := s.renderer(remoteTokens{s}, keys).Render(context.Background(), snap, j.App)
	if err != nil {
		return s.pipe.send(up{Done: &done{Err: err.Error()}})
	}
	if err := s.deliver(&result); err != nil {
		return err
	}
	if held() > roomy {
		debug.FreeOSMemory()
	}
	return nil
}

func (s *server) deliver(result *render.Result) error {
	d := &done{Apps: result.Apps, Pipelines: result.Pipelines, Access: result.Access, Problems: result.Problems}
	var all []state.Body
	if m := result.Manifest; m != nil {
		d.Manifest = &head{Reads: m.Reads, Pairs: m.Pairs, Warnings: m.Warnings, Digest: m.Digest}
		for _, o := range m.Objects {
			oh := objectHead{Ref: o.Ref}
			for i := range o.Variants {
				v := &o.Variants[i]
				oh.Variants = append(oh.Variants, variantHead{OS: v.OS, Digest: v.Digest, Origin: v.Origin})
				all = append(all, v.Body)
			}
			d.Manifest.Objects = append(d.Manifest.Objects, oh)
		}
	}
	if err := s.pipe.send(up{Done: d}); err != nil {
		return err
	}
	if d.Manifest == nil {
		return nil
	}
	m := <-s.messages
	if m.Want == nil {
		return errors.New("want to be told which bodies are wanted")
	}
	out := &bodies{JSON: make([][]byte, len(m.Want.Variants))}
	for i, n := range m.Want.Variants {
		raw, err := json.Marshal(all[n])
		if err != nil {
			return fmt.Errorf("marshal %s: %w", all[n].GetName(), err)
		}
		out.JSON[i] = raw
	}
	return s.pipe.send(up{Bodies: out})
}

// watch ends the worker when the render passes a limit.
func (s *server) watch(begun time.Duration, stop chan struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		limit := ""
		if used, err := processorTime(); err == nil && used-begun > s.limits.CPU {
			limit = limitCPU
		}
		if held() > s.limits.Memory {
			limit = limitMemory
		}
		if limit != "" {
			s.ended <- errors.Join(fmt.Errorf("the render passed its limit of %s", limit), s.pipe.send(up{Passed: &passed{limit}}))
			return
		}
	}
}

// held is the memory that the Go runtime has from the operating system, in bytes.
func held() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64()) //nolint:gosec // bytes of memory
}

// ask asks the controller. Where that fails the worker is about to end, so it
// does not matter that nobody looks at the error of some answers.
func (s *server) ask(a ask) *answer {
	if err := s.pipe.send(up{Ask: &a}); err != nil {
		return &answer{Err: toWire(err)}
	}
	if m := <-s.messages; m.Answer != nil {
		return m.Answer
	}
	return &answer{Err: &wireError{Text: "want an answer"}}
}

// remoteTokens implements manifest.Tokens: the key stays with the controller.
type remoteTokens struct{ server *server }

// Token implements manifest.Tokens.
func (t remoteTokens) Token(value []byte) string {
	return string(t.server.ask(ask{Op: opToken, Value: value}).Secret)
}

// remoteIdentity implements age.Identity: what it opens is the key of one file.
type remoteIdentity struct{ server *server }

// Unwrap implements age.Identity.
func (i remoteIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	a := i.server.ask(ask{Op: opUnwrap, Stanzas: stanzas})
	if a.Err != nil {
		return nil, a.Err
	}
	if len(a.Secret) == 0 {
		return nil, age.ErrIncorrectIdentity
	}
	return a.Secret, nil
}
