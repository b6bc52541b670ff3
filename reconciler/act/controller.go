package act

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Nodes takes assignments to agents. It keeps only the newest of each node and
// never blocks.
type Nodes interface {
	Assign(a state.Assignment)
}

// NetworkNodes are Nodes that tell agents of each other and of Services. Only
// the newest counts, and it never blocks.
type NetworkNodes interface {
	Network(n *state.Network)
}

// GrantNodes are Nodes whose agents end identities when their lease does. A
// grant follows the assignment that it was given for, and never blocks.
type GrantNodes interface {
	Grant(g state.Grant)
}

// Images finds out what an image name means. A failed look-up is an Image that
// is Assumed and says why.
type Images interface {
	// secrets are pull Secrets whose credentials are to be tried.
	Look(ctx context.Context, name string, secrets []*state.Object) state.Image
}

// Texts keeps words beside the log.
type Texts interface {
	Put(clear string) (state.Text, error)
	// Name is the one token of somebody's name.
	Name(clear string) (state.Text, error)
	Clear(t state.Text) (string, bool)
}

// Snapshots keeps captures of the fold, so that a start needn't replay all.
type Snapshots interface {
	Save(snap *state.Snapshot) error
	// Latest is the newest snapshot, or nil.
	Latest() (*state.Snapshot, error)
}

// A Meter is told how long things took, for whoever watches. It must not block,
// and must keep nothing of what it is shown.
type Meter interface {
	// Stepped: the machine took events in and decided on records.
	Stepped(took time.Duration, records []*state.Record)
	// Appended: records became durable, and a checkpoint with them.
	Appended(took time.Duration, records []*state.Record)
}

// Config is what a Controller is made of.
type Config struct {
	Log       history.Log
	Library   *Library
	Texts     Texts
	Snapshots Snapshots // nil: none are kept
	Nodes     Nodes
	Images    Images
	LogID     state.Digest // of a new log
	Version   string
	Routing   state.Routing // between nodes; zero: as was recorded before
	Logger    *slog.Logger
	Now       func() state.Instant          // nil: this machine's clocks
	Defaults  func(*corev1.PodTemplateSpec) // fills in a pod template as this version reads it; nil: nothing is filled in
	Committed func([]*state.Record)         // called after each durable batch, in order; nil: nobody asks
	Meter     Meter                         // nil: nobody measures
}

// A Controller is the machine with its goroutines.
type Controller struct {
	cfg     Config
	machine *reconciler.Machine

	mu        sync.Mutex
	queue     []state.Event
	submitted uint64    // events, ever
	stepped   uint64    // of them, those that the machine was given
	decided   state.Seq // the machine's newest record after those
	signal    chan struct{}
	ids       atomic.Uint64
	calls     map[uint64]chan state.Reply

	commits chan reconciler.Output
	failed  chan error

	viewMu  sync.RWMutex
	view    *state.State
	changed chan struct{}
	head    history.Head

	lookups  sync.WaitGroup
	promoter Promoter
	slots    chan struct{}
	snapped  state.Seq
}

// SnapshotEvery is how many records lie between snapshots: what a start and a
// look back replay at most.
const SnapshotEvery = 20_000

// Named limits.
const (
	maxLookups = 8   // image look-ups at a time
	maxQueued  = 256 // steps that wait for the disk

)

// New reads the log up to its head. The machine doesn't run yet.
func New(ctx context.Context, cfg Config) (*Controller, error) {
	if cfg.Now == nil {
		start := time.Now()
		cfg.Now = func() state.Instant {
			now := time.Now()
			return state.Instant{Mono: now.Sub(start), Wall: now.UnixNano()}
		}
	}
	c := &Controller{
		cfg: cfg, machine: reconciler.New(cfg.Library), view: state.New(cfg.Library),
		signal: make(chan struct{}, 1), calls: map[uint64]chan state.Reply{},
		commits: make(chan reconciler.Output, maxQueued), failed: make(chan error, 1),
		changed: make(chan struct{}), slots: make(chan struct{}, maxLookups), head: cfg.Log.Head(),
	}
	c.machine.Defaults(cfg.Defaults)
	if err := c.restore(); err != nil {
		return nil, err
	}
	for r, err := range cfg.Log.Read(ctx, c.view.Seq+1) {
		if err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		if err := c.view.Apply(r); err != nil {
			return nil, err
		}
	}
	// One fold is enough: the machine's is captured from it.
	if c.view.Seq > 0 {
		if err := c.machine.Restore(c.view.Snapshot()); err != nil {
			return nil, fmt.Errorf("take over at record %d: %w", c.view.Seq, err)
		}
	}
	if c.view.Seq != c.head.Seq {
		return nil, fmt.Errorf("the log ends at record %d, its head says %d", c.view.Seq, c.head.Seq)
	}
	return c, nil
}

// restore starts from the newest snapshot, where there is one. A snapshot is a
// cache: one that can't be used is left out, not fatal.
func (c *Controller) restore() error {
	if c.cfg.Snapshots == nil {
		return nil
	}
	snap, err := c.cfg.Snapshots.Latest()
	if err != nil || snap == nil || snap.Seq > c.head.Seq {
		if err != nil {
			c.cfg.Logger.LogAttrs(context.Background(), slog.LevelWarn, "left out a snapshot, replaying the whole log", slog.Any("err", err))
		}
		return nil
	}
	view, err := state.Restore(snap, c.cfg.Library)
	if err != nil {
		return fmt.Errorf("start from the snapshot of record %d: %w", snap.Seq, err)
	}
	c.view, c.snapped = view, snap.Seq
	return nil
}

