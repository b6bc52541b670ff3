package reconciler_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// replays folds the whole log, as it is written, into a machine that can't
// plan: the state is the same (decision 3).
func (s *story) replays(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	m := reconciler.New(s.shelf)
	m.SetNext(func(*state.Workload, state.Instant) rollout.Step { panic("the planner runs on replay") })
	for _, r := range s.log {
		raw, err := recordpb.MarshalRecord(r)
		if err != nil {
			t.Fatalf("%s: %v", d.Pos, err)
		}
		back, err := recordpb.UnmarshalRecord(raw)
		if err == nil {
			err = m.Replay(back)
		}
		if err != nil {
			t.Fatalf("%s: replay: %v", d.Pos, err)
		}
	}
	live, err := recordpb.Marshal(s.m.State().Snapshot())
	if err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	if again, err := recordpb.Marshal(m.State().Snapshot()); err != nil || !bytes.Equal(live, again) {
		t.Fatalf("%s: replay gives another state (%v)", d.Pos, err)
	}
}

// older makes a body what a version before this one would have: it filled in
// less.
func older(b state.Body) {
	if t := state.TemplateOf(b); t != nil {
		t.Spec.DNSPolicy, t.Spec.SchedulerName = "", ""
		for i := range t.Spec.Containers {
			t.Spec.Containers[i].TerminationMessagePolicy = ""
		}
	}
}

// claims prints those that have a volume.
func (s *story) claims() {
	for _, c := range s.m.State().SortedClaims() {
		word := "kept"
		switch {
		case c.Dropped != 0:
			word = "being deleted"
		case s.m.State().InUse(c):
			word = "in use"
		}
		fmt.Fprintf(&s.out, "%s on %s, %d bytes, %s\n", c.Ref.Name, c.Node, c.Capacity, word)
	}
}

func (s *story) revision() state.Revision {
	return state.Revision(fmt.Sprintf("main@sha1:%040d", s.commits))
}

// appArg is the application that a command is about: the root, if it names none.
func appArg(d *datadriven.TestData) state.AppName {
	for _, a := range d.CmdArgs {
		if a.Key == "app" && len(a.Vals) == 1 {
			return state.AppName(a.Vals[0])
		}
	}
	return state.RootApp
}

// declare is a commit to the root that has no object but Applications: by name,
// or as they are written.
func (s *story) declare(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	s.commits++
	s.apps, s.lines = nil, nil
	at := state.Origin{Path: "story.yaml"}
	values, problems := manifest.Parse(at, []byte(d.Input))
	for _, v := range values {
		decoded, more := manifest.NewDecoder(manifest.Options{Root: true}).Decode(v, func(manifest.Path, *manifest.Value) state.Origin { return at })
		problems = append(problems, more...)
		if decoded.App != nil {
			s.apps = append(s.apps, *decoded.App)
		}
		if decoded.Pipeline != nil {
			s.lines = append(s.lines, *decoded.Pipeline)
		}
	}
	for _, p := range problems {
		t.Fatalf("%s: %v", d.Pos, p)
	}
	for _, name := range argNames(d) {
		s.apps = append(s.apps, state.Application{Name: state.AppName(name), Rollout: state.DefaultRollout()})
	}
	s.step(&state.RootRendered{Revision: s.revision(), Apps: s.apps, Rollout: state.DefaultRollout(), Pipelines: s.lines, Manifest: &state.Manifest{App: state.RootApp, Digest: manifest.Digest(nil)}})
}

// flap makes a pod ready and unready, once a second, so many times.
func (s *story) flap(t *testing.T, d *datadriven.TestData) {
	times := 0
	d.ScanArgs(t, "times", &times)
	p := s.m.State().ByName[state.PodKey{Namespace: "default", Name: d.CmdArgs[0].Key}]
	a := s.agents[p.Node]
	for range times {
		st := a.pods[p.UID]
		st.Ready = !st.Ready
		st.Containers = slices.Clone(st.Containers)
		st.Containers[0].Ready = st.Ready
		a.pods[p.UID] = st
		s.now = s.now.Add(time.Second)
		s.report(p.Node, false, nil)
	}
}

