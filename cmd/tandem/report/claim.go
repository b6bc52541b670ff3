package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Volume is one row of status: where a claim's data is.
type Volume struct {
	Claim    state.Ref      `json:"claim"`
	Node     state.NodeName `json:"node"`
	Capacity int64          `json:"capacity"` // bytes asked for
	State    string         `json:"state"`
	UID      string         `json:"uid"` // its directory on the node
	Since    time.Time      `json:"since,omitzero"`
}

// Volumes are all volumes, by claim.
func Volumes(s *state.State) []Volume {
	out := []Volume{}
	for _, c := range s.SortedClaims() {
		out = append(out, Volume{Claim: c.Ref, Node: c.Node, Capacity: c.Capacity, State: ClaimState(s, c), UID: c.Volume.String(), Since: c.Bound.Time()})
	}
	return out
}

// ClaimState is what a claim's data is for now.
func ClaimState(s *state.State, c *state.Claim) string {
	n := s.Nodes[c.Node]
	switch {
	case c.Dropped != 0:
		return "being deleted: " + c.Dropped.String()
	case n == nil:
		return "out of reach: its node is removed"
	case !n.Ready:
		return "out of reach: its node is lost"
	}
	if user := userOf(n, c); user != "" {
		return "in use by " + user
	}
	if o := s.Objects[c.Ref]; o != nil {
		if o.Kept {
			return "kept: it left the text"
		}
		return "free"
	}
	w := s.Workloads[c.Workload]
	if w == nil || w.Deleting {
		return "kept: " + Short(c.Workload) + " is gone"
	}
	for _, v := range w.Variants {
		if c.Ordinal >= v.Start && c.Ordinal < v.Start+v.Replicas {
			return "free"
		}
	}
	return "kept: scaled down"
}

// userOf is the first pod, by name, that has the claim.
func userOf(n *state.Node, c *state.Claim) string {
	first := ""
	for _, p := range n.Pods {
		if p.Uses(c.Ref) && (first == "" || p.Key.Name < first) {
			first = p.Key.Name
		}
	}
	return first
}

func volumesText(w io.Writer, volumes []Volume) {
	if len(volumes) == 0 {
		return
	}
	_, _ = fmt.Fprintln(w)
	rows := [][]string{{"VOLUME", "NODE", "ASKED", "STATE"}}
	for _, v := range volumes {
		rows = append(rows, []string{Short(v.Claim), string(v.Node), bytesText(v.Capacity), v.State})
	}
	table(w, rows...)
}

func bytesText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return fmt.Sprint(n)
}

// volumeText is what a pod that must run where its data is waits for.
func volumeText(h *state.Held) string {
	var out []string
	for _, p := range h.Params {
		f := strings.Fields(p)
		if len(f) != 4 {
			continue
		}
		out = append(out, fmt.Sprintf("%s needs %s, which is on %s, %s", f[0], f[1], f[2], volumeWhy(f[3])))
	}
	return strings.Join(out, "; ")
}

func volumeWhy(word string) string {
	switch word {
	case "removed":
		return "a node that was removed"
	case "lost":
		return "which is lost"
	case "cordoned":
		return "which is cordoned"
	case "full":
		return "which has no room"
	case "apart":
		return "while another of its claims is on another node"
	default:
		return "which can't run it"
	}
}

// volumeFix is what a person can do about the first of them.
func volumeFix(h *state.Held) string {
	if len(h.Params) == 0 {
		return ""
	}
	f := strings.Fields(h.Params[0])
	if len(f) != 4 {
		return ""
	}
	giveUp := fmt.Sprintf(", or give the data up: kubectl delete pvc %s -n %s", f[1], h.Object.Namespace)
	switch f[3] {
	case "removed":
		return "let " + f[2] + " join again (its data is still in the agent's directory)" + giveUp
	case "lost":
		return "bring " + f[2] + " back" + giveUp
	case "cordoned":
		return "tandem node uncordon " + f[2] + " --reason …" + giveUp
	case "full":
		return "free room on " + f[2] + ", or ask for less" + giveUp
	case "apart":
		return "give one of the claims up, so that it is made again beside the other: kubectl delete pvc NAME -n " + h.Object.Namespace
	default:
		return "tandem why says what " + f[2] + " lacks" + giveUp
	}
}

// claim tells a record about a claim or its volume.
func (t *Teller) claim(l *Line, fact state.Fact) bool {
	switch f := fact.(type) {
	case *state.ClaimBound:
		t.claims[state.NewUID(t.log, l.Seq, f.Claim.Namespace, f.Claim.Name)] = life{f.Claim, f.Node}
		l.What, l.Object, l.Node, l.Outcome, l.Reason = "bind", f.Claim, string(f.Node), "on "+string(f.Node), bytesText(f.Capacity)+" asked"
	case *state.ClaimDropped:
		l.What, l.Object, l.Outcome, l.Reason = "delete data", f.Claim, "no more use", f.Why.String()
		l.UID, l.Node = f.Volume.String(), string(t.claims[f.Volume].node)
	case *state.VolumeGone:
		c := t.claims[f.Volume]
		l.What, l.Object, l.UID, l.Node, l.Outcome = "delete data", c.ref, f.Volume.String(), string(c.node), "gone"
		if c.ref.IsZero() {
			l.Object = state.Ref{Kind: state.ClaimKind, Name: f.Volume.String()}
		}
		if f.Unseen {
			l.Reason = "its node is removed: nobody looked"
		}
		delete(t.claims, f.Volume)
	case *state.ClaimResized:
		l.What, l.Object, l.Outcome = "resize", f.Claim, bytesText(f.Capacity)+" asked"
	default:
		return false
	}
	return true
}
