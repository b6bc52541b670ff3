package sim

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// controller is the real machine on a made-up disk.
type controller struct {
	w       *world
	machine *reconciler.Machine // nil while it is down
	life    int                 // counts processes: what an earlier one asked for is void
	disk    [][]byte            // durable records, encoded
	blobs   *blobs
	view    *state.State // the fold at the durable watermark

	events  []state.Event
	stepped bool // a step is due at once
	waiting []reconciler.Output
	writing bool
	wake    uint64 // of the newest timer asked for
}

// blobs is what lies beside the log.
type blobs struct {
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest][]byte
	parsed    map[state.Digest]*state.Template
}

// Manifest implements state.Blobs.
func (b *blobs) Manifest(d state.Digest) (*state.Manifest, error) {
	if m := b.manifests[d]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("manifest %s was not stored", d.Short())
}

// Template implements state.Blobs.
func (b *blobs) Template(d state.Digest) (*state.Template, error) {
	if t := b.parsed[d]; t != nil {
		return t, nil
	}
	raw, ok := b.templates[d]
	if !ok {
		return nil, fmt.Errorf("template %s was not stored", d.Short())
	}
	t, err := state.ParseTemplate(raw)
	b.parsed[d] = t
	return t, err
}

func newController(w *world) *controller {
	b := &blobs{manifests: map[state.Digest]*state.Manifest{}, templates: map[state.Digest][]byte{}, parsed: map[state.Digest]*state.Template{}}
	return &controller{w: w, blobs: b, view: state.New(b)}
}

func (c *controller) seq() state.Seq { return state.Seq(len(c.disk)) }

// start begins a process: it replays the disk and goes on.
func (c *controller) start() {
	w := c.w
	c.life++
	c.machine = reconciler.New(c.blobs)
	c.events, c.waiting, c.writing, c.stepped = nil, nil, false, false
	view := state.New(c.blobs)
	for i, raw := range c.disk {
		for _, fold := range []func(*state.Record) error{c.machine.Replay, view.Apply} {
			r, err := recordpb.UnmarshalRecord(raw)
			if err == nil {
				err = fold(r)
			}
			if err != nil {
				w.fail("replay of record %d: %v", i+1, err)
				return
			}
		}
	}
	if len(c.disk) > 0 && !reflect.DeepEqual(view.Snapshot(), c.view.Snapshot()) {
		w.fail("replay gives another state than the one at the watermark")
	}
	c.view = view
	w.logf("controller starts, %d records", len(c.disk))
	c.take(c.machine.Start(w.instant(), state.DigestOf(fmt.Append(nil, w.opts.Seed)), "sim"))
	c.soon()
}

// crash ends the process: what wasn't durable is lost, and so are sessions.
func (c *controller) crash(why string) {
	w := c.w
	if c.machine == nil {
		return
	}
	w.logf("controller crashes: %s", why)
	c.machine = nil
	c.life++
	for _, n := range w.nodes {
		n.hangUp()
	}
	life := c.life
	w.after(w.between(100*time.Millisecond, 20*time.Second), func() {
		if c.life == life {
			c.start()
			w.author.resend()
		}
	})
}

// submit tells the machine what happened, while it is there.
func (c *controller) submit(events ...state.Event) {
	if c.machine == nil {
		return
	}
	c.events = append(c.events, events...)
	c.soon()
}

func (c *controller) soon() {
	if c.stepped {
		return
	}
	c.stepped = true
	c.timed(0)
}

func (c *controller) timed(d time.Duration) {
	life := c.life
	c.w.after(d, func() {
		if c.life == life && c.machine != nil {
			c.step()
		}
	})
}

func (c *controller) step() {
	c.stepped = false
	events := c.events
	c.events = nil
	before := observe(c.machine.State())
	out := c.machine.Step(c.w.instant(), events)
	c.w.obey(before, c.machine.State(), out.Records)
	if err := c.machine.Check(); err != nil {
		c.w.fail("%v", err)
	}
	c.take(out)
}

// take queues a step for the disk and asks for the next.
func (c *controller) take(out reconciler.Output) {
	w := c.w
	for _, r := range out.Records {
		w.logf("record %d %s %+v", r.Seq, r.Fact.Kind(), r.Fact)
	}
	for _, b := range out.Blobs {
		if b.Manifest != nil {
			c.blobs.manifests[b.Digest] = b.Manifest
		} else {
			c.blobs.templates[b.Digest] = b.Template
		}
	}
	if !out.Wake.IsZero() {
		c.timed(out.Wake.Mono - w.now)
	}
	if len(out.Records)+len(out.Assignments)+len(out.Effects) > 0 {
		c.waiting = append(c.waiting, out)
	}
	c.flush()
}

// flush writes what waits, as one batch; what follows leaves afterwards.
func (c *controller) flush() {
	w := c.w
	if c.writing || len(c.waiting) == 0 {
		return
	}
	c.writing = true
	batch := c.waiting
	c.waiting = nil
	life := c.life
	took := w.between(50*time.Microsecond, 4*time.Millisecond)
	if w.chance(200) {
		took = w.between(time.Second, 20*time.Second) // a slow disk
	}
	w.after(took, func() {
		if c.life != life || c.machine == nil {
			return
		}
		c.writing = false
		if w.chance(3000) {
			c.crash("the disk refuses a write")
			return
		}
		c.durable(batch)
		if w.chance(1000) {
			c.crash("between a write and what follows from it")
			return
		}
		c.release(batch)
		c.flush()
	})
}

func (c *controller) durable(batch []reconciler.Output) {
	for _, out := range batch {
		for _, r := range out.Records {
			raw, err := recordpb.MarshalRecord(r)
			if err != nil {
				c.w.fail("encode record %d: %v", r.Seq, err)
				return
			}
			if r.Seq != c.seq()+1 {
				c.w.fail("record %d is written after record %d", r.Seq, c.seq())
				return
			}
			c.disk = append(c.disk, raw)
			back, err := recordpb.UnmarshalRecord(raw)
			if err == nil {
				err = c.view.Apply(back)
			}
			if err != nil {
				c.w.fail("fold at the watermark: %v", err)
				return
			}
		}
	}
}

// release lets assignments and effects out: of each node the newest.
func (c *controller) release(batch []reconciler.Output) {
	w := c.w
	newest := map[state.NodeName]state.Assignment{}
	var order []state.NodeName
	for _, out := range batch {
		for _, a := range out.Assignments {
			if a.Seq > c.seq() {
				w.fail("an assignment as of record %d leaves while %d are durable", a.Seq, c.seq())
			}
			if _, ok := newest[a.Node]; !ok {
				order = append(order, a.Node)
			}
			newest[a.Node] = a
		}
	}
	slices.Sort(order)
	for _, name := range order {
		if n := w.node(name); n != nil {
			n.assign(newest[name])
		}
	}
	for _, out := range batch {
		for _, e := range out.Effects {
			if l, ok := e.(*state.LookUp); ok {
				c.lookUp(l)
			}
		}
	}
}

// lookUp answers from a made-up registry, which sometimes is down.
func (c *controller) lookUp(l *state.LookUp) {
	w, life := c.w, c.life
	w.after(w.between(time.Millisecond, 200*time.Millisecond), func() {
		if c.life != life {
			return
		}
		im := registry(l.Image)
		if w.chance(10) {
			im = state.Image{Name: l.Image, Assumed: true, Failure: state.LookupUnavailable}
		}
		c.submit(&state.ImageLooked{App: l.App, Manifest: l.Manifest, Image: im})
	})
}
