package sim

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// controller is the real machine on a made-up disk.
type controller struct {
	w       *world
	dice    *dice
	machine *reconciler.Machine // nil while it is down
	born    time.Duration       // when this process began
	life    int                 // counts processes: what an earlier one asked for is void
	disk    [][]byte            // durable records, encoded
	sums    [][32]byte          // of each record, as the log keeps them
	damage  map[int][]byte      // records that the disk damaged, as they were
	full    time.Duration       // the disk takes nothing until then
	slow    time.Duration       // it takes its time until then
	errors  bool                // the next write fails
	dies    string              // where in the next write the process is killed
	pause   time.Duration       // and for how long it is away then
	stalled time.Duration       // the process stands still until then
	cache   []byte              // a snapshot of the fold, encoded; nil before the first
	cached  int                 // how many records it stands for
	sends   uint64              // numbers reports where fencing is broken on purpose
	blobs   *blobs
	view    *state.State   // the fold at the durable watermark
	network *state.Network // that nodes are told of
	newest  *state.Network // that was made, durable or not

	events  []state.Event
	stepped bool // a step is due at once
	waiting []batch
	writing bool
}

// batch is what one step decided, its records as they are written.
type batch struct {
	reconciler.Output
	raw [][]byte
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
	return &controller{w: w, dice: w.throw("controller"), blobs: b, view: state.New(b), damage: map[int][]byte{}}
}

func (c *controller) seq() state.Seq { return state.Seq(len(c.disk)) }

// start begins a process: it replays the disk and goes on. Half of the time it
// begins at a snapshot: a snapshot is a cache, and changes nothing.
func (c *controller) start() {
	w := c.w
	c.life++
	if !c.sound() {
		return
	}
	c.machine = reconciler.New(c.blobs)
	if w.opts.Plant != nil {
		w.opts.Plant(c.machine)
	}
	c.events, c.waiting, c.writing, c.stepped = nil, nil, false, false
	c.network, c.newest = nil, nil
	from := 0
	if c.cache != nil && c.dice.rng.IntN(2) == 0 {
		from = c.restore()
	}
	view := state.New(c.blobs)
	for i, raw := range c.disk {
		c.replay(raw, view.Apply)
		if i >= from {
			c.replay(raw, c.machine.Replay)
		}
	}
	if w.err != nil {
		return
	}
	if len(c.disk) > 0 && !w.opts.Unchecked {
		w.sameFold("replay", view, c.machine.State())
		w.sameFold("the fold at the watermark", view, c.view)
	}
	for _, n := range w.nodes {
		if n.told > c.seq() {
			w.fail("I11", "%s was told of record %d, %d survived", n.name, n.told, c.seq())
		}
	}
	w.remembers()
	w.laws.rebuild(view)
	c.view = view
	w.logf("controller starts, %d records", len(c.disk))
	c.born = w.now
	out := c.machine.Start(w.instant(), state.DigestOf(fmt.Append(nil, w.opts.Seed)), "sim")
	if !w.opts.Unchecked {
		w.obey(c.machine.State(), out.Records)
	}
	c.take(out)
	c.soon()
}

func (c *controller) replay(raw []byte, fold func(*state.Record) error) {
	r, err := recordpb.UnmarshalRecord(raw)
	if err == nil {
		err = fold(r)
	}
	if err != nil {
		c.w.fail("I13", "replay: %v", err)
	}
}

// restore begins at the snapshot and says how many records it stands for.
func (c *controller) restore() int {
	snap := new(state.Snapshot)
	err := recordpb.Unmarshal(c.cache, snap)
	if err == nil {
		err = c.machine.Restore(snap)
	}
	if err != nil {
		c.w.fail("I13", "restore the snapshot of record %d: %v", c.cached, err)
	}
	return c.cached
}

