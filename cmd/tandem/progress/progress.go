// Package progress shows a run as it goes: lines in a pipe, a picture that is
// drawn again in place on a terminal.
//
//	reconciler ──records, state──► [ progress ] ──► the person at the terminal
//
// In: a controller's log and state. Out: text, and whether all that Git says
// runs. It refuses to know how a run was started.
package progress

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Controller is what a run is watched through.
type Controller interface {
	View(func(s *state.State))
	Changed(after state.Seq) <-chan struct{}
	Words(t state.Text) string
	Records(ctx context.Context, from state.Seq) iter.Seq2[*state.Record, error]
}

// Options say where and how a run is shown.
type Options struct {
	Out      io.Writer
	Terminal bool          // draw in place
	Width    func() int    // of the terminal; nil: 80
	From     state.Seq     // the first record to tell; earlier ones were told
	Settle   time.Duration // how long a run may stand still before it counts as stuck; 0: a minute
	// Looked says whether every source was looked at since the start: what an
	// earlier run left may have converged on an older commit. Nil: yes.
	Looked func() bool
}

// An Outcome is how a run stands.
type Outcome struct {
	Converged bool
	Stuck     bool     // it won't converge by itself
	Reasons   []string // why it hasn't converged, in whole lines
}

// Evaluate says whether all that Git says runs. It is stuck where a text has
// problems, or where a hold waits for a person or another world. Idle is how
// long nothing has changed; settle is how long a hold that might end by itself
// (an image that is looked up again, room that is freed) is waited for.
func Evaluate(s *state.State, words report.Words, idle, settle time.Duration) Outcome {
	var o Outcome
	all := len(s.Apps) > 0 && !s.Started.IsZero()
	for _, a := range s.SortedApps() {
		switch {
		case a.Rejected != nil:
			o.Stuck = true
			o.Reasons = append(o.Reasons, problems(s, a, words))
		case a.Spec.Suspend.On:
			continue
		}
		if !a.Converged || a.Removed {
			all = false
		}
		if a.SourceLost && a.Manifest.IsZero() {
			o.Stuck = o.Stuck || idle >= settle
			o.Reasons = append(o.Reasons, fmt.Sprintf("git    %s: no answer: %s", a.Spec.Name, words(a.SourceText)))
		}
	}
	for _, h := range report.Holds(s) {
		if h.Approved {
			continue
		}
		if !transient(h.Code) || idle >= settle {
			o.Stuck = true
		}
		o.Reasons = append(o.Reasons, held(&h))
	}
	for _, w := range s.SortedWorkloads() {
		if w.IsStalled {
			o.Stuck = true
			v := report.NewWorkload(s, w)
			o.Reasons = append(o.Reasons, fmt.Sprintf("stuck  %s  %s ready, no progress within its deadline%s", report.Short(w.Ref), v.Pods, worst(w, words)))
		}
	}
	for _, w := range s.Workloads {
		a := s.Apps[w.App]
		if v := report.NewWorkload(s, w); !v.Ready && (a == nil || !a.Spec.Suspend.On) {
			all = false
		}
	}
	o.Converged = all && !o.Stuck && len(o.Reasons) == 0
	if !o.Converged && !o.Stuck && idle >= settle {
		o.Stuck = true
		for _, w := range s.SortedWorkloads() {
			if v := report.NewWorkload(s, w); !v.Ready {
				o.Reasons = append(o.Reasons, fmt.Sprintf("stuck  %s  %s ready, nothing has changed for %s%s", report.Short(w.Ref), v.Pods, idle.Round(time.Second), worst(w, words)))
			}
		}
		if len(o.Reasons) == 0 {
			o.Reasons = append(o.Reasons, fmt.Sprintf("stuck  nothing has changed for %s and not all of it is there", idle.Round(time.Second)))
		}
	}
	if o.Converged {
		o.Reasons = nil
	}
	return o
}

