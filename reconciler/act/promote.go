package act

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/verify"
)

// A Promoter finds out about commits and moves branches. Feeds is one.
type Promoter interface {
	Review(ctx context.Context, w *state.ReviewWanted) *state.Reviewed
	Push(ctx context.Context, p *state.Push) *state.Pushed
	Note(ctx context.Context, w *state.NoteWanted) *state.Noted
}

// A Mover moves branches by compare-and-swap: the Origins that can. It looks
// first, so that a push whose outcome was lost may be repeated. An outcome of 0
// comes with an error: the repository doesn't answer.
type Mover interface {
	Move(ctx context.Context, p *state.Push) (outcome state.PromotionOutcome, found string, err error)
}

// Times and limits of promotion.
const (
	reviewTime = 2 * time.Minute
	pushTime   = time.Minute
	maxBetween = 10_000 // commits of one promotion
	maxRecent  = 64     // snapshots kept for reviews
)

// promote answers an effect of promotion. Where nobody can, it is tried again.
func (c *Controller) promote(ctx context.Context, e state.Effect) {
	c.lookups.Go(func() {
		if !c.enter(ctx) {
			return
		}
		defer func() { <-c.slots }()
		switch e := e.(type) {
		case *state.ReviewWanted:
			ctx, cancel := context.WithTimeout(ctx, reviewTime)
			defer cancel()
			answer := &state.Reviewed{Lost: true}
			if c.promoter != nil {
				answer = c.promoter.Review(ctx, e)
			}
			answer.Pipeline, answer.Stage, answer.From, answer.To = e.Pipeline, e.Stage, e.From, e.To
			c.Submit(answer)
		case *state.Push:
			ctx, cancel := context.WithTimeout(ctx, pushTime)
			defer cancel()
			answer := &state.Pushed{}
			if c.promoter != nil {
				answer = c.promoter.Push(ctx, e)
			}
			answer.ID = e.ID
			c.Submit(answer)
		case *state.NoteWanted:
			ctx, cancel := context.WithTimeout(ctx, pushTime)
			defer cancel()
			answer := &state.Noted{}
			if c.promoter != nil {
				answer = c.promoter.Note(ctx, e)
			}
			answer.App, answer.Ref, answer.Commit, answer.Seq = e.App, e.Ref, e.Commit, e.Seq
			c.Submit(answer)
		}
	})
}

// Promote says who answers what promotion asks; it is to be called before Run.
func (c *Controller) Promote(p Promoter) { c.promoter = p }

// Push implements Promoter.
func (f *Feeds) Push(ctx context.Context, p *state.Push) *state.Pushed {
	mover, ok := f.origins.(Mover)
	if !ok {
		return &state.Pushed{Outcome: state.PromotionRefused, Detail: f.c.Text("there is no repository whose branches could be moved")}
	}
	outcome, found, err := mover.Move(ctx, p)
	if err != nil {
		f.logger.LogAttrs(ctx, slog.LevelWarn, "did not move a branch", slog.String("promotion", p.ID), slog.Any("err", err))
		grown := outcome == state.PromotionConflict && f.grown(ctx, p, found)
		f.hintSource(p.Source)
		return &state.Pushed{Outcome: outcome, Found: found, Detail: f.c.Text(err.Error()), Grown: grown}
	}
	f.logger.LogAttrs(ctx, slog.LevelInfo, "moved a branch", slog.String("promotion", p.ID), slog.String("rev", p.Source.Ref+"@"+p.New))
	f.hintSource(p.Source)
	return &state.Pushed{Outcome: outcome, Found: found}
}

// grown says whether a branch that is elsewhere than expected went on from there. Where
// that can't be found out it is left to the next look at the source.
func (f *Feeds) grown(ctx context.Context, p *state.Push, found string) bool {
	f.mu.Lock()
	sub := f.subs[p.App]
	f.mu.Unlock()
	if sub == nil || sub.feed == nil || found == "" {
		return false
	}
	h, ok := sub.feed.source.(sources.Historian)
	if !ok {
		return false
	}
	grown, err := h.Descends(ctx, found, p.Old)
	if err != nil {
		f.logger.LogAttrs(ctx, slog.LevelWarn, "could not find out how a branch moved", slog.String("promotion", p.ID), slog.Any("err", err))
	}
	return grown && err == nil
}