// crash ends the process: what wasn't durable is lost, and so are sessions.
func (c *controller) crash(why string, away time.Duration) {
	w := c.w
	if c.machine == nil {
		return
	}
	w.logf("controller crashes: %s", why)
	c.machine = nil
	if w.opts.Mutate == MutateLyingDisk {
		c.disk = c.disk[:len(c.disk)-min(len(c.disk), 3)]
		c.sums = c.sums[:len(c.disk)]
	}
	kept := c.waiting
	c.life++
	for _, n := range w.nodes {
		n.hangUp()
	}
	life := c.life
	w.after(away, func() {
		if c.life == life {
			c.start()
			if w.opts.Mutate == MutateKeepSuffix {
				c.waiting = append(kept, c.waiting...)
			}
			w.repo.again()
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
	w := c.w
	if c.asleep() {
		c.timed(c.stalled - w.now)
		return
	}
	c.stepped = false
	events := c.events
	c.events = nil
	if w.opts.Unchecked {
		c.take(c.call(events))
		return
	}
	out := c.call(events)
	w.obey(c.machine.State(), out.Records)
	if out.Network != nil {
		c.newest = out.Network
	}
	if len(out.Records) > 0 {
		w.obeyServices(c.machine.State(), c.newest)
	}
	if err := c.machine.Check(); err != nil {
		w.fail("incremental = full", "%v", err)
	}
	c.take(out)
}

func (c *controller) call(events []state.Event) reconciler.Output {
	if c.w.opts.Step != nil {
		return c.w.opts.Step(c.machine, c.w.instant(), events)
	}
	return c.machine.Step(c.w.instant(), events)
}

// take queues a step for the disk and asks for the next.
func (c *controller) take(out reconciler.Output) {
	w := c.w
	step := batch{Output: out}
	for _, r := range out.Records {
		raw, err := recordpb.MarshalRecord(r)
		if err != nil {
			w.fail("I13", "encode record %d: %v", r.Seq, err)
			return
		}
		if w.opts.Mutate == MutateTellSecret && r.Fact.Kind() == state.KindPodPlaced {
			raw = append(raw, canary...)
		}
		step.raw = append(step.raw, raw)
		w.mark(raw)
		w.tells(r, raw)
		if w.opts.Trace != nil {
			w.opts.Trace(w.now, fmt.Sprintf("record %d %s %+v", r.Seq, r.Fact.Kind(), r.Fact))
		}
	}
	for _, b := range out.Blobs {
		if b.Manifest != nil {
			c.blobs.manifests[b.Digest] = b.Manifest
		} else {
			c.blobs.templates[b.Digest] = b.Template
		}
	}
	if w.opts.Mutate == MutateEarly {
		c.release([]batch{step})
	}
	if !out.Wake.IsZero() {
		c.timed(out.Wake.Mono - w.mono())
	}
	if len(out.Records)+len(out.Assignments)+len(out.Effects)+len(out.Grants) > 0 || out.Network != nil {
		c.waiting = append(c.waiting, step)
	}
	c.flush()
}

// flush writes what waits, as one group; what follows leaves afterwards.
func (c *controller) flush() {
	w := c.w
	if c.writing || len(c.waiting) == 0 {
		return
	}
	c.writing = true
	group := c.waiting
	c.waiting = nil
	life := c.life
	took := c.dice.between(50*time.Microsecond, 4*time.Millisecond)
	if w.now < c.slow || w.chance("write-slow") {
		took = c.dice.between(time.Second, 20*time.Second)
	}
	w.after(took, func() { c.written(life, group) })
}

// written is the end of a write, well or not.
func (c *controller) written(life int, group []batch) {
	w := c.w
	if c.life != life || c.machine == nil {
		return
	}
	if c.asleep() {
		w.after(c.stalled-w.now, func() { c.written(life, group) })
		return
	}
	c.writing = false
	if c.refuses(group) {
		return
	}
	c.durable(group, -1)
	if c.dies != "" || w.chance("crash-after-write") {
		away := c.pause
		if c.dies == "" {
			away = c.dice.between(100*time.Millisecond, 20*time.Second)
		}
		c.dies = ""
		c.crash("between a write and what follows from it", away)
		return
	}
	c.release(group)
	c.flush()
}

// refuses says whether the disk fails this write: full, or an error. The
// controller is fail-stop: it exits, whatever part of the group is on the disk,
// and goes on from what it finds there.
func (c *controller) refuses(group []batch) bool {
	w := c.w
	records := 0
	for _, b := range group {
		records += len(b.raw)
	}
	if records == 0 {
		return false
	}
	away := c.dice.between(100*time.Millisecond, 20*time.Second)
	switch {
	case w.now < c.full:
		c.crash("no space left on the disk", away)
		return true
	case c.dies == "BEFORE":
		c.dies = ""
		c.crash("before a write", c.pause)
		return true
	case c.dies == "TORN":
		c.dies = ""
		c.durable(group, c.dice.rng.IntN(records))
		c.crash("in the middle of a write", c.pause)
		return true
	case c.errors || w.chance("write-fails"):
		c.errors = false
		kept := c.dice.rng.IntN(records + 1)
		w.logf("the disk fails, %d of %d records are on it", kept, records)
		c.durable(group, kept)
		if w.opts.Mutate == MutateRetryWrite {
			return false
		}
		c.crash("an error of the disk", away)
		return true
	}
	return false
}

// durable puts a group on the disk, or only its first records.
func (c *controller) durable(group []batch, most int) {
	w := c.w
	for _, b := range group {
		for i, r := range b.Records {
			if most == 0 {
				return
			}
			most--
			if r.Seq != c.seq()+1 {
				w.fail("I11", "record %d is written after record %d", r.Seq, c.seq())
				return
			}
			c.disk = append(c.disk, b.raw[i])
			c.sums = append(c.sums, sha256.Sum256(b.raw[i]))
			c.replay(b.raw[i], c.view.Apply)
			w.same(b.raw[i])
			if w.err != nil {
				return
			}
		}
	}
	if len(c.disk)-c.cached >= snapshotEvery {
		raw, err := recordpb.Marshal(c.view.Snapshot())
		if err != nil {
			w.fail("I13", "encode a snapshot: %v", err)
			return
		}
		c.cache, c.cached = raw, len(c.disk)
	}
}

// snapshotEvery is how many records lie between two snapshots.
const snapshotEvery = 150

// release lets assignments and effects out: of each node the newest.
func (c *controller) release(group []batch) {
	w := c.w
	newest := map[state.NodeName]state.Assignment{}
	var order []state.NodeName
	for _, b := range group {
		for _, a := range b.Assignments {
			if a.Seq > c.seq() {
				w.fail("records first", "an assignment as of record %d leaves while %d are durable", a.Seq, c.seq())
			}
			if _, ok := newest[a.Node]; !ok {
				order = append(order, a.Node)
			}
			newest[a.Node] = a
		}
	}
	for _, b := range group {
		for _, r := range b.Records {
			if _, ok := r.Fact.(*state.AppDeclared); ok && r.Seq > 3 {
				w.repo.soon() // its source is read from now on
			}
		}
	}
	slices.Sort(order)
	for _, name := range order {
		if n := w.node(name); n != nil {
			n.assign(newest[name])
		}
	}
	c.tell(group)
	for _, b := range group {
		for _, g := range b.Grants {
			if n := w.node(g.Node); n != nil {
				n.grant(g)
			}
		}
		for _, e := range b.Effects {
			switch e := e.(type) {
			case *state.LookUp:
				c.lookUp(e)
			case *state.Reply:
				w.acknowledged(e)
			}
		}
	}
}

// tell tells nodes of the newest network.
func (c *controller) tell(group []batch) {
	before := c.network
	for _, b := range group {
		if b.Network != nil {
			c.network = b.Network
		}
	}
	if c.network == before {
		return
	}
	if c.network.Seq > c.seq() {
		c.w.fail("records first", "a network as of record %d leaves while %d are durable", c.network.Seq, c.seq())
	}
	for _, n := range c.w.nodes {
		n.serve(c.network)
	}
}

// lookUp answers from a made-up registry.
func (c *controller) lookUp(l *state.LookUp) {
	life := c.life
	c.w.after(c.dice.between(time.Millisecond, 200*time.Millisecond), func() {
		if c.life == life {
			c.submit(&state.ImageLooked{App: l.App, Manifest: l.Manifest, Image: c.w.hub.answer(l.Image)})
		}
	})
}
