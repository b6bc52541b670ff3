package state

import (
	"slices"
	"strings"
	"time"
)

// PipelineName names a Pipeline.
type PipelineName string

// Pipeline is what `kind: Pipeline` of tandem.dev/v1 says: the branches that a
// commit goes through, and what must hold before each. It is read at the root's
// ref, never at the commit that is judged.
type Pipeline struct {
	Name   PipelineName `json:"name" pb:"1"`
	Repo   string       `json:"repo,omitempty" pb:"2"` // of the stages' branches; empty: the root's own
	Stages []Stage      `json:"stages" pb:"3"`         // each after those that it names
	At     Origin       `json:"at,omitzero" pb:"4"`
}

// A Stage is one branch, that of an Application, and what a commit needs to get
// there.
type Stage struct {
	Name    string   `json:"name" pb:"1"`
	App     AppName  `json:"application" pb:"2"`
	After   []string `json:"after,omitempty" pb:"3"` // stages that must have tested the commit; none: nothing is promoted here
	Auto    bool     `json:"auto,omitempty" pb:"4"`  // a commit is promoted without anybody's asking
	Gates   []Gate   `json:"gates,omitempty" pb:"5"`
	Freezes []Freeze `json:"freezes,omitempty" pb:"6"`
}

// GateKind says what a gate asks for.
type GateKind uint8

// The kinds of gates. Those from GatePlan to GateQueue are always there.
const (
	GateHealthy    GateKind = iota + 1 // the stages before ran the commit, healthy, for as long
	GateSigned                         // every commit between carries a verified signature
	GateApprovals                      // so many people of these said yes
	GateWindow                         // days and times of day
	GateExternal                       // a system outside said yes to the commit
	GatePlan                           // the target's own render has no problem, and nothing is held
	GateQuarantine                     // the tree hasn't failed on a stage
	GateFreeze                         // no freeze is on
	GateSuspended                      // the stage isn't suspended
	GateBranch                         // the stage's branch is there and can be moved
	GateQueue                          // no other push to the branch is under way
	GateJobs                           // a Job succeeded while the stages before ran the commit
)