// A Noter writes notes in repositories: the Origins that can. As with Move, an
// outcome of 0 comes with an error.
type Noter interface {
	Note(ctx context.Context, w *state.NoteWanted) (outcome state.NoteOutcome, found string, err error)
}

// Note implements Promoter.
func (f *Feeds) Note(ctx context.Context, w *state.NoteWanted) *state.Noted {
	noter, ok := f.origins.(Noter)
	if !ok {
		return &state.Noted{Outcome: state.NoteRefused, Detail: f.c.Text("there is no repository to write notes in")}
	}
	outcome, found, err := noter.Note(ctx, w)
	out := &state.Noted{Outcome: outcome, Found: found}
	if err != nil {
		f.logger.LogAttrs(ctx, slog.LevelWarn, "did not write a note", slog.String("app", string(w.App)), slog.String("ref", w.Ref), slog.Any("err", err))
		out.Detail = f.c.Text(err.Error())
	}
	return out
}

// hintSource asks whoever follows a branch to look now.
func (f *Feeds) hintSource(s state.AppSource) {
	var names []state.AppName
	f.c.View(func(st *state.State) {
		for name, a := range st.Apps {
			if a.Spec.Source.Ref == s.Ref {
				names = append(names, name)
			}
		}
	})
	for _, name := range names {
		f.Hint(name)
	}
}

// Review implements Promoter: the commits between, who wrote and signed them,
// and what the target's own render of the newest says.
func (f *Feeds) Review(ctx context.Context, w *state.ReviewWanted) *state.Reviewed {
	out, err := f.review(ctx, w)
	if err != nil {
		f.logger.LogAttrs(ctx, slog.LevelWarn, "could not review a commit", slog.String("app", string(w.App)), slog.String("rev", w.To), slog.Any("err", err))
		return &state.Reviewed{Lost: true, Detail: f.c.Text(err.Error())}
	}
	return out
}