// someOf fails or ends every pod of a workload that runs, or makes its first unready.
func (s *story) someOf(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	for _, p := range s.m.State().SortedPods() {
		a := s.agents[p.Node]
		st, known := a.pods[p.UID]
		if p.Workload.Name != d.CmdArgs[0].Key || !known {
			continue
		}
		st.Ready = false
		switch {
		case d.Cmd == "fail-all":
			st.Phase, st.Reason = state.Failed, state.ReasonEvicted
		case d.Cmd == "ends-all" && p.Ended():
			continue
		case d.Cmd == "ends-all":
			code := 0
			d.MaybeScanArgs(t, "code", &code)
			st = ended(p, int32(code))
		}
		a.pods[p.UID] = st
		s.report(p.Node, false, nil)
		if d.Cmd == "unready-one" {
			return
		}
	}
}

// show prints what there is.
func (s *story) show(d *datadriven.TestData) {
	st := s.m.State()
	switch d.Cmd {
	case "assigned": // what agents were told of each pod's name
		for _, name := range s.names() {
			for _, p := range s.agents[name].newest.Pods {
				fmt.Fprintf(&s.out, "%s service=%s", p.Key.Name, p.Service)
				if p.Stop {
					fmt.Fprintf(&s.out, " stops within %s", p.Grace)
				}
				fmt.Fprintln(&s.out)
			}
			for _, v := range s.agents[name].newest.Volumes {
				fmt.Fprintf(&s.out, "%s begun=%t\n", v.Claim.Name, v.Begun)
			}
		}
	case "objects":
		for _, ref := range slices.SortedFunc(maps.Keys(st.Objects), state.Ref.Compare) {
			o := st.Objects[ref]
			fmt.Fprintf(&s.out, "%s of %s retired=%t\n", ref, o.App, o.Retired)
		}
	case "count": // pods by image, and how many of them are ready
		all, ready := map[string]int{}, map[string]int{}
		for _, p := range st.Pods {
			image := p.Template.Spec.Spec.Containers[0].Image
			all[image]++
			if p.Ready && !p.Stopping {
				ready[image]++
			}
		}
		for _, image := range slices.Sorted(maps.Keys(all)) {
			fmt.Fprintf(&s.out, "%s %d, ready %d\n", image, all[image], ready[image])
		}
	case "reasons":
		s.reasons(d.CmdArgs[0].Key)
	case "history":
		for ref, w := range st.Workloads {
			if ref.Name != d.CmdArgs[0].Key {
				continue
			}
			for _, h := range w.Variants[0].History {
				fmt.Fprintf(&s.out, "revision %d %s\n", h.Number, h.Template.Spec.Spec.Containers[0].Image)
			}
		}
	}
}

// reasons says why the newest batch of a workload's pods found no room on each
// node, from the record, and what would make one more fit.
func (s *story) reasons(name string) {
	var newest *state.Decided
	for _, r := range s.log {
		if f, ok := r.Fact.(*state.Decided); ok && f.Workload.Name == name {
			newest = f
		}
	}
	if newest == nil {
		fmt.Fprintln(&s.out, "nothing was decided")
		return
	}
	st := s.m.State()
	tpl, err := st.Template(newest.Template)
	if err != nil {
		panic(err)
	}
	explain := schedule.NewExplainer(st, tpl)
	fmt.Fprintf(&s.out, "placed %d of %d\n", newest.Placed, newest.Asked)
	for _, g := range newest.Groups {
		for _, i := range schedule.Members(g) {
			for _, n := range st.SortedNodes() {
				if n.Index == i {
					fmt.Fprintf(&s.out, "%s: %s\n", n.Name, explain.Node(n, g.Reason))
				}
			}
		}
	}
	for _, fit := range schedule.Remedy(st, tpl, newest.Groups) {
		fmt.Fprintf(&s.out, "fits if: %s\n", fit)
	}
}