// String is the gate's word in the text and on the command line.
func (k GateKind) String() string {
	names := [...]string{"", "healthy", "signed", "approvals", "window", "external", "plan", "quarantine", "freeze", "suspended", "branch", "queue", "job"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// A Gate is one condition of a stage.
type Gate struct {
	Kind      GateKind      `json:"kind" pb:"1"`
	For       time.Duration `json:"for,omitempty" pb:"2"`       // healthy
	Count     int32         `json:"count,omitempty" pb:"3"`     // approvals
	Groups    []string      `json:"groups,omitempty" pb:"4"`    // approvals: whose members may
	Users     []Text        `json:"users,omitempty" pb:"5"`     // approvals: who else may
	NotAuthor bool          `json:"notAuthor,omitempty" pb:"6"` // approvals: authors of the commits between may not
	Days      uint8         `json:"days,omitempty" pb:"7"`      // window: bit time.Weekday; 0: every day
	From      int32         `json:"from,omitempty" pb:"8"`      // window: minute of the day
	To        int32         `json:"to,omitempty" pb:"9"`        // window: minute of the day, exclusive
	Zone      string        `json:"timeZone,omitempty" pb:"10"`
	Name      string        `json:"name,omitempty" pb:"11"`   // external: of the check; signed: path of the allowed signers; job: of the root's CronJob
	Secret    string        `json:"secret,omitempty" pb:"12"` // external: name of the Secret whose key signs the answer

	Namespace string `json:"namespace,omitempty" pb:"175"` // job: of the CronJob

	// Names are Users in clear, between the text and the shell that makes tokens
	// of them; they are in no record.
	Names []string `json:"-"`
}

// A Freeze is a time in which nothing is promoted.
type Freeze struct {
	From string `json:"from" pb:"1"` // "2026-12-18", the first day
	To   string `json:"to" pb:"2"`   // the last day
	Zone string `json:"timeZone,omitempty" pb:"3"`
	Why  Text   `json:"reason,omitzero" pb:"115"`

	// Reason is Why in clear, between the text and the shell.
	Reason string `json:"-"`
}

// A Line is a pipeline and how far commits have come in it.
type Line struct {
	Spec     Pipeline     `pb:"1"`
	Declared Instant      `pb:"2"`
	Stages   []*LineUp    `pb:"3"` // as in Spec
	Failed   []Quarantine `pb:"4"` // oldest first
}

// LineUp is what a stage's branch has had.
type LineUp struct {
	Name      string    `pb:"1"`
	App       AppName   `pb:"2"`
	Head      Commit    `pb:"3"` // of the branch, as last seen
	Trials    []Trial   `pb:"4"` // oldest first; the last is what runs
	Suspended bool      `pb:"5"`
	Until     int64     `pb:"6"` // wall nanoseconds; 0: until resumed
	Passed    Seq       `pb:"7"` // the newest Trial of the stage before that came here
	Reviews   []Review  `pb:"8"`
	Checks    []Check   `pb:"9"`
	Tried     []Tried   `pb:"10"`
	Jobs      []GateJob `pb:"175"`
	Why       Text      `pb:"115"` // it is suspended
	By        Text      `pb:"116"` // who suspended it
}

// A Trial is a commit on a stage. Its soak starts when the application has
// converged on it, and starts again whenever the application isn't available as
// a whole (a pod unready, a node lost, a rollout), when a container restarts,
// and when another commit comes. Time in which no controller looked doesn't
// count.
type Trial struct {
	Seq     Seq           `pb:"1"` // of the record that began it
	Commit  Commit        `pb:"2"`
	Healthy bool          `pb:"3"`
	Since   Instant       `pb:"4"` // healthy since, less the time in which nobody looked
	Soaked  time.Duration `pb:"5"` // of a trial that is over
	Proven  bool          `pb:"6"` // was healthy once
	Failed  bool          `pb:"7"`
}

// Soak is how long the commit has been healthy without a break.
func (t *Trial) Soak(now Instant) time.Duration {
	if t.Healthy {
		return max(0, now.Mono-t.Since.Mono)
	}
	return t.Soaked
}

// A Review is what was found out about going from the branch's head to a commit.
type Review struct {
	From     string  `pb:"1"`
	To       string  `pb:"2"`
	Commits  int32   `pb:"3"` // between the two
	Authors  []Text  `pb:"4"` // of all of them: signers, and the names and addresses they give
	Unsigned int32   `pb:"5"` // commits without a verified signature
	Forward  bool    `pb:"6"` // From is an ancestor of To
	Problems int32   `pb:"7"` // of the target's render of To
	Held     int32   `pb:"8"` // workloads of it that would be held
	Detail   Text    `pb:"9"`
	At       Instant `pb:"10"`
}

// A Check is what a system outside said of a commit.
type Check struct {
	Name   string `pb:"1"`
	Commit string `pb:"2"`
	OK     bool   `pb:"3"`
	Seq    Seq    `pb:"4"`
	Time   int64  `pb:"115"` // when it was said, by whoever said it: wall nanoseconds
	Detail Text   `pb:"116"`
}

// Tried is a promotion that ended: it isn't opened again by itself while the
// branch is where it was, and never where From is empty: a person said no.
type Tried struct {
	Trial Seq    `pb:"1"`
	From  string `pb:"2"`
}

// A Quarantine is a tree that failed: it isn't promoted without an override.
type Quarantine struct {
	Tree  string `pb:"1"`
	Stage string `pb:"2"`
	Seq   Seq    `pb:"3"`
}

// A Promotion was asked for and hasn't ended.
type Promotion struct {
	ID       string            `pb:"1"` // "p-17"
	Pipeline PipelineName      `pb:"2"`
	Stage    string            `pb:"3"`
	Commit   Commit            `pb:"4"` // what was tested; of a rollback, whose tree comes back
	Trial    Seq               `pb:"5"`
	Rollback bool              `pb:"6"`
	Override bool              `pb:"7"`
	By       Text              `pb:"8"` // zero: nobody asked
	Seq      Seq               `pb:"9"`
	At       Instant           `pb:"10"`
	Votes    []Vote            `pb:"11"`
	Started  *PromotionStarted `pb:"12"`
}

// A Vote is what a person said of a promotion; the newest of each counts.
type Vote struct {
	By      Text     `pb:"1"`
	Approve bool     `pb:"2"`
	As      []string `pb:"3"` // groups that they were in
	Seq     Seq      `pb:"4"`
}

// Limits of what is remembered.
const (
	maxTrials     = 32 // commits a stage
	maxQuarantine = 64 // trees a pipeline
	maxChecks     = 32 // answers a stage
	maxReviews    = 8  // candidates a stage
	maxTried      = 32 // promotions a stage
)

// Stage finds a stage by its name, or nil.
func (l *Line) Stage(name string) (*Stage, *LineUp) {
	for i := range l.Spec.Stages {
		if l.Spec.Stages[i].Name == name {
			return &l.Spec.Stages[i], l.Stages[i]
		}
	}
	return nil, nil
}

// Quarantined says whether a tree failed somewhere.
func (l *Line) Quarantined(tree string) bool {
	return slices.ContainsFunc(l.Failed, func(q Quarantine) bool { return q.Tree == tree })
}

// Current is what runs on the stage, or nil.
func (u *LineUp) Current() *Trial {
	if len(u.Trials) == 0 {
		return nil
	}
	return &u.Trials[len(u.Trials)-1]
}

// SortedLines are the pipelines by name.
func (s *State) SortedLines() []*Line {
	out := make([]*Line, 0, len(s.Lines))
	for _, l := range s.Lines {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *Line) int { return strings.Compare(string(a.Spec.Name), string(b.Spec.Name)) })
	return out
}

// SortedPromotions are the open promotions, the oldest first.
func (s *State) SortedPromotions() []*Promotion {
	out := make([]*Promotion, 0, len(s.Promotions))
	for _, p := range s.Promotions {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Promotion) int { return int(int64(a.Seq) - int64(b.Seq)) })
	return out
}

// Check is what a system outside said last of a commit, or nil.
func (u *LineUp) Check(name, commit string) *Check {
	for i := range u.Checks {
		if c := &u.Checks[i]; c.Name == name && c.Commit == commit {
			return c
		}
	}
	return nil
}
