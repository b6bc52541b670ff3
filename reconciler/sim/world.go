package sim

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"time"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// Options make a run.
type Options struct {
	Seed     uint64
	Scenario Scenario
	// Story is lived through instead of the one that seed and scenario make.
	Story *Story
	// Cast is a scenario of its own, in place of a named one.
	Cast *Cast
	// Mutate breaks something of the world on purpose, to see that a law
	// notices; "" in earnest.
	Mutate Mutation
	// Plant breaks something of each new machine on purpose; nil in earnest.
	Plant func(*reconciler.Machine)
	// Step calls the machine, where a test does it wrongly on purpose; nil in
	// earnest.
	Step func(*reconciler.Machine, state.Instant, []state.Event) reconciler.Output
	// Image is what agents take an image to mean, where a test does it wrongly on
	// purpose; nil in earnest.
	Image step.Meaning
	// Serve is how nodes program what they are told of Services, likewise.
	Serve Serve
	// Unchecked is for the second run of a seed: only its digest counts, and
	// what the laws say of equal traces is known.
	Unchecked bool
	// Trace is called with each line of the trace; nil: only its digest is kept.
	Trace func(at time.Duration, line string)
}

// A Mutation is a defect of the world that a test plants.
type Mutation string

// The mutations.
const (
	MutateEarly       Mutation = "effects leave before their records are durable"
	MutateLyingDisk   Mutation = "the disk forgets what it said it has"
	MutateKeepSuffix  Mutation = "what was not durable survives a crash of the controller"
	MutateNoFencing   Mutation = "an old report is taken for a new one"
	MutateAbsentGone  Mutation = "what is absent from a report is gone, whatever the report follows"
	MutateWallClock   Mutation = "deadlines go by the wall clock"
	MutateRetryWrite  Mutation = "a failed write is tried again on the same file"
	MutateEndless     Mutation = "an agent runs identities on after its lease"
	MutateNoFencer    Mutation = "nobody ends identities while an agent stands still"
	MutateReply       Mutation = "an agent counts its lease from the reply"
	MutateOtherRender Mutation = "a new version renders the same commit to other bytes"
	MutateNoSums      Mutation = "a damaged record is taken for a good one"
	MutateNoHead      Mutation = "a controller that was replaced goes on writing"
	MutateSweep       Mutation = "an agent deletes the volumes that it finds when it starts"
	MutateFreshDisk   Mutation = "a machine comes back with an empty disk, and nobody notices"
	MutateTellSecret  Mutation = "a secret's value gets into a record"
)

// Result is what came of a run.
type Result struct {
	Seed     uint64
	Scenario Scenario
	Story    *Story `json:"-"`
	Digest   string // of the trace
	Records  int
	Steps    int
	Virtual  time.Duration // simulated time that passed
	Law      string        // the number of the law that was broken: "I1"
	Err      error         // what broke it first
}

// world is one run: a clock that jumps from event to event.
type world struct {
	opts   Options
	story  *Story
	dice   *dice
	now    time.Duration // true time
	wall   int64         // the controller's wall clock at true time 0, with its steps
	queue  timers
	serial uint64
	trace  hash.Hash
	law    string
	err    error
	steps  int

	ctl    *controller
	nodes  []*node
	repo   *repo
	hub    *hub
	laws   *laws
	faults bool          // whether faults may still happen
	undo   []func()      // what lines left that ends with peace
	quiet  time.Duration // since when all is as Git says; 0: it isn't
	still  state.Seq     // how many records there were then
	looked time.Duration // when that was last looked at
}

// timer is something that happens at a time.
type timer struct {
	at     time.Duration
	serial uint64 // makes the order of equal times the order of asking
	do     func()
}

type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	if t[i].at != t[j].at {
		return t[i].at < t[j].at
	}
	return t[i].serial < t[j].serial
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }

// Push implements heap.Interface.
func (t *timers) Push(x any) { *t = append(*t, x.(timer)) }

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

// after does something when d has passed.
func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, timer{w.now + max(0, d), w.serial, do})
}

