package reconciler

import (
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/plan/schedule"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// command does what a person asks. What is asked is recorded first, and what
// follows has it as its cause.
func (m *Machine) command(e *state.Command) {
	m.actor = e.Actor
	if m.promotionCommand(e) {
		return
	}
	reply := &state.Reply{ID: e.ID}
	reply.Code, reply.Why = m.check(e)
	if reply.Code == state.ReplyDone {
		r := m.emit(m.appOfObject(e.Object), &state.Commanded{
			Verb: e.Verb, Object: e.Object, Reason: e.Reason, Detail: e.Detail, Until: e.Until, ID: e.Hold,
		})
		reply.Seq = r.Seq
		m.cause = r.Seq
		m.do(e)
	}
	m.out.Effects = append(m.out.Effects, reply)
}

func (m *Machine) appOfObject(ref state.Ref) state.AppName {
	if o := m.fold.Objects[ref]; o != nil {
		return o.App
	}
	switch ref.Kind {
	case "Application":
		return state.AppName(ref.Name)
	case "Pod":
		if p := m.fold.ByName[state.PodKey{Namespace: ref.Namespace, Name: ref.Name}]; p != nil {
			return m.appOf(p)
		}
	}
	return ""
}

// check says whether the command makes sense now, and where the code alone
// doesn't say it, why not.
func (m *Machine) check(e *state.Command) (code state.ReplyCode, why string) {
	found := true
	switch e.Verb {
	case state.CmdApprove, state.CmdReject:
		found = m.fold.Holds[e.Hold] != nil
	case state.CmdCordon, state.CmdUncordon, state.CmdDrain:
		found = m.fold.Nodes[state.NodeName(e.Object.Name)] != nil
	case state.CmdRemoveNode:
		n := m.fold.Nodes[state.NodeName(e.Object.Name)]
		if n != nil && n.Ready && !n.Facts.Simulated {
			return state.ReplyRefused, "it reports; stop its agent first, or drain it"
		}
		found = n != nil
	case state.CmdEvict:
		p := m.fold.ByName[state.PodKey{Namespace: e.Object.Namespace, Name: e.Object.Name}]
		if p != nil && !p.Stopping && !p.Ended() {
			if refuses, _ := schedule.May(schedule.Disruptions(m.fold), p); refuses != nil {
				return state.ReplyBudget, refuses.Words()
			}
		}
		found = p != nil
	case state.CmdDropClaim:
		return m.mayDrop(m.fold.Claims[e.Object]), ""
	case state.CmdDeletePod, state.CmdExec, state.CmdPortForward:
		found = m.fold.ByName[state.PodKey{Namespace: e.Object.Namespace, Name: e.Object.Name}] != nil
	case state.CmdRestart:
		found = m.fold.Workloads[e.Object] != nil
	case state.CmdSync, state.CmdSuspend, state.CmdResume:
		found = m.fold.Apps[state.AppName(e.Object.Name)] != nil
	case state.CmdDown, state.CmdMakeToken, state.CmdRevokeToken, state.CmdJoin:
	case state.CmdPromote, state.CmdRollback:
		found = false // promotionCommand has answered for those that there are
	case state.CmdErase:
		return state.ReplyRefused, "" // on a stopped log only
	case state.CmdRotateKey:
		if e.Key == "" || m.rotating != nil {
			return state.ReplyRefused, "another key is just being taken"
		}
	}
	if !found {
		return state.ReplyNotFound, ""
	}
	return state.ReplyDone, ""
}

func (m *Machine) do(e *state.Command) {
	switch e.Verb {
	case state.CmdApprove:
		m.approve(m.fold.Holds[e.Hold])
	case state.CmdCordon, state.CmdUncordon:
		name := state.NodeName(e.Object.Name)
		if on := e.Verb == state.CmdCordon; m.fold.Nodes[name].Cordoned != on {
			m.emit("", &state.NodeCordoned{Node: name, On: on})
		}
	case state.CmdRemoveNode:
		m.removeNode(m.fold.Nodes[state.NodeName(e.Object.Name)])
	case state.CmdDeletePod:
		p := m.fold.ByName[state.PodKey{Namespace: e.Object.Namespace, Name: e.Object.Name}]
		if !p.Stopping {
			m.emit(m.appOf(p), &state.PodStopping{UID: p.UID, Why: state.StopRequested})
		}
		m.hurry(p, e.Grace)
	case state.CmdEvict:
		p := m.fold.ByName[state.PodKey{Namespace: e.Object.Namespace, Name: e.Object.Name}]
		if !p.Stopping {
			m.emit(m.appOf(p), &state.PodStopping{UID: p.UID, Why: state.StopDrained})
		}
		m.hurry(p, e.Grace)
	case state.CmdDrain:
		// That it is drained is in the record already: its pods leave by budget.
		name := state.NodeName(e.Object.Name)
		if !m.fold.Nodes[name].Cordoned {
			m.emit("", &state.NodeCordoned{Node: name, On: true})
		}
	case state.CmdDropClaim:
		m.dropClaim(m.fold.Claims[e.Object], state.DropRequested)
	case state.CmdDown:
		m.down()
	case state.CmdSuspend, state.CmdResume:
		m.emit(state.AppName(e.Object.Name), &state.AppSuspended{On: e.Verb == state.CmdSuspend, Until: e.Until})
	case state.CmdSync:
		m.sync(state.AppName(e.Object.Name)) // the shell looks at Git
	case state.CmdRotateKey:
		m.rotating = &rotating{key: e.Key, cause: m.cause, actor: e.Actor}
	case state.CmdRestart, state.CmdExec, state.CmdPortForward, state.CmdReject, state.CmdPromote, state.CmdRollback, state.CmdErase, state.CmdMakeToken, state.CmdRevokeToken, state.CmdJoin:
		// The record itself is what counts: the fold or the shell acts on it.
	}
}

// rotating is the key that a person asked the log to be signed with.
type rotating struct {
	key   string
	cause state.Seq
	actor state.Text
}

// rotate says that another key signs what comes after this step: it is the step's last
// record, so that the log can end a batch with it.
func (m *Machine) rotate() {
	r := m.rotating
	if r == nil {
		return
	}
	m.rotating = nil
	m.cause, m.actor = r.cause, r.actor
	m.emit("", &state.SigningKeyRotated{Key: r.key})
	m.cause, m.actor = 0, state.Text{}
}

// tokenTold records what became of a join token.
func (m *Machine) tokenTold(e *state.JoinTokenTold) {
	m.cause, m.actor = e.Cause, e.Actor
	noted := e.JoinTokenNoted
	m.emit("", &noted)
}

// approve lets what a person approved go on.
func (m *Machine) approve(h *state.Hold) {
	m.emit(h.App, &state.Released{ID: h.ID, Object: h.Object, Approved: true})
	if h.Code == state.HoldRewind {
		m.goOn(h.App)
	}
	if h.Code != state.HoldPrune {
		return
	}
	a := m.fold.Apps[h.App]
	var changes []state.Change
	for _, o := range m.fold.Inventory(h.App).Objects {
		if ref := o.Object.Ref; o.Kept {
			c := state.Change{Ref: ref, Verb: state.Delete}
			if ref.Kind == "ConfigMap" || ref.Kind == "Secret" {
				c.Verb = state.Retire
			}
			changes = append(changes, c)
		}
	}
	slices.SortFunc(changes, func(x, y state.Change) int { return x.Ref.Compare(y.Ref) })
	for i := range changes {
		if c := m.fold.Claims[changes[i].Ref]; c != nil {
			m.dropClaim(c, state.DropApproved)
		}
	}
	m.emit(h.App, &state.RevisionApplied{Revision: a.Revision, Commit: a.Commit, Manifest: a.Manifest, Changes: changes})
	m.emit(h.App, &state.Released{ID: h.ID, Object: h.Object})
}

// down ends every application, as `tandem down` asks.
func (m *Machine) down() {
	for _, a := range m.fold.SortedApps() {
		m.removeApp(a)
	}
}

// hurry gives a pod that stops the time that a person asks for. A pod that was
// told to stop before is given no more than it has left, as under Kubernetes.
func (m *Machine) hurry(p *state.Pod, grace time.Duration) {
	told := p.StopAt == m.now // by this command
	left := p.StopAt.Mono + p.Grace() - m.now.Mono
	if grace <= 0 || told && grace == left || !told && grace >= left {
		return
	}
	m.emit(m.appOf(p), &state.PodHurried{UID: p.UID, Grace: grace})
}

func sortPods(pods []*state.Pod) {
	slices.SortFunc(pods, func(a, b *state.Pod) int { return strings.Compare(string(a.UID[:]), string(b.UID[:])) })
}