// transient says whether a hold may end by itself in a world that stands still.
func transient(c state.HoldCode) bool {
	switch c {
	case state.HoldPredecessor, state.HoldNoRoom, state.HoldNoNode, state.HoldImageUnknown, state.HoldNodeLost, state.HoldDependency, state.HoldVolume, state.HoldClaimBusy:
		return true
	case state.HoldImageOS, state.HoldPrune, state.HoldUnsupported, state.HoldPaused, state.HoldSuspended, state.HoldWindow, state.HoldManual, state.HoldRewind, state.HoldConfigMissing, state.HoldBudget, state.HoldAddress, state.HoldGated,
		state.HoldClaimMissing, state.HoldMove, state.HoldQuarantined, state.HoldRestore:
		return false
	default:
		return false
	}
}

func problems(s *state.State, a *state.App, words report.Words) string {
	text := strings.TrimRight(report.Rejected(s, a.Rejected, words), "\n")
	running := "nothing is running yet"
	if !a.Manifest.IsZero() {
		running = "running on: " + a.Revision.Short()
	}
	return fmt.Sprintf("%s\n%d problems in %s: nothing of it was applied. %s", text, a.Rejected.Problems, a.Rejected.Revision.Short(), running)
}

func held(h *report.Hold) string {
	out := fmt.Sprintf("held   %s  %s: %s", h.ID, report.Short(h.Object), h.Text)
	if h.Fix != "" {
		out += "\n       fix: " + h.Fix
	}
	return out
}

// worst says what the first pod that isn't ready says of itself.
func worst(w *state.Workload, words report.Words) string {
	for _, p := range w.Pods {
		if p.Stopping || p.Ready {
			continue
		}
		out := fmt.Sprintf("; %s on %s: %s", p.Key.Name, p.Node, waiting(p))
		if !p.Detail.IsZero() {
			detail, _, _ := strings.Cut(words(p.Detail), "\n")
			out += ", " + detail
		}
		return out
	}
	return ""
}

func waiting(p *state.Pod) string {
	switch {
	case p.Lost:
		return "its node is lost"
	case p.Reason == state.ReasonContainerCreating, p.Reason == state.ReasonNone:
		return "starting"
	case p.Reason == state.ReasonUnready:
		return "not ready"
	default:
		return p.Reason.String()
	}
}

// A Watch shows one run.
type Watch struct {
	controller Controller
	options    Options
	teller     *teller
	next       state.Seq
	begun      state.Instant
	drawn      int // lines of the picture on the terminal
}

// New prepares to show a run; Show and Until do it.
func New(c Controller, o Options) *Watch {
	if o.Settle == 0 {
		o.Settle = time.Minute
	}
	if o.From == 0 {
		o.From = 1
	}
	w := &Watch{controller: c, options: o, next: o.From, teller: &teller{shown: map[state.Ref]string{}, words: c.Words}}
	c.View(func(s *state.State) { w.begun = s.Started })
	return w
}

// Show tells what happens until ctx ends.
func (w *Watch) Show(ctx context.Context) error {
	_, err := w.run(ctx, false)
	return err
}

// Until tells what happens until the run has converged, is stuck, or ctx ends.
func (w *Watch) Until(ctx context.Context) (Outcome, error) {
	return w.run(ctx, true)
}

// redraw is how often a picture is drawn again while time goes by in it.
const redraw = time.Second

