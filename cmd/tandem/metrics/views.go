package metrics

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// descriptions are of what is read at every scrape, by name without "tandem_".
type descriptions map[string]*prometheus.Desc

func describe() descriptions {
	d := descriptions{}
	add := func(name, help string, labels ...string) {
		d[name] = prometheus.NewDesc("tandem_"+name, help, labels, nil)
	}
	add("applications", "Applications, by what they are at.", "state")
	add("applications_unlisted", "Applications that have no series of their own, for there are too many.")
	add("application_converged", "1 while all of the application's revision is there and available.", "application")
	add("application_last_converged_timestamp_seconds", "When it last came to be so; 0: never.", "application")
	add("application_commit_timestamp_seconds", "When the commit was made that is applied; 0: no commit.", "application")
	add("application_good_commit_timestamp_seconds", "When the commit was made that last converged; 0: none did.", "application")
	add("application_problems", "Problems of the newest commit. Nothing of a commit that has any is applied.", "application")
	add("application_holds", "What of the application waits for a person or for the world.", "application")
	add("source_up", "1 while the application's source answers.", "application")
	add("source_last_look_timestamp_seconds", "When the application's source last answered; 0: not since the start.", "application")
	add("source_look_failures_total", "Looks at sources that failed since the start.")
	add("holds", "Objects that wait for a person or for the world, by code. Approved ones don't count.", "reason")
	add("workloads_stalled", "Workloads whose rollout made no progress within its deadline.")
	add("pods", "Pods, by phase and the reason of it.", "phase", "reason")
	add("pods_ready", "Pods that are ready.", "os")
	add("pods_wanted", "Pods that workloads with replicas want.", "os")
	add("scheduler_pending_pods", "Pods that have no node, by why.", "reason")
	add("nodes", "Nodes, by operating system and whether they report.", "os", "ready")
	add("nodes_unlisted", "Nodes that have no series of their own, for there are too many.")
	add("node_ready", "1 while the node reports.", "node")
	add("node_cordoned", "1 while the node takes no new pods.", "node")
	add("node_unfenced", "1 while no fencer runs on the node: it takes no pod of a StatefulSet.", "node")
	add("node_pods", "Pods on the node.", "node")
	add("node_connected", "1 while the node's agent has a stream to this controller.", "node")
	add("node_last_heard_timestamp_seconds", "When the node's agent last renewed its lease or reported on its stream.", "node")
	add("node_clock_drift_seconds", "How far the node's wall clock is ahead of the controller's.", "node")
	add("node_certificate_expiry_timestamp_seconds", "When the certificate ends that the node's agent showed for its stream.", "node")
	add("certificate_expiry_timestamp_seconds", "When a certificate ends that the controller serves with.", "certificate")
	add("log_records", "Records in the log.")
	add("log_size_bytes", "What the records take on the disk.")
	add("log_checkpoint_timestamp_seconds", "When the newest checkpoint was signed: with the last batch of records.")
	add("log_witness_timestamp_seconds", "When a repository last took a note with a checkpoint; 0: not since the start.")
	return d
}

// views is the collector of what is read at every scrape.
type views struct {
	Views
	controller *Controller
	desc       descriptions
}

// Describe implements prometheus.Collector.
func (v *views) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range v.desc {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (v *views) Collect(ch chan<- prometheus.Metric) {
	put := func(name string, value float64, labels ...string) { ch <- gauge(v.desc[name], value, labels...) }
	v.State(func(s *state.State) {
		applications(s, put)
		pods(s, put)
		nodes(s, put)
		put("log_records", float64(s.Seq))
	})
	v.sessions(put)
	v.sources(ch, put)
	put("log_size_bytes", float64(v.LogSize()))
	for name, at := range v.Certificates() {
		put("certificate_expiry_timestamp_seconds", seconds(at), name)
	}
	c := v.controller
	c.mu.Lock()
	defer c.mu.Unlock()
	put("log_checkpoint_timestamp_seconds", seconds(c.checkpoint))
	put("log_witness_timestamp_seconds", seconds(c.witnessed))
}

type putter func(name string, value float64, labels ...string)

// appState is what an application is at, in one word.
func appState(s *state.State, a *state.App, holds int) string {
	_, suspended := a.SuspendedAt(s.At.Wall)
	switch {
	case a.Removed:
		return "removing"
	case a.Rejected != nil:
		return "rejected"
	case suspended:
		return "suspended"
	case holds > 0:
		return "held"
	case a.Manifest.IsZero():
		return "waiting"
	case a.Converged:
		return "ready"
	}
	return "progressing"
}

func applications(s *state.State, put putter) {
	holds, byCode := map[state.AppName]int{}, map[string]float64{}
	for _, c := range holdCodes() {
		byCode[holdName(c)] = 0
	}
	for _, h := range s.Holds {
		if h.Approved {
			continue
		}
		byCode[holdName(h.Code)]++
		if h.Code != state.HoldPredecessor {
			holds[h.App]++
		}
	}
	for reason, n := range byCode {
		put("holds", n, reason)
	}
	states := map[string]float64{"removing": 0, "rejected": 0, "suspended": 0, "held": 0, "waiting": 0, "ready": 0, "progressing": 0}
	apps := s.SortedApps()
	for _, a := range apps {
		states[appState(s, a, holds[a.Spec.Name])]++
	}
	for name, n := range states {
		put("applications", n, name)
	}
	listed := most(apps, MaxApplications, func(a *state.App) bool {
		return !a.Converged || a.Rejected != nil || a.SourceLost || holds[a.Spec.Name] > 0
	})
	put("applications_unlisted", float64(len(apps)-len(listed)))
	for _, a := range listed {
		name := string(a.Spec.Name)
		problems := 0.0
		if a.Rejected != nil {
			problems = float64(a.Rejected.Problems)
		}
		put("application_converged", number(a.Converged), name)
		put("application_last_converged_timestamp_seconds", wall(a.ConvergedAt.Wall), name)
		put("application_commit_timestamp_seconds", wall(a.Commit.Time), name)
		put("application_good_commit_timestamp_seconds", wall(a.Good.Commit.Time), name)
		put("application_problems", problems, name)
		put("application_holds", float64(holds[a.Spec.Name]), name)
		put("source_up", number(!a.SourceLost), name)
	}
}

// most are at most n of a sorted list, those that need attention before others.
func most[T any](all []T, n int, attention func(T) bool) []T {
	if len(all) <= n {
		return all
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b T) int { return cmp.Compare(number(attention(b)), number(attention(a))) })
	return all[:n]
}

