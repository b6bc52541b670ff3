package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

type token = state.Text

// A Status is the answer to: what runs, and what is waited for?
type Status struct {
	Seq          state.Seq     `json:"seq"`
	At           time.Time     `json:"at"`
	Stopped      bool          `json:"stopped,omitempty"` // the controller stopped cleanly
	Applications []Application `json:"applications"`
	Held         []Hold        `json:"held"`
	Nodes        []Node        `json:"nodes"`
	Volumes      []Volume      `json:"volumes,omitempty"`
	Sources      []Source      `json:"sources"`
	Notes        []string      `json:"notes,omitempty"`
	// Inventory is what plan --inventory needs; only where it was asked for.
	Inventory *Inventory `json:"inventory,omitempty"`
}

// An Application is one row of status.
type Application struct {
	Name          state.AppName  `json:"name"`
	Revision      state.Revision `json:"revision,omitempty"`
	State         string         `json:"state"`
	Ready         bool           `json:"ready"`
	Pods          Ratio          `json:"pods"`
	Linux         Ratio          `json:"linux"`
	Windows       Ratio          `json:"windows"`
	Since         time.Time      `json:"since,omitzero"`
	SuspendReason string         `json:"suspendReason,omitempty"`
	Problems      string         `json:"problems,omitempty"` // of the newest commit, as printed
	Workloads     []Workload     `json:"workloads,omitempty"`
}

// A Workload is one line below its application.
type Workload struct {
	Ref     state.Ref `json:"ref"`
	State   string    `json:"state"`
	Ready   bool      `json:"ready"`
	Pods    Ratio     `json:"pods"`
	Linux   Ratio     `json:"linux"`
	Windows Ratio     `json:"windows"`
	Any     Ratio     `json:"any"` // of variants that name no OS
	Updated int32     `json:"updated"`
}

// A Node is one row of status.
type Node struct {
	Name      state.NodeName  `json:"name"`
	Ready     bool            `json:"ready"`
	Cordoned  bool            `json:"cordoned,omitempty"`
	Parked    bool            `json:"parked,omitempty"` // not heard from since the controller was stopped
	Simulated bool            `json:"simulated,omitempty"`
	OS        string          `json:"os"`
	Pods      int             `json:"pods"`
	Used      state.Resources `json:"used"`
	Of        state.Resources `json:"of"`
	Since     time.Time       `json:"since,omitzero"`
}

// A Source is a repository or directory and whether it answers.
type Source struct {
	Repo   string          `json:"repo"`
	Apps   []state.AppName `json:"applications"`
	Lost   bool            `json:"lost,omitempty"`
	Since  time.Time       `json:"since,omitzero"`
	Detail string          `json:"detail,omitempty"`
}

// NewStatus says what runs and what is waited for.
func NewStatus(s *state.State, words Words) Status {
	return Status{
		Seq: s.Seq, At: s.At.Time(), Stopped: s.Stopped, Applications: Applications(s, words), Held: Holds(s), Nodes: Nodes(s), Volumes: Volumes(s),
		Sources: Sources(s, words), Notes: notes(s),
	}
}

// Applications are all applications, by name.
func Applications(s *state.State, words Words) []Application {
	byApp := map[state.AppName][]Workload{}
	for _, w := range s.SortedWorkloads() {
		byApp[w.App] = append(byApp[w.App], NewWorkload(s, w))
	}
	apps := []Application{}
	for _, a := range s.SortedApps() {
		apps = append(apps, application(s, a, byApp[a.Spec.Name], words))
	}
	return apps
}