func (w *Watch) run(ctx context.Context, once bool) (Outcome, error) {
	changed := time.Now()
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	defer w.erase()
	for {
		before := w.next
		if err := w.tell(ctx); err != nil {
			return Outcome{}, err
		}
		if w.next != before {
			changed = time.Now()
		}
		var o Outcome
		var at state.Seq
		// Asked before, not within View: it reads the state too, and a reader that
		// reads again waits for ever once a writer stands between.
		looked := w.options.Looked == nil || w.options.Looked()
		w.controller.View(func(s *state.State) {
			o, at = Evaluate(s, w.controller.Words, time.Since(changed), w.options.Settle), s.Seq
			if !looked { // how an earlier run ended says nothing of this one
				o.Converged, o.Stuck = false, o.Stuck && time.Since(changed) >= w.options.Settle
			}
			if w.options.Terminal {
				w.draw(s)
			}
		})
		if once && (o.Converged || o.Stuck) && at < w.next {
			w.erase()
			return o, nil
		}
		select {
		case <-ctx.Done():
			return o, nil
		case <-w.controller.Changed(w.next - 1):
		case <-tick.C:
		}
	}
}

// tell writes the lines of the records that have come. What the records say is
// read first: the log may not be read within View.
func (w *Watch) tell(ctx context.Context) error {
	var fresh []*state.Record
	for r, err := range w.controller.Records(ctx, w.next) {
		if ctx.Err() != nil {
			return nil // the run ends
		}
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		fresh = append(fresh, r)
	}
	if len(fresh) == 0 {
		return nil
	}
	var lines []string
	w.controller.View(func(s *state.State) {
		// The state may be behind the log by a moment: then the rest is for later.
		for _, r := range fresh {
			if r.Seq > s.Seq {
				break
			}
			w.next = r.Seq + 1
			if _, ok := r.Fact.(*state.ControllerStarted); ok {
				w.begun = r.At
			}
			lines = append(lines, w.teller.tell(s, r, w.begun)...)
		}
		lines = append(lines, w.teller.settle(s)...)
	})
	if len(lines) > 0 {
		w.erase()
		_, _ = io.WriteString(w.options.Out, strings.Join(lines, "\n")+"\n")
	}
	return nil
}

// erase takes the picture off the terminal.
func (w *Watch) erase() {
	if w.drawn > 0 {
		_, _ = fmt.Fprintf(w.options.Out, "\x1b[%dA\x1b[J", w.drawn)
		w.drawn = 0
	}
}

// draw shows what is not finished; finished lines have scrolled up.
func (w *Watch) draw(s *state.State) {
	width := 80
	if w.options.Width != nil {
		width = w.options.Width()
	}
	lines := picture(s, w.controller.Words)
	for i := range lines {
		lines[i] = cut(lines[i], width)
	}
	w.erase()
	if len(lines) > 0 {
		_, _ = io.WriteString(w.options.Out, strings.Join(lines, "\n")+"\n")
	}
	w.drawn = len(lines)
}

// maxLines is how much of a terminal the picture may take.
const maxLines = 20

// picture is one line for each application and workload that isn't as it should be.
func picture(s *state.State, words report.Words) []string {
	var out []string
	for _, a := range report.Applications(s, words) {
		if a.Ready {
			continue
		}
		out = append(out, fmt.Sprintf("%-6s %s  %s", a.Name, a.Revision.Short(), a.State))
		for i := range a.Workloads {
			v := &a.Workloads[i]
			w := s.Workloads[v.Ref]
			if v.Ready || w == nil {
				continue
			}
			out = append(out, fmt.Sprintf("  %-12s %-7s %s%s", v.Ref.Name, v.Pods, byOS(v), worst(w, words)))
		}
	}
	if len(out) > maxLines {
		more := len(out) - maxLines + 1
		out = append(slices.Clone(out[:maxLines-1]), fmt.Sprintf("… and %d lines more (tandem status)", more))
	}
	return out
}

// byOS is "linux 1/1, windows 0/1".
func byOS(v *report.Workload) string {
	var parts []string
	for _, p := range []struct {
		name  string
		ratio report.Ratio
	}{{"linux", v.Linux}, {"windows", v.Windows}, {"any OS", v.Any}} {
		if p.ratio != (report.Ratio{}) {
			parts = append(parts, p.name+" "+p.ratio.String())
		}
	}
	return strings.Join(parts, ", ")
}

func cut(s string, width int) string {
	if r := []rune(s); width > 1 && len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}