func pods(s *state.State, put putter) {
	type key struct{ phase, reason string }
	count, ready := map[key]float64{}, map[state.OS]float64{state.Linux: 0, state.Windows: 0}
	for _, p := range s.Pods {
		count[key{max(p.Phase, state.Pending).String(), cmp.Or(p.Reason.String(), "none")}]++
		if p.Ready && !p.Lost && !p.Stopping {
			ready[p.OS]++
		}
	}
	for k, n := range count {
		put("pods", n, k.phase, k.reason)
	}
	stalled, wanted := 0, map[string]float64{"linux": 0, "windows": 0, "any": 0}
	for _, w := range s.Workloads {
		if w.IsStalled {
			stalled++
		}
		for _, v := range w.Variants {
			if !w.Deleting && w.Cron == nil {
				wanted[cmp.Or(string(v.OS), "any")] += float64(v.Replicas)
			}
		}
	}
	for os, n := range ready {
		put("pods_ready", n, cmp.Or(string(os), "any"))
	}
	for os, n := range wanted {
		put("pods_wanted", n, os)
	}
	put("workloads_stalled", float64(stalled))
	pending := map[string]float64{}
	for _, c := range unplaced() {
		pending[holdName(c)] = 0
	}
	for _, h := range s.Holds {
		if _, ok := pending[holdName(h.Code)]; ok {
			pending[holdName(h.Code)] += float64(max(h.Count, 1))
		}
	}
	for reason, n := range pending {
		put("scheduler_pending_pods", n, reason)
	}
}

func nodes(s *state.State, put putter) {
	type key struct{ os, ready string }
	count := map[key]float64{}
	words := map[bool]string{true: "true", false: "false"}
	all := s.SortedNodes()
	for _, n := range all {
		count[key{string(n.Facts.OS), words[n.Ready]}]++
	}
	for k, n := range count {
		put("nodes", n, k.os, k.ready)
	}
	listed := most(all, MaxNodes, func(n *state.Node) bool { return !n.Ready || n.Facts.Unfenced })
	put("nodes_unlisted", float64(len(all)-len(listed)))
	for _, n := range listed {
		name := string(n.Name)
		put("node_ready", number(n.Ready), name)
		put("node_cordoned", number(n.Cordoned), name)
		put("node_unfenced", number(n.Facts.Unfenced), name)
		put("node_pods", float64(len(n.Pods)), name)
	}
}

// sessions are of nodes whose agent is connected.
func (v *views) sessions(put putter) {
	now := time.Now()
	all := most(v.Sessions(), MaxNodes, func(s agent.SessionStatus) bool {
		return now.Sub(s.Heard) > time.Minute || s.ClockAhead.Abs() > time.Second
	})
	for _, s := range all {
		name := string(s.Node)
		put("node_connected", 1, name)
		put("node_last_heard_timestamp_seconds", seconds(s.Heard), name)
		put("node_clock_drift_seconds", s.ClockAhead.Seconds(), name)
		if !s.CertificateEnds.IsZero() {
			put("node_certificate_expiry_timestamp_seconds", seconds(s.CertificateEnds), name)
		}
	}
}

func (v *views) sources(ch chan<- prometheus.Metric, put putter) {
	if v.Sources == nil {
		return
	}
	looks, failed := v.Sources()
	ch <- prometheus.MustNewConstMetric(v.desc["source_look_failures_total"], prometheus.CounterValue, float64(failed))
	for _, l := range most(looks, MaxApplications, func(l act.Look) bool { return l.Lost }) {
		put("source_last_look_timestamp_seconds", seconds(l.At), string(l.App))
	}
}

// wall is a wall time in nanoseconds as Prometheus wants it.
func wall(at int64) float64 {
	if at <= 0 {
		return 0
	}
	return float64(at) / 1e9
}

// unplaced are the codes for which pods have no node.
func unplaced() []state.HoldCode {
	return []state.HoldCode{
		state.HoldImageUnknown, state.HoldImageOS, state.HoldNoNode, state.HoldNoRoom, state.HoldNodeLost, state.HoldUnsupported, state.HoldConfigMissing,
		state.HoldPriority, state.HoldVolume, state.HoldClaimMissing, state.HoldClaimBusy, state.HoldGated,
	}
}

// holdCodes are all codes that this version gives.
func holdCodes() []state.HoldCode {
	var all []state.HoldCode
	for c := range 256 {
		if code := state.HoldCode(c); !strings.HasPrefix(holdName(code), "code_") {
			all = append(all, code)
		}
	}
	return all
}