func application(s *state.State, a *state.App, ws []Workload, words Words) Application {
	out := Application{Name: a.Spec.Name, Revision: a.Revision, Workloads: ws, Since: a.AppliedAt.Time()}
	if _, on := a.SuspendedAt(s.At.Wall); on {
		out.SuspendReason = orDash(a.Spec.Suspend.Reason)
	}
	for i := range ws {
		if w := s.Workloads[ws[i].Ref]; w != nil && w.Parent != nil {
			continue // a CronJob's Jobs come and go
		}
		out.Pods.Ready, out.Pods.Wanted = out.Pods.Ready+ws[i].Pods.Ready, out.Pods.Wanted+ws[i].Pods.Wanted
		out.Linux.Ready, out.Linux.Wanted = out.Linux.Ready+ws[i].Linux.Ready, out.Linux.Wanted+ws[i].Linux.Wanted
		out.Windows.Ready, out.Windows.Wanted = out.Windows.Ready+ws[i].Windows.Ready, out.Windows.Wanted+ws[i].Windows.Wanted
	}
	switch held := firstHold(s, a.Spec.Name); {
	case a.Removed:
		out.State = "removing"
	case a.Rejected != nil:
		out.State = fmt.Sprintf("%s in %s: nothing of it was applied", plural(int(a.Rejected.Problems), "problem"), a.Rejected.Revision.Short())
		out.Problems, out.Since = Rejected(s, a.Rejected, words), a.Rejected.At.Time()
	case out.SuspendReason != "":
		out.State = "suspended"
	case held != nil:
		out.State, out.Since = "held: "+HoldText(&held.Held), held.Since.Time()
	case a.Manifest.IsZero():
		out.State = "waiting for the first revision"
	case a.Converged:
		out.State, out.Ready, out.Since = "ready", true, a.ConvergedAt.Time()
	default:
		out.State = "progressing"
		for i := range ws {
			if w := s.Workloads[ws[i].Ref]; w != nil && w.IsStalled {
				out.State = "stuck: " + Short(w.Ref)
			}
		}
	}
	return out
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// firstHold is the hold of an application with the smallest ID that nobody has
// approved; an ordered pod's wait for the one before it isn't worth a mention.
func firstHold(s *state.State, app state.AppName) *state.Hold {
	var first *state.Hold
	for _, h := range s.Holds {
		if h.App == app && !h.Approved && h.Code != state.HoldPredecessor && (first == nil || h.ID < first.ID) {
			first = h
		}
	}
	return first
}

// NewWorkload counts a workload's pods.
func NewWorkload(s *state.State, w *state.Workload) Workload {
	out := Workload{Ref: w.Ref}
	least := minReady(w)
	available := true
	part := func(os state.OS) *Ratio {
		switch os {
		case state.Linux:
			return &out.Linux
		case state.Windows:
			return &out.Windows
		case state.AnyOS:
		}
		return &out.Any
	}
	for _, v := range w.Variants {
		part(v.OS).Wanted += v.Replicas
		out.Pods.Wanted += v.Replicas
	}
	for _, p := range w.Pods {
		if p.Stopping {
			continue
		}
		if w.IsCurrent(p) {
			out.Updated++
		}
		if p.Ready && !p.Lost {
			out.Pods.Ready++
			if v := w.Variant(p.OS); v != nil {
				part(v.OS).Ready++
			}
		}
		available = available && p.Available(s.At, least)
	}
	out.Ready = available && !w.Deleting && out.Pods.Ready == out.Pods.Wanted && out.Updated == out.Pods.Wanted
	if w.Job != nil {
		out.job(w)
		return out
	}
	if c, ok := w.CronJob(); ok {
		out.cron(w, c)
		return out
	}
	if w.Ref.Kind == "DaemonSet" {
		d := NewDaemon(s, w)
		out.Linux, out.Windows, out.Any = d.Ready[state.Linux], d.Ready[state.Windows], Ratio{}
		out.Pods = Ratio{Ready: out.Linux.Ready + out.Windows.Ready, Wanted: d.Wanted}
		out.Ready = !w.Deleting && available && w.Complete && out.Pods.Ready == out.Pods.Wanted
	}
	if phase := ending(w); phase != 0 {
		out.once(phase)
		return out
	}
	switch {
	case w.Deleting:
		out.State = "removing"
	case w.IsStalled:
		out.State = "stuck"
	case out.Ready:
		out.State = "ready"
	case len(w.Holds) > 0:
		out.State = "held"
	default:
		out.State = "progressing"
	}
	return out
}

// job counts a Job: what succeeded, of what is wanted.
func (out *Workload) job(w *state.Workload) {
	j, ok := w.BatchJob()
	if !ok {
		return
	}
	wanted := int32(1)
	if j.Spec.Completions != nil {
		wanted = *j.Spec.Completions
	}
	all := Ratio{Ready: min(w.Job.Succeeded, wanted), Wanted: wanted}
	out.Pods, out.Linux, out.Windows, out.Any = all, Ratio{}, Ratio{}, Ratio{}
	switch w.Variants[0].OS {
	case state.Linux:
		out.Linux = all
	case state.Windows:
		out.Windows = all
	case state.AnyOS:
		out.Any = all
	}
	out.State = w.Job.Stage.String()
	switch {
	case w.Deleting:
		out.State = "removing"
	case w.Job.Stage == state.JobFailed:
		out.State += ": " + w.Job.Why.String()
	case len(w.Holds) > 0:
		out.State = "held"
	}
	out.Ready = w.Job.Stage == state.JobComplete || w.Job.Stage == state.JobSuspended
}

// cron says whether a CronJob waits for its time.
func (out *Workload) cron(w *state.Workload, c *batchv1.CronJob) {
	out.Ready = w.Complete && !w.Deleting
	switch {
	case w.Deleting:
		out.State = "removing"
	case len(w.Holds) > 0:
		out.State = "held"
	case c.Spec.Suspend != nil && *c.Spec.Suspend:
		out.State = "suspended"
	default:
		out.State = "scheduled"
	}
}

// ending is how a bare Pod ended, which may be gone since; 0: it hasn't.
func ending(w *state.Workload) state.PodPhase {
	if w.Ref.Kind != "Pod" {
		return 0
	}
	if n := len(w.Pods); n > 0 {
		if p := w.Pods[n-1]; p.Ended() {
			return p.Phase
		}
		return 0
	}
	switch v := w.Variants[0]; {
	case v.Update == nil || w.Finished.Template != v.Update.Digest:
		return 0
	case w.Finished.Failed:
		return state.Failed
	default:
		return state.Succeeded
	}
}

// once says how a bare Pod ended.
func (out *Workload) once(phase state.PodPhase) {
	out.State = strings.ToLower(phase.String())
	out.Ready = phase == state.Succeeded
	if !out.Ready {
		return
	}
	for _, r := range []*Ratio{&out.Pods, &out.Linux, &out.Windows, &out.Any} {
		r.Ready = r.Wanted
	}
}

func minReady(w *state.Workload) time.Duration {
	if d, ok := w.Deployment(); ok {
		return time.Duration(d.Spec.MinReadySeconds) * time.Second
	}
	if d, ok := w.StatefulSet(); ok {
		return time.Duration(d.Spec.MinReadySeconds) * time.Second
	}
	if d, ok := w.Owned.Object.First().(*appsv1.DaemonSet); ok {
		return time.Duration(d.Spec.MinReadySeconds) * time.Second
	}
	return 0
}

// Nodes are all nodes, by name.
func Nodes(s *state.State) []Node {
	out := []Node{}
	for _, n := range s.SortedNodes() {
		out = append(out, Node{
			Name: n.Name, Ready: n.Ready, Cordoned: n.Cordoned, Parked: n.Parked && !s.Stopped, Simulated: n.Facts.Simulated, OS: Platform(&n.Facts),
			Pods: len(n.Pods), Used: n.Used, Of: n.Facts.Allocatable, Since: n.ReadyChange.Time(),
		})
	}
	return out
}

// Platform is "linux/amd64", with the build on Windows.
func Platform(f *state.NodeFacts) string {
	p := string(f.OS) + "/" + f.Arch
	if f.OS == state.Windows && f.OSVersion != "" {
		p += " " + f.OSVersion
	}
	return p
}

// Sources are the places that applications read, by name.
func Sources(s *state.State, words Words) []Source {
	byRepo := map[string]*Source{}
	for _, a := range s.SortedApps() {
		repo := a.Spec.Source.Repo
		if root := s.Apps[state.RootApp]; repo == "" && root != nil {
			repo = root.Spec.Source.Repo
		}
		src := byRepo[repo]
		if src == nil {
			src = &Source{Repo: repo}
			byRepo[repo] = src
		}
		src.Apps = append(src.Apps, a.Spec.Name)
		if a.SourceLost && !src.Lost {
			src.Lost, src.Since, src.Detail = true, a.SourceSince.Time(), words(a.SourceText)
		}
	}
	out := []Source{}
	for _, src := range byRepo {
		out = append(out, *src)
	}
	slices.SortFunc(out, func(a, b Source) int { return strings.Compare(a.Repo, b.Repo) })
	return out
}

// notes are what a reader must know to take the rest for what it is.
func notes(s *state.State) []string {
	var assumed []string
	for _, im := range s.Images {
		if im.Assumed {
			assumed = append(assumed, im.Name)
		}
	}
	slices.Sort(assumed)
	var out []string
	if assumed = slices.Compact(assumed); len(assumed) > 0 {
		out = append(out, "images not found anywhere, taken to exist (simulated nodes): "+strings.Join(assumed, ", "))
	}
	for _, w := range s.SortedWorkloads() {
		if w.Ref.Kind != "DaemonSet" {
			continue
		}
		if d := NewDaemon(s, w); len(d.Lacks) > 0 {
			out = append(out, fmt.Sprintf("%s has no pod on %s: its images have nothing for these nodes", Short(w.Ref), strings.Join(d.Lacks, ", ")))
		}
	}
	for _, n := range s.SortedNodes() {
		if n.Parked && !n.Ready && !s.Stopped {
			out = append(out, parked(n))
		}
	}
	if len(s.Claims) > 0 {
		out = append(out, "a volume is a directory of its node: what its claim asks for is recorded, and not enforced")
	}
	if note := unserved(s); note != "" {
		out = append(out, note)
	}
	return out
}

// parked says what becomes of a node that was not heard of since the controller
// was stopped: it may run what it was left with, for ever.
func parked(n *state.Node) string {
	return fmt.Sprintf("node %s has not been heard from since the controller was stopped, and may run its pods still: those of StatefulSets are not moved; "+
		"if it is gone for good: tandem node remove %s --reason …", n.Name, n.Name)
}

// unserved says where Services are not served, if there are any.
func unserved(s *state.State) string {
	services := false
	for ref := range s.Objects {
		services = services || ref.Kind == "Service"
	}
	if !services {
		return ""
	}
	served, windows := false, false
	for _, n := range s.Nodes {
		served = served || !n.Facts.Simulated && n.Facts.OS == state.Linux
		windows = windows || !n.Facts.Simulated && n.Facts.OS == state.Windows
	}
	switch {
	case !served:
		return "nobody answers at Services' addresses: real Linux nodes serve them, and there is none"
	case windows:
		return "Services are not served on Windows nodes yet: their pods are behind them, but reach others by their own addresses"
	default:
		return ""
	}
}

// Text prints a status for people.
func (s *Status) Text(w io.Writer) {
	rows := [][]string{{"APPLICATION", "REVISION", "STATE", "PODS", "LINUX", "WINDOWS", "SINCE"}}
	for i := range s.Applications {
		a := &s.Applications[i]
		rows = append(rows, []string{string(a.Name), orDash(a.Revision.Short()), a.State, a.Pods.String(), a.Linux.String(), a.Windows.String(), clock(a.Since, s.At)})
	}
	table(w, rows...)
	for i := range s.Applications {
		if a := &s.Applications[i]; a.Problems != "" {
			_, _ = fmt.Fprintf(w, "\n%s\n", a.Problems)
		}
	}
	if len(s.Held) > 0 {
		_, _ = fmt.Fprintln(w)
		rows = [][]string{{"HELD", "WHAT", "WAITS FOR"}}
		for i := range s.Held {
			h := &s.Held[i]
			rows = append(rows, []string{h.ID, string(h.App) + " " + Short(h.Object), h.Text})
		}
		table(w, rows...)
	}
	_, _ = fmt.Fprintln(w)
	rows = [][]string{{"NODE", "READY", "OS", "PODS", "CPU", "MEMORY"}}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		rows = append(rows, []string{string(n.Name), n.word(), n.OS, fmt.Sprint(n.Pods), percent(n.Used.MilliCPU, n.Of.MilliCPU), percent(n.Used.Memory, n.Of.Memory)})
	}
	table(w, rows...)
	volumesText(w, s.Volumes)
	for i := range s.Sources {
		src := &s.Sources[i]
		if src.Lost {
			_, _ = fmt.Fprintf(w, "git  %s: no answer for %s (%s)\n", src.Repo, ago(s.At.Sub(src.Since)), firstLine(src.Detail))
		} else if src.Repo != "" {
			_, _ = fmt.Fprintf(w, "git  %s answers\n", src.Repo)
		}
	}
	for _, n := range s.Notes {
		_, _ = fmt.Fprintf(w, "note  %s\n", n)
	}
	if s.Stopped {
		_, _ = fmt.Fprintf(w, "note  the controller stopped; this is how things were at %s\n", clock(s.At, time.Time{}))
	}
}

func (n *Node) word() string {
	word := "no"
	if n.Ready {
		word = "yes"
	}
	if n.Parked && !n.Ready {
		word += ", parked"
	}
	if n.Cordoned {
		word += ", cordoned"
	}
	if n.Simulated {
		word += ", simulated"
	}
	return word
}

func percent(used, of int64) string {
	if of <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d %%", used*100/of)
}
