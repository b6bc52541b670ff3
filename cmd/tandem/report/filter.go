package report

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Filter says which records are wanted. Empty fields want all.
type Filter struct {
	App     state.AppName
	Object  string // deploy/web, db-2
	Node    string // what happened on it, or to it
	Kind    string // PodPlaced, or a word of WHAT
	Actor   string
	Commit  string // whole, or the beginning of it
	Outcome string // a word of OUTCOME; or OutcomeBad
	Since   time.Time
	Until   time.Time
	From    state.Seq
	To      state.Seq // 0: the newest
	Limit   int       // the newest; 0: all
	Follow  bool
	All     bool // also what isn't worth a line of its own
}

// OutcomeBad stands for every outcome in which something is wrong, or held.
const OutcomeBad = "bad"

// minCommit is how much of a commit's hash has to be given.
const minCommit = 4

// Check refuses what can't be meant.
func (f *Filter) Check() error {
	if c := f.Commit; c != "" && (len(c) < minCommit || strings.Trim(c, "0123456789abcdef") != "") {
		return fmt.Errorf("commit %q: want a commit's hash, or %d or more of its first digits", c, minCommit)
	}
	if f.Limit < 0 {
		return fmt.Errorf("limit %d: want a number from 0", f.Limit)
	}
	return nil
}

// ParseFilter reads a query; now is what "today" and durations count from.
func ParseFilter(q url.Values, now time.Time) (Filter, error) {
	f := Filter{
		App: state.AppName(q.Get("app")), Object: q.Get("object"), Kind: q.Get("kind"), Actor: q.Get("actor"),
		Node: q.Get("node"), Commit: q.Get("commit"), Outcome: q.Get("outcome"),
		Follow: q.Get("follow") == "true", All: q.Get("all") == "true",
	}
	var err error
	if f.Since, err = ParseTime(q.Get("since"), now); err != nil {
		return f, fmt.Errorf("since: %w", err)
	}
	if f.Until, err = ParseTime(q.Get("until"), now); err != nil {
		return f, fmt.Errorf("until: %w", err)
	}
	if s := q.Get("from"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return f, fmt.Errorf("from %q: want a number", s)
		}
		f.From = state.Seq(n)
	}
	if s := q.Get("to"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return f, fmt.Errorf("to %q: want a number", s)
		}
		f.To = state.Seq(n)
	}
	if s := q.Get("limit"); s != "" {
		if f.Limit, err = strconv.Atoi(s); err != nil {
			return f, fmt.Errorf("limit %q: want a number from 0", s)
		}
	}
	err = f.Check()
	return f, err
}

// Query is what ParseFilter reads.
func (f *Filter) Query() url.Values {
	q := url.Values{}
	set := func(k, v string) {
		if v != "" {
			q.Set(k, v)
		}
	}
	set("app", string(f.App))
	set("object", f.Object)
	set("kind", f.Kind)
	set("actor", f.Actor)
	set("node", f.Node)
	set("commit", f.Commit)
	set("outcome", f.Outcome)
	for k, t := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !t.IsZero() {
			q.Set(k, t.Format(time.RFC3339Nano))
		}
	}
	if f.From > 0 {
		q.Set("from", strconv.FormatUint(uint64(f.From), 10))
	}
	if f.To > 0 {
		q.Set("to", strconv.FormatUint(uint64(f.To), 10))
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	if f.Follow {
		q.Set("follow", "true")
	}
	if f.All {
		q.Set("all", "true")
	}
	return q
}

// ParseTime reads a moment as people write it: "today", "14:05", "2026-11-23",
// "2026-11-23 14:05", RFC 3339, or "2h" for two hours ago. Empty is none.
func ParseTime(s string, now time.Time) (time.Time, error) {
	now = now.Local()
	switch s {
	case "":
		return time.Time{}, nil
	case "now":
		return now, nil
	case "today":
		return time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location()), nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want a time such as 14:05, \"2026-11-23 14:05\", today or 2h", s)
}

// Match says whether a line is wanted.
func (f *Filter) Match(l *Line) bool {
	switch {
	case f.App != "" && l.App != f.App && !slices.Contains(l.Apps, f.App),
		f.Kind != "" && !strings.EqualFold(l.Kind, f.Kind) && !strings.EqualFold(l.What, f.Kind),
		f.Actor != "" && l.Actor != f.Actor,
		f.Node != "" && l.Node != f.Node,
		f.Commit != "" && !sameCommit(f.Commit, l.Commit),
		f.Outcome != "" && !strings.EqualFold(l.Outcome, f.Outcome) && (f.Outcome != OutcomeBad || !l.Bad),
		!f.Since.IsZero() && l.At.Before(f.Since),
		!f.Until.IsZero() && l.At.After(f.Until),
		l.Seq < f.From,
		f.To > 0 && l.Seq > f.To:
		return false
	}
	if f.Object != "" {
		return names(f.Object, l.Object) || l.Node != "" && names(f.Object, state.Ref{Kind: "Node", Name: l.Node})
	}
	// The scheduler's answers explain others; a wait for the predecessor is how
	// a StatefulSet goes.
	return f.All || f.Kind != "" || l.Kind != state.KindDecided.String()
}

// sameCommit says whether one of two is the beginning of the other.
func sameCommit(a, b string) bool {
	return b != "" && (strings.HasPrefix(a, b) || strings.HasPrefix(b, a))
}

// names says whether people would call an object so.
func names(written string, ref state.Ref) bool {
	short, rest, ok := strings.Cut(written, "/")
	if !ok {
		return ref.Name == written
	}
	return kinds()[strings.ToLower(short)] == ref.Kind && ref.Name == rest
}

// A Picker takes lines in order and gives those that a filter wants.
type Picker struct {
	filter Filter
	last   []Line
	live   bool // the past is told
}

// NewPicker begins before the first line.
func NewPicker(f Filter) *Picker { return &Picker{filter: f} }

// Take gives what can be told at once; with a limit the past waits for Rest.
func (p *Picker) Take(l Line) []Line {
	if !p.filter.Match(&l) {
		return nil
	}
	if p.live || p.filter.Limit == 0 {
		return []Line{l}
	}
	p.last = append(p.last, l)
	if len(p.last) >= 2*p.filter.Limit {
		p.last = append([]Line(nil), p.last[len(p.last)-p.filter.Limit:]...)
	}
	return nil
}

// Rest gives the newest lines of the past; from then on Take gives each.
func (p *Picker) Rest() []Line {
	out := p.last
	if len(out) > p.filter.Limit {
		out = out[len(out)-p.filter.Limit:]
	}
	p.last, p.live = nil, true
	return out
}