// Run drives the machine until ctx ends or the log fails. When ctx ends it
// stops cleanly: nodes are parked, what was decided is durable.
func (c *Controller) Run(ctx context.Context) error {
	if err := lease.Check(); err != nil {
		return err
	}
	// What asks the world outside ends with the controller: the next one asks again.
	outside, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.commit(context.WithoutCancel(ctx), outside)
	}()
	c.machine.Route(c.cfg.Routing)
	c.push(c.machine.Start(c.cfg.Now(), c.cfg.LogID, c.cfg.Version))
	err := c.loop(ctx)
	close(c.commits)
	hangUp()
	<-done
	select {
	case failure := <-c.failed:
		err = errors.Join(err, failure)
	default:
	}
	c.lookups.Wait()
	return err
}

// loop steps whenever something happened or is due.
func (c *Controller) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			c.push(c.machine.Step(c.cfg.Now(), append(c.drain(), &state.Stop{})))
			return nil
		case err := <-c.failed:
			return err
		case <-c.signal:
		case <-timer.C:
		}
		events := c.drain()
		began := time.Now()
		out := c.machine.Step(c.cfg.Now(), events)
		if c.cfg.Meter != nil {
			c.cfg.Meter.Stepped(time.Since(began), out.Records)
		}
		c.took(len(events))
		wake := out.Wake
		if !c.push(out) {
			return <-c.failed
		}
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(max(time.Millisecond, wake.Mono-c.cfg.Now().Mono))
		}
	}
}

// push hands a step to the disk. Blobs can be found from now on; they are
// stored before the records.
func (c *Controller) push(out reconciler.Output) bool {
	for _, b := range out.Blobs {
		c.cfg.Library.remember(b)
	}
	if len(out.Records) == 0 && len(out.Assignments) == 0 && len(out.Effects) == 0 && len(out.Grants) == 0 && out.Network == nil {
		return true
	}
	select {
	case c.commits <- out:
		return true
	case err := <-c.failed:
		c.failed <- err
		return false
	}
}

// took notes that the machine was given so many events more.
func (c *Controller) took(events int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stepped += uint64(events)
	c.decided = c.machine.State().Seq
}

func (c *Controller) drain() []state.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.queue
	c.queue = nil
	return events
}

// Submit tells the machine what happened. It never blocks.
func (c *Controller) Submit(events ...state.Event) { c.mark(events...) }

// mark is Submit; what it returns is for Seen.
func (c *Controller) mark(events ...state.Event) (mark uint64) {
	c.mu.Lock()
	c.queue = append(c.queue, events...)
	c.submitted += uint64(len(events))
	mark = c.submitted
	c.mu.Unlock()
	select {
	case c.signal <- struct{}{}:
	default:
	}
	return mark
}

// Seen says whether readers see what the machine made of the events up to a mark.
func (c *Controller) Seen(mark uint64) bool {
	c.mu.Lock()
	stepped, decided := c.stepped, c.decided
	c.mu.Unlock()
	c.viewMu.RLock()
	defer c.viewMu.RUnlock()
	return stepped >= mark && c.view.Seq >= decided
}

// Do asks for something on a person's behalf and waits until what follows from
// it is durable.
func (c *Controller) Do(ctx context.Context, cmd *state.Command) (state.Reply, error) {
	cmd.ID = c.ids.Add(1)
	answer := make(chan state.Reply, 1)
	c.mu.Lock()
	c.calls[cmd.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.calls, cmd.ID)
		c.mu.Unlock()
	}()
	c.Submit(cmd)
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return state.Reply{}, fmt.Errorf("wait for %s: %w", cmd.Verb, ctx.Err())
	}
}

// View reads the state at the durable watermark. The state must not be kept or
// changed.
func (c *Controller) View(read func(s *state.State)) {
	c.viewMu.RLock()
	defer c.viewMu.RUnlock()
	read(c.view)
}

// Changed is closed once the watermark is beyond after.
func (c *Controller) Changed(after state.Seq) <-chan struct{} {
	c.viewMu.RLock()
	defer c.viewMu.RUnlock()
	if c.view.Seq > after {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return c.changed
}

// Records reads the log from a position up to the watermark.
func (c *Controller) Records(ctx context.Context, from state.Seq) iter.Seq2[*state.Record, error] {
	return c.cfg.Log.Read(ctx, from)
}

// Text keeps words beside the log. Where they can't be kept, the token is
// empty: the record stands without its words.
func (c *Controller) Text(clear string) state.Text {
	if clear == "" {
		return state.Text{}
	}
	t, err := c.cfg.Texts.Put(clear)
	if err != nil {
		c.cfg.Logger.LogAttrs(context.Background(), slog.LevelError, "lost the words of a record", slog.Any("err", err))
	}
	return t
}

// Person is the token of somebody's name: one and the same for ever, so that
// nobody counts twice.
func (c *Controller) Person(name string) state.Text {
	if name == "" {
		return state.Text{}
	}
	t, err := c.cfg.Texts.Name(name)
	if err != nil {
		c.cfg.Logger.LogAttrs(context.Background(), slog.LevelError, "lost the name of a record", slog.Any("err", err))
	}
	return t
}

// Words are the words behind a token.
func (c *Controller) Words(t state.Text) string {
	if t.IsZero() {
		return ""
	}
	if clear, ok := c.cfg.Texts.Clear(t); ok {
		return clear
	}
	return "(erased)"
}
