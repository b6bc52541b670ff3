package sim

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// repo is the repository that authors write, and the reader of it that the
// controller has: a poll some time after each commit, a snapshot of the head.
type repo struct {
	w       *world
	specs   []*spec // the work tree
	commits []*commit
	head    int // index of the commit that the branch is at
	due     bool
	polling bool

	down     time.Duration // it doesn't answer until then
	gone     time.Duration // the branch isn't there until then
	lost     bool          // the machine was told so
	renderer int           // its version, where another one renders other bytes on purpose
	extra    bool          // the next commit is huge
	bad      bool          // the next commit has mistakes
}

// commit is a revision: its whole text.
type commit struct {
	number int
	parent int
	specs  []*spec
	huge   bool
	bad    bool // its text has mistakes
}

func (c *commit) revision() state.Revision {
	return state.Revision(fmt.Sprintf("main@sha1:%040x", c.number))
}

func newRepo(w *world) *repo {
	return &repo{w: w, head: 0, commits: []*commit{{number: 0, parent: -1}}}
}

// find is a workload of the work tree; nil: there is none.
func (r *repo) find(name string) *spec {
	if i := slices.IndexFunc(r.specs, func(s *spec) bool { return s.name == name }); i >= 0 {
		return r.specs[i]
	}
	return nil
}

// edited commits what is edited at this instant, as one commit.
func (r *repo) edited() {
	if r.due {
		return
	}
	r.due = true
	r.w.after(0, func() {
		r.due = false
		c := &commit{number: len(r.commits), parent: r.head, huge: r.extra, bad: r.bad}
		r.extra, r.bad = false, false
		for _, s := range r.specs {
			c.specs = append(c.specs, s.clone())
		}
		r.commits = append(r.commits, c)
		r.head = c.number
		r.w.logf("commit %d on %d: %d workloads", c.number, c.parent, len(c.specs))
		r.soon()
	})
}

// soon polls when the poll is due, or a hook says so: two commits may come
// before that.
func (r *repo) soon() {
	if r.polling {
		return
	}
	r.polling = true
	r.w.after(r.w.dice.between(0, 8*time.Second), r.poll)
}

func (r *repo) poll() {
	r.polling = false
	w := r.w
	if away := max(r.down, r.gone); w.now < away {
		if !r.lost {
			r.lost = true
			w.ctl.submit(&state.SourceStatus{App: state.RootApp, Detail: w.text("the server doesn't answer")})
		}
		r.polling = true
		w.after(away-w.now+w.dice.between(0, 10*time.Second), r.poll)
		return
	}
	if r.lost {
		r.lost = false
		w.ctl.submit(&state.SourceStatus{App: state.RootApp, OK: true})
	}
	if len(r.commits) > 1 {
		r.deliver()
	}
}

// again is the shell reading the source anew, as it does when it starts.
func (r *repo) again() {
	if r.w.opts.Mutate == MutateOtherRender {
		r.renderer++
	}
	r.soon()
}

// deliver hands the head to the controller: the root, then each application.
func (r *repo) deliver() {
	w := r.w
	c := r.commits[r.head]
	rev := c.revision()
	said := state.Commit{Hash: rev.Commit(), Author: w.text("Ada")}
	if c.bad {
		problems := []state.Problem{{Object: state.Ref{Kind: "Deployment", Name: "app"}, Cause: "want a string, got 80"}}
		w.ctl.submit(&state.RootRendered{Revision: rev, Commit: said, Problems: problems, Detail: w.text("want a string"), Rewound: r.rewound(state.RootApp, c)})
		return
	}
	split := map[state.AppName][]*spec{state.RootApp: nil}
	for _, s := range c.specs {
		name := state.AppName(s.app)
		if s.app == "" {
			name = state.RootApp
		}
		split[name] = append(split[name], s)
	}
	root := &state.RootRendered{
		Revision: rev, Commit: said, Manifest: manifest(state.RootApp, split[state.RootApp], ranks(c.specs), c.huge, r.renderer), Rewound: r.rewound(state.RootApp, c),
	}
	events := []state.Event{root}
	for _, name := range sortedKeys(split) {
		if name == state.RootApp {
			continue
		}
		root.Apps = append(root.Apps, state.Application{Name: name, Path: string(name)})
		events = append(events, &state.Rendered{
			App: name, Revision: rev, Commit: said, Manifest: manifest(name, split[name], false, false, r.renderer), Rewound: r.rewound(name, c),
		})
	}
	w.ctl.submit(events...)
}

// rewound says whether a commit doesn't follow from the one that an application has.
func (r *repo) rewound(app state.AppName, c *commit) bool {
	m := r.w.ctl.machine
	if m == nil {
		return false
	}
	a := m.State().Apps[app]
	if a == nil || a.Revision == "" {
		return false
	}
	had := number(a.Revision)
	return !r.follows(had, c.number)
}

// number is a revision's commit; -1: it has none.
func number(rev state.Revision) int {
	n, err := strconv.ParseInt(rev.Commit(), 16, 32)
	if err != nil {
		return -1
	}
	return int(n)
}

// follows says whether commit b is a or comes after it.
func (r *repo) follows(a, b int) bool {
	for b >= 0 && b < len(r.commits) {
		if a == b {
			return true
		}
		b = r.commits[b].parent
	}
	return false
}

// rewind moves the branch back, as a forced push does, so that what came since
// isn't in it any more.
func (r *repo) rewind(n int) {
	to := r.head
	for range n {
		if p := r.commits[to].parent; p > 0 {
			to = p
		}
	}
	if to == r.head || r.due {
		return
	}
	r.w.logf("the branch is forced back from commit %d to %d", r.head, to)
	r.head = to
	r.specs = nil
	for _, s := range r.commits[to].specs {
		r.specs = append(r.specs, s.clone())
	}
	r.soon()
}

// settle is the author's last commit: all that is there can come to rest.
func (r *repo) settle() {
	r.down, r.gone, r.extra, r.bad = 0, 0, false, false
	for _, s := range r.specs {
		s.calm()
	}
	r.edited()
}

// edits are what authors do to one workload.
func (r *repo) edit(name string, do func(*spec)) {
	if s := r.find(name); s != nil {
		do(s)
		r.edited()
	}
}

func (r *repo) add(name string, words []string) {
	if r.find(name) != nil {
		return
	}
	s := newSpec(name)
	if err := s.set(words); err != nil {
		r.w.fail("add %s: %v", name, err)
		return
	}
	r.specs = append(r.specs, s)
	r.edited()
}

func (r *repo) drop(name string) {
	n := len(r.specs)
	r.specs = slices.DeleteFunc(r.specs, func(s *spec) bool { return s.name == name })
	if len(r.specs) != n {
		r.edited()
	}
}

// revert gives a workload the text of some commits before.
func (r *repo) revert(name string, n int) {
	at := r.head
	for range n {
		if p := r.commits[at].parent; p > 0 {
			at = p
		}
	}
	i := slices.IndexFunc(r.commits[at].specs, func(s *spec) bool { return s.name == name })
	if i < 0 {
		return
	}
	r.edit(name, func(s *spec) { *s = *r.commits[at].specs[i].clone() })
}
