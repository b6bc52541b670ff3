package fence

import (
	"cmp"
	"slices"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Ward is an identity on this node, as its agent sees it.
type Ward struct {
	UID    state.UID     `json:"uid"`
	Class  lease.Class   `json:"class"`
	Grace  time.Duration `json:"grace"`            // its own terminationGracePeriodSeconds
	Held   bool          `json:"held,omitempty"`   // it must not run: the agent waits for a grant or an assignment
	Ending bool          `json:"ending,omitempty"` // the agent has asked it to end
}

// A Word is all that the agent tells, the whole of it each time.
type Word struct {
	Number  uint64       `json:"number"`
	Known   bool         `json:"known"` // the agent knows its assignment; otherwise an older Word stands
	Lease   lease.Keeper `json:"lease"`
	Endless bool         `json:"endless,omitempty"`
	Wards   []Ward       `json:"wards"`
}

// Same says whether two Words say the same, whatever their numbers.
func (w *Word) Same(o *Word) bool {
	return w.Known == o.Known && w.Endless == o.Endless && w.Lease == o.Lease && slices.Equal(w.Wards, o.Wards)
}

// An Answer is what the fencer says to the agent.
type Answer struct {
	Number uint64      `json:"number"` // of the Word that it knows
	Open   []state.UID `json:"open"`   // guarded, and free to run
	Ended  []state.UID `json:"ended"`  // nothing of them runs, and nothing of them can begin
}

// An Event is something that the shell tells.
type Event interface{ event() }

// Told is a Word of the agent.
type Told struct{ Word Word }

// Left says that the agent's process has ended, or hung up.
type Left struct{}

// Done says how an act ended.
type Done struct {
	UID state.UID
	Do  Verb
	OK  bool
}

func (*Told) event() {}
func (*Left) event() {}
func (*Done) event() {}

// A Verb is what an act does.
type Verb uint8

// What acts do. All are answered by Done.
const (
	Open Verb = iota + 1 // processes of the pod may begin
	Term                 // ask its processes to end
	Shut                 // kill them, let none begin, and see that none is left
	Drop                 // forget the pod: take away what Shut left
)

// String is the verb for a log line.
func (v Verb) String() string {
	if names := [...]string{"", "open", "term", "shut", "drop"}; int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// An Act is one thing for the shell to do.
type Act struct {
	Do  Verb
	UID state.UID
}

// The fencer's own times.
const (
	// Takeover is how long the agent has, from when a kill is due, to say that
	// it has begun.
	Takeover = time.Second

	again = 50 * time.Millisecond // until what failed is tried again
	look  = time.Second           // between looks at what is shut
	never = time.Duration(1<<63 - 1)
)

type stage uint8

const (
	fresh    stage = iota + 1
	opening        // it may run as soon as Open is done
	open           // it may run
	ending         // its lease lapsed; killed at killAt
	shutting       // being killed
	shut           // nothing of it runs
)

type ward struct {
	Ward

	stage  stage
	busy   bool // an act is under way
	gone   bool // the agent speaks of it no more
	termed bool
	lapsed time.Duration // when it began to end
	killAt time.Duration
	next   time.Duration // not before: the next try, or look
}

// A Machine is a fencer without its clock and its hands.
type Machine struct {
	lease  lease.Keeper
	number uint64
	wards  []*ward // sorted by UID
	alone  bool
	acts   []Act
}

// New is a fencer that nobody has told anything.
func New() *Machine { return &Machine{alone: true} }

// Step takes in events and decides. It says when the answer changes by itself;
// false: never.
func (m *Machine) Step(now time.Duration, events ...Event) ([]Act, time.Duration, bool) {
	m.acts = nil
	for _, e := range events {
		switch e := e.(type) {
		case *Told:
			m.told(&e.Word)
		case *Left:
			m.alone = true
		case *Done:
			if w := m.find(e.UID); w != nil {
				m.done(now, w, e)
			}
		}
	}
	wake := never
	for i := 0; i < len(m.wards); i++ {
		w := m.wards[i]
		if w.gone && !w.busy && w.stage == fresh {
			m.wards = slices.Delete(m.wards, i, i+1)
			i--
			continue
		}
		wake = min(wake, m.settle(now, w))
	}
	return m.acts, wake, wake != never
}

func (m *Machine) find(uid state.UID) *ward {
	if i, ok := m.index(uid); ok {
		return m.wards[i]
	}
	return nil
}

func (m *Machine) index(uid state.UID) (int, bool) {
	return slices.BinarySearchFunc(m.wards, uid, func(w *ward, u state.UID) int { return w.UID.Compare(u) })
}

func (m *Machine) told(word *Word) {
	m.alone, m.number = false, word.Number
	if !word.Known {
		return // it lost its papers: what the agent before it said stands
	}
	m.lease = word.Lease
	m.lease.Endless = word.Endless
	for _, w := range m.wards {
		w.gone = true
	}
	for _, told := range word.Wards {
		w := m.find(told.UID)
		if w == nil {
			w = &ward{stage: fresh}
			i, _ := m.index(told.UID)
			m.wards = slices.Insert(m.wards, i, w)
		}
		w.Ward, w.gone = told, false
	}
}

func (m *Machine) do(w *ward, v Verb) {
	w.busy = true
	m.acts = append(m.acts, Act{Do: v, UID: w.UID})
}

func (m *Machine) done(now time.Duration, w *ward, d *Done) {
	w.busy = false
	switch {
	case d.Do == Drop:
		w.stage = fresh // to be deleted, or to begin anew
	case d.Do == Term: // it helps or it doesn't
	case d.Do == Open && !d.OK:
		w.next = now + again
	case d.Do == Open && w.stage == opening:
		w.stage = open
	case d.Do == Shut && d.OK:
		w.stage, w.next = shut, now+look
	case d.Do == Shut:
		w.stage, w.next = shutting, now+again
	}
}

// may says whether a ward may run: the agent wants it to, under a lease.
func (m *Machine) may(now time.Duration, w *ward) bool {
	return !w.Held && m.lease.Live(now, w.Class)
}

// settle decides about one ward, and says when to look at it again.
func (m *Machine) settle(now time.Duration, w *ward) time.Duration {
	if w.gone {
		if !w.busy {
			m.do(w, Drop)
		}
		return never
	}
	if m.may(now, w) {
		return m.let(now, w)
	}
	if w.stage == fresh && w.Held {
		w.stage = shutting // it doesn't run yet, and must not begin
	}
	if w.stage == fresh || w.stage == opening || w.stage == open {
		m.lapse(now, w)
	}
	if w.stage == ending {
		if at := m.ends(now, w); at > now {
			return at
		}
		w.stage = shutting
	}
	if w.busy {
		return never
	}
	if now >= w.next { // once shut, too: something may have begun where the kernel can't forbid it
		m.do(w, Shut)
		return never
	}
	return w.next
}

// let opens a ward, and says when its lease ends.
func (m *Machine) let(now time.Duration, w *ward) time.Duration {
	wake := never
	if at, ends := m.lease.Begins(w.Class); ends {
		wake = at
	}
	switch {
	case w.stage == open:
	case w.stage == ending:
		w.stage = open // the agent has a lease again, before anything was killed
	case w.busy:
	case now < w.next && w.stage == opening:
		wake = min(wake, w.next)
	default:
		w.stage = opening
		m.do(w, Open)
	}
	return wake
}

// lapse sets when the ward is killed: with what is left of its lease, and from
// now where it still has one and the agent doesn't want it.
func (m *Machine) lapse(now time.Duration, w *ward) {
	w.stage, w.termed, w.lapsed = ending, false, now
	if at, ends := m.lease.Begins(w.Class); ends && at <= now {
		w.lapsed = at
	}
	w.killAt = w.lapsed + w.Class.Terms().Kill - lease.Margin
}

// ends asks a ward to end where the agent doesn't, and says when it is due again.
func (m *Machine) ends(now time.Duration, w *ward) time.Duration {
	takeover := w.lapsed + Takeover
	switch {
	case w.termed || w.Ending:
	case now < takeover:
		return min(takeover, w.killAt)
	case !w.busy:
		w.termed = true
		w.killAt = min(w.killAt, max(now, takeover)+min(w.Grace, w.Class.Terms().Kill-lease.Margin-Takeover))
		if now < w.killAt {
			m.do(w, Term)
		}
	}
	return w.killAt
}

// Answer is what the agent is to know.
func (m *Machine) Answer() Answer {
	a := Answer{Number: m.number}
	for _, w := range m.wards {
		switch {
		case w.gone:
		case w.stage == open:
			a.Open = append(a.Open, w.UID)
		case w.stage == shut:
			a.Ended = append(a.Ended, w.UID)
		}
	}
	return a
}

// Idle says whether the fencer may go: there is no agent, and no identity that
// has a deadline or is being ended.
func (m *Machine) Idle() bool {
	return m.alone && !slices.ContainsFunc(m.wards, func(w *ward) bool {
		_, ends := m.lease.Begins(w.Class)
		return w.busy || w.stage != shut && (ends || w.Held || w.gone)
	})
}

// Overdue is a ward that should be dead by now and isn't: its lease has ended.
func (m *Machine) Overdue(now time.Duration) (state.UID, bool) {
	for _, w := range m.wards {
		if (w.stage == shutting || w.stage == ending) && w.lapsed != 0 && now >= w.killAt+lease.Margin {
			return w.UID, true
		}
	}
	return state.UID{}, false
}

// Compare sorts wards for a Word.
func Compare(a, b Ward) int { return cmp.Or(a.UID.Compare(b.UID), cmp.Compare(a.Class, b.Class)) }