// logf adds a line to the trace.
func (w *world) logf(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	w.mark([]byte(line))
	if w.opts.Trace != nil {
		w.opts.Trace(w.now, line)
	}
}

// mark adds bytes to the trace's digest.
func (w *world) mark(b []byte) {
	var head [16]byte
	binary.LittleEndian.PutUint64(head[:8], uint64(w.now))
	binary.LittleEndian.PutUint64(head[8:], uint64(len(b)))
	w.trace.Write(head[:])
	w.trace.Write(b)
}

// fail keeps the first broken law, by its number.
func (w *world) fail(law, format string, args ...any) {
	if w.err == nil {
		w.law = law
		w.err = fmt.Errorf("law %s, at %s, record %d: %w", law, w.now, w.ctl.seq(), fmt.Errorf(format, args...))
		w.logf("BROKEN %v", w.err)
	}
}

// Named lengths of a run.
const (
	trouble = 10 * time.Minute // faults and commits happen
	healing = 45 * time.Minute // by then all is as Git says
	settle  = 90 * time.Second // and stays so: longer than a lease
	glance  = time.Second      // how often it is looked whether all is well
)

// epoch is the wall time at which every world begins: 2026-01-05 09:00 UTC.
const epoch = 1767603600 * int64(time.Second)

// Run lives through one world: trouble, then peace, and all must be well.
func Run(opts Options) Result {
	story := opts.Story
	if story == nil {
		var err error
		if story, err = Write(opts.Seed, opts.Scenario, opts.Cast); err != nil {
			return Result{Seed: opts.Seed, Scenario: opts.Scenario, Err: err}
		}
	}
	w := &world{opts: opts, story: story, trace: sha256.New(), wall: epoch, faults: true, laws: newLaws()}
	w.dice = w.throw("world")
	w.hub = &hub{w: w, odd: map[string]string{}, tag: map[string]int{}}
	w.ctl = newController(w)
	w.repo = newRepo(w)
	w.populate()
	w.ctl.start()
	for _, l := range story.Lines {
		w.after(l.At, func() {
			w.logf("# %s", l)
			verbs()[l.Verb].do(w, l.Args)
		})
	}
	ends := story.Lines[len(story.Lines)-1].At
	w.run(ends)
	w.run(ends + healing)
	w.finish()
	return Result{
		Seed: opts.Seed, Scenario: opts.Scenario, Story: story, Digest: hex.EncodeToString(w.trace.Sum(nil)[:8]),
		Records: len(w.ctl.disk), Steps: w.steps, Virtual: w.now, Law: w.law, Err: w.err,
	}
}

// run lets the world go on until a time, or until nothing is left to happen
// and all has converged.
func (w *world) run(until time.Duration) {
	for w.err == nil && len(w.queue) > 0 && w.queue[0].at <= until {
		if !w.faults && w.now-w.looked >= glance {
			w.looked = w.now
			switch {
			case !w.converged():
				w.quiet = 0
			case w.quiet == 0:
				w.quiet, w.still = w.now, w.ctl.seq()
			case w.now-w.quiet > settle:
				if w.ctl.seq() != w.still {
					w.fail("I12", "nothing happens, and %d records are written", w.ctl.seq()-w.still)
				}
				return
			}
		}
		t := heap.Pop(&w.queue).(timer)
		w.now = t.at
		t.do()
		w.steps++
		w.hurries()
	}
	if w.err == nil && w.faults {
		w.now = until
	}
}

// instant is what the controller's clocks say.
func (w *world) instant() state.Instant {
	return state.Instant{Mono: w.mono(), Wall: w.wall + int64(w.now)}
}

// mono is what the controller's steady clock says.
func (w *world) mono() time.Duration {
	if w.opts.Mutate == MutateWallClock {
		return w.now + time.Duration(w.wall-epoch)
	}
	return w.now
}

// text stands for words, without salt: a world has no secrets.
func (w *world) text(clear string) state.Text {
	if clear == "" {
		return state.Text{}
	}
	sum := sha256.Sum256([]byte(clear))
	return state.Text(sum[:16])
}