func (f *Feeds) review(ctx context.Context, w *state.ReviewWanted) (*state.Reviewed, error) {
	f.mu.Lock()
	sub := f.subs[w.App]
	f.mu.Unlock()
	if sub == nil || sub.feed == nil {
		return nil, errors.New("its source isn't open")
	}
	h, ok := sub.feed.source.(sources.Historian)
	if !ok {
		return nil, errors.New("its source has no history")
	}
	signers, err := f.signersOf(w)
	if err != nil {
		return nil, err
	}
	out := &state.Reviewed{}
	if out.Forward, err = h.Descends(ctx, w.To, w.From); err != nil {
		return nil, err
	}
	authors := map[string]bool{}
	err = h.Since(ctx, w.To, w.From, func(_ string, raw []byte) error {
		if out.Commits++; out.Commits > maxBetween {
			return fmt.Errorf("more than %d commits lie between", maxBetween)
		}
		signer, err := signers.signer(raw)
		if err != nil {
			out.Unsigned++
		}
		for _, name := range append(claimed(raw), aliases(signer)...) {
			authors[name] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for name := range authors {
		out.Authors = append(out.Authors, f.c.Person(name))
	}
	sortTexts(out.Authors)
	return out, f.reviewRender(ctx, w, sub.app, out)
}

// reviewRender renders the commit as the target application would.
func (f *Feeds) reviewRender(ctx context.Context, w *state.ReviewWanted, app state.Application, out *state.Reviewed) error {
	snap, err := f.snapshotOf(ctx, w)
	if err != nil {
		return err
	}
	f.slots <- struct{}{}
	result, err := f.renderer.Render(ctx, *snap, app)
	<-f.slots
	if err != nil {
		return fmt.Errorf("render %s: %w", snap.Revision.Short(), err)
	}
	out.Manifest, out.Problems = result.Manifest, int32(len(result.Problems))
	out.Detail = f.c.Text(printed(result.Problems))
	return nil
}

// snapshotOf finds a commit among those that were followed, and opens it else.
func (f *Feeds) snapshotOf(ctx context.Context, w *state.ReviewWanted) (*sources.Snapshot, error) {
	f.mu.Lock()
	for _, snap := range f.recent {
		if snap.Commit.Hash == w.To {
			f.mu.Unlock()
			return snap, nil
		}
	}
	f.mu.Unlock()
	_, open, err := f.origins.Open(state.AppSource{Repo: w.Source.Repo, Commit: w.To})
	if err != nil {
		return nil, err
	}
	source, err := open()
	if err != nil {
		return nil, err
	}
	snap, err := source.Next(ctx, "")
	if err != nil {
		return nil, err
	}
	f.remember(&snap)
	return &snap, nil
}

// remember keeps a snapshot for reviews.
func (f *Feeds) remember(snap *sources.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recent = append(f.recent, snap)
	f.recent = f.recent[max(0, len(f.recent)-maxRecent):]
}

// keyring judges signatures; without one nothing is verified.
type keyring struct{ signers *verify.Signers }

// errNoSigners says that the pipeline names no list of signers.
var errNoSigners = errors.New("no gate names signers")

func (k keyring) signer(raw []byte) (string, error) {
	if k.signers == nil {
		return "", errNoSigners
	}
	s, err := k.signers.Commit(raw, time.Time{})
	return s.Name, err
}

// signersOf reads the list that the stage's gate names, in the root as it was
// taken, never in the commit that is judged.
func (f *Feeds) signersOf(w *state.ReviewWanted) (keyring, error) {
	var names []string
	f.c.View(func(st *state.State) {
		if l := st.Lines[w.Pipeline]; l != nil {
			if stage, _ := l.Stage(w.Stage); stage != nil {
				for _, g := range stage.Gates {
					if g.Kind == state.GateSigned {
						names = append(names, g.Name)
					}
				}
			}
		}
	})
	if len(names) == 0 {
		return keyring{}, nil
	}
	root := f.accepted()
	if root == nil {
		return keyring{}, errNotYet
	}
	var lists [][]byte
	for _, name := range names {
		more, err := signerFiles(root.FS, name)
		if err != nil {
			return keyring{}, fmt.Errorf("read the list of signers: %w", err)
		}
		lists = append(lists, more...)
	}
	signers, err := verify.ParseSigners(lists...)
	if err != nil {
		return keyring{}, fmt.Errorf("read the list of signers: %w", err)
	}
	return keyring{signers}, nil
}

// claimed is who a commit says wrote it. Nobody has verified that: it keeps
// people from approving, and lets nobody.
func claimed(raw []byte) []string {
	head, _, _ := bytes.Cut(raw, []byte("\n\n"))
	for line := range strings.Lines(string(head)) {
		rest, ok := strings.CutPrefix(line, "author ")
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(rest, "<")
		email, _, _ := strings.Cut(rest, ">")
		return append(aliases(strings.TrimSpace(email)), aliases(strings.TrimSpace(name))...)
	}
	return nil
}

// aliases are the names that a user of the API may go by who signs or commits
// with this one.
func aliases(name string) []string {
	if name == "" {
		return nil
	}
	out := []string{name, strings.ToLower(name)}
	if local, _, ok := strings.Cut(name, "@"); ok && local != "" {
		out = append(out, local, strings.ToLower(local))
	}
	return out
}

func sortTexts(list []state.Text) {
	slices.SortFunc(list, func(a, b state.Text) int { return bytes.Compare(a[:], b[:]) })
}

// tokens puts the names of those who may approve beside the log.
func (f *Feeds) tokens(pipelines []state.Pipeline) []state.Pipeline {
	for i := range pipelines {
		for j := range pipelines[i].Stages {
			for k := range pipelines[i].Stages[j].Freezes {
				freeze := &pipelines[i].Stages[j].Freezes[k]
				freeze.Why, freeze.Reason = f.c.Text(freeze.Reason), ""
			}
			gates := pipelines[i].Stages[j].Gates
			for k := range gates {
				for _, name := range gates[k].Names {
					gates[k].Users = append(gates[k].Users, f.c.Person(name))
				}
				gates[k].Names = nil
			}
		}
	}
	return pipelines
}

// accessTokens puts the names of those who may do something beside the log. The
// order is that of the tokens: the same text gives the same record.
func (f *Feeds) accessTokens(a *state.Access) *state.Access {
	if a == nil {
		return nil
	}
	people := func(names []string) []state.Text {
		var out []state.Text
		for _, name := range names {
			out = append(out, f.c.Person(name))
		}
		sortTexts(out)
		return out
	}
	for i := range a.Groups {
		a.Groups[i].Members, a.Groups[i].Names = people(a.Groups[i].Names), nil
	}
	for i := range a.Grants {
		a.Grants[i].Users, a.Grants[i].Names = people(a.Grants[i].Names), nil
	}
	return a
}
