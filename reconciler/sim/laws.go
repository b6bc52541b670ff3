package sim

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Law is one that every world is held to.
type Law struct{ Number, Text string }

// Laws are all of them. What checks each says its number.
func Laws() []Law {
	return []Law{
		{"I1", "at most one live process per identity, at every instant, over all nodes"},
		{"I2", "no pod on a node whose OS, build or isolation cannot run what its image is"},
		{"I3", "nothing is placed on a node beyond its room"},
		{"I4", "unavailable ≤ maxUnavailable and total ≤ replicas + surge, over both OSes; disruption budgets and Jobs' parallelism likewise"},
		{"I5", "in an ordered set nothing starts before all below it are available, nothing goes before all above it have gone"},
		{"I6", "below a partition nothing carries the new revision"},
		{"I7", "no data is deleted unless a policy or a person says so; a pod runs where its data is, and on two nodes nobody uses it"},
		{"I8", "no container restarts because an agent or a controller did"},
		{"I9", "nothing is decided from a state older than the last decision"},
		{"I10", "an applied revision follows from the one before it, or a person approved it"},
		{"I11", "what was acknowledged survives every crash"},
		{"I12", "when faults stop, all becomes as Git says, and then nothing more is written"},
		{"I13", "every record replays to the same bytes, and one log has one state"},
		{"I14", "no secret in a record"},
		{"I15", "nothing is left behind on a node"},
		{"leases", "a node that is silent for longer than a lease counts as lost, and no sooner"},
		{"gone", "what counts as gone does not run"},
		{"records first", "nothing leaves before the records that it rests on are durable"},
		{"complete", "what was begun has an outcome in the log once all is at peace, and nothing ended that was not begun"},
		{"one meaning", "a revision, and an image name within it, has one meaning"},
		{"services", "a Service leads to the pods that answer, to no other, and on every node when faults have stopped"},
		{"pulls", "a node pulls the newest manifest that it can run, and once for all who want it"},
		{"incremental = full", "planning what was touched decides what planning everything would"},
	}
}

// laws are what the laws remember from step to step.
type laws struct {
	applied  map[state.Revision]state.Digest // what each revision was
	at       map[state.AppName]int           // the commit that each application is at
	rewinds  map[string]string               // holds of a rewind, and the revision that waits
	approved map[string]bool                 // revisions that a person let through
	placed   map[state.UID]state.Seq         // the record that began each life
	where    map[state.UID]state.NodeName
	fast     map[state.UID]bool // of the shortest lease
	stopping map[state.UID]bool
	alive    map[state.Ref]int
	images   map[state.ImageKey]state.Digest
	fired    map[state.Ref]int64 // of each CronJob, the time for which it last began a Job
	acked    map[state.Seq][32]byte
	read     state.Seq // the highest record that a reader has seen

	second time.Duration // hurries: since when it counts
	steps  int
}

func newLaws() *laws {
	return &laws{
		applied: map[state.Revision]state.Digest{}, at: map[state.AppName]int{}, rewinds: map[string]string{}, approved: map[string]bool{},
		placed: map[state.UID]state.Seq{}, where: map[state.UID]state.NodeName{}, fast: map[state.UID]bool{}, stopping: map[state.UID]bool{},
		alive: map[state.Ref]int{}, images: map[state.ImageKey]state.Digest{}, fired: map[state.Ref]int64{}, acked: map[state.Seq][32]byte{},
	}
}

// alone is I1: no identity runs twice, on any node, at any instant. A machine
// that was suspended is excepted for the moment in which its agent finds out:
// decision 8 assumes that no pause is hidden from the boot clock.
func (w *world) alone(pod *state.AssignedPod) {
	if pod.Workload.Kind != "StatefulSet" && pod.Workload.Kind != "Pod" {
		return
	}
	for _, n := range w.nodes {
		if n.frozen || n.thawed > 0 && w.now-n.thawed < 5*time.Second {
			continue
		}
		for _, c := range n.containers {
			if c.Running && c.pod.Workload == pod.Workload && c.pod.Key == pod.Key && c.UID != pod.UID {
				w.fail("I1", "%s runs twice: as %s and, on %s, as %s", pod.Key, pod.UID, n.name, c.UID)
			}
		}
	}
}

// obey checks the laws that a step can break.
func (w *world) obey(s *state.State, records []*state.Record) {
	w.obeyLeases(s)
	if len(records) == 0 {
		return
	}
	for _, n := range s.Nodes {
		var used state.Resources
		for _, p := range n.Pods {
			used = used.Add(p.Charge())
		}
		if used != n.Used {
			w.fail("I3", "node %s counts %+v as used, its pods ask %+v", n.Name, n.Used, used)
		}
	}
	for _, r := range records {
		w.obeyRecord(s, r, records)
	}
	w.obeyClaims(s, records)
	w.obeyTotals(s)
	w.laws.note(s, records)
}

func (w *world) obeyRecord(s *state.State, r *state.Record, all []*state.Record) {
	l := w.laws
	switch f := r.Fact.(type) {
	case *state.PodGone:
		w.obeyGone(s, w.node(l.where[f.UID]), f)
	case *state.NodeLost:
		if n := w.node(f.Node); n != nil && w.now-n.fresh < l.patience(f.Node) {
			w.fail("leases", "%s is lost, and was heard of %s ago", n.name, w.now-n.fresh)
		}
	case *state.RevisionApplied:
		w.obeyApplied(r.App, f)
	case *state.AppRemoved:
		delete(l.at, f.Name) // one that comes again begins anew
	case *state.RevisionSeen:
		w.obeyReachable(r.App, f.Revision)
	case *state.RevisionsSeen:
		for _, app := range f.Apps {
			w.obeyReachable(app, f.Revision)
		}
	case *state.Held:
		if f.Code == state.HoldRewind {
			l.rewinds[f.ID] = f.Params[0]
		}
	case *state.Released:
		if rev := l.rewinds[f.ID]; f.Approved && rev != "" {
			l.approved[rev] = true
		}
	case *state.ImageResolved:
		w.obeyImage(r.App, f)
	case *state.PodPlaced:
		w.obeyRoom(s, r, f)
		w.obeyPlaced(s, f)
		w.obeyJob(s, f)
		l.placed[state.NewUID(s.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name)] = r.Seq
	case *state.PodStopping:
		if l.stopping[f.UID] {
			w.fail("I9", "%s is told to stop again", f.UID)
		}
		l.stopping[f.UID] = true
		w.obeyStopping(s, f)
		w.obeyBudget(s, f, all)
	case *state.CronFired:
		w.obeyCron(s, f)
	}
}

// rebuild begins anew from what survived: what was decided and not durable never
// was.
func (l *laws) rebuild(s *state.State) {
	clear(l.where)
	clear(l.fast)
	clear(l.stopping)
	clear(l.alive)
	clear(l.images)
	clear(l.fired)
	clear(l.at)
	for uid, p := range s.Pods {
		l.where[uid], l.placed[uid] = p.Node, p.PlacedSeq
		if p.Loss == lease.FailoverFast {
			l.fast[uid] = true
		}
		if p.Stopping {
			l.stopping[uid] = true
		}
	}
	for ref, wl := range s.Workloads {
		l.alive[ref] = count(wl, s.At).alive
		if wl.Cron != nil {
			l.fired[ref] = wl.Cron.Last
		}
	}
	for key, im := range s.Images {
		if !im.Assumed {
			l.images[key] = im.Index
		}
	}
	for name, a := range s.Apps {
		if !a.Manifest.IsZero() && !a.Removed {
			l.at[name] = number(a.Revision)
		}
	}
}

// note keeps what the next step is compared with.
func (l *laws) note(s *state.State, records []*state.Record) {
	for _, r := range records {
		switch f := r.Fact.(type) {
		case *state.PodPlaced:
			uid := state.NewUID(s.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name)
			l.where[uid] = f.Node
			if f.Loss == lease.FailoverFast {
				l.fast[uid] = true
			}
		case *state.PodGone:
			delete(l.where, f.UID)
			delete(l.fast, f.UID)
			delete(l.stopping, f.UID)
		}
	}
	for ref, wl := range s.Workloads {
		l.alive[ref] = count(wl, s.At).alive
	}
}

// obeyRoom is I2 and I3 for one placement: the node's OS and its room.
func (w *world) obeyRoom(s *state.State, r *state.Record, f *state.PodPlaced) {
	n := s.Nodes[f.Node]
	p := s.Pods[state.NewUID(s.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name)]
	if n == nil || p == nil {
		return
	}
	if p.Template.OS != state.AnyOS && p.Template.OS != n.Facts.OS {
		w.fail("I2", "%s is a %s pod on %s node %s", p.Key, p.Template.OS, n.Facts.OS, n.Name)
	}
	if !suits(&n.Facts, p.Template) {
		w.fail("I2", "%s is placed on %s (%s %s), for which its image has nothing", p.Key, n.Name, n.Facts.OS, n.Facts.OSVersion)
	}
	if !n.Facts.Allocatable.Fits(n.Used) {
		w.fail("I3", "node %s is over-committed with %s: %+v of %+v", n.Name, p.Key, n.Used, n.Facts.Allocatable)
	}
}

// obeyGone: what is gone does not run, and its node, but for one that a person
// removed, had been told of it.
func (w *world) obeyGone(s *state.State, n *node, f *state.PodGone) {
	if n != nil && !f.Fenced && n.told < w.laws.placed[f.UID] && s.Nodes[n.name] != nil {
		w.fail("gone", "%s counts as gone, and %s was never told to run it", f.UID, n.name)
	}
	for _, n := range w.nodes {
		for k, c := range n.containers {
			if k.uid == f.UID && c.Running && !n.frozen {
				w.fail("gone", "%s counts as gone and runs on %s", c.pod.Key, n.name)
			}
		}
	}
}

// patience is how long a node is silent before it may count as lost: as its
// shortest lease lasts.
func (l *laws) patience(name state.NodeName) time.Duration {
	for uid, node := range l.where {
		if node == name && l.fast[uid] {
			return lease.FailoverFast.Terms().Wait
		}
	}
	return lease.Failover.Terms().Wait
}

// obeyApplied: one revision has one meaning.
func (w *world) obeyApplied(app state.AppName, f *state.RevisionApplied) {
	key := state.Revision(app) + " " + f.Revision
	if old, ok := w.laws.applied[key]; ok && old != f.Manifest {
		w.fail("one meaning", "revision %s is applied again, as something else", f.Revision)
	}
	w.laws.applied[key] = f.Manifest
	maps.DeleteFunc(w.laws.images, func(k state.ImageKey, _ state.Digest) bool { return k.App == app })
	w.obeyReachable(app, f.Revision)
}

// obeyReachable is I10.
func (w *world) obeyReachable(app state.AppName, rev state.Revision) {
	now := number(rev)
	before, ok := w.laws.at[app]
	if ok && !w.repo.follows(before, now) && !w.laws.approved[string(rev)] {
		w.fail("I10", "%s goes from commit %d to %d, which does not follow from it, and nobody approved that", app, before, now)
	}
	w.laws.at[app] = now
}

// obeyImage: within one manifest of one application a name has one meaning.
func (w *world) obeyImage(app state.AppName, f *state.ImageResolved) {
	key := state.ImageKey{App: app, Manifest: f.Manifest, Name: f.Image.Name}
	if old, ok := w.laws.images[key]; ok && old != f.Image.Index {
		w.fail("one meaning", "image %s means something else now, in the same manifest", f.Image.Name)
	}
	if !f.Image.Assumed {
		w.laws.images[key] = f.Image.Index
	}
}

// obeyLeases: a node that is silent for longer than a lease is known to be lost.
func (w *world) obeyLeases(s *state.State) {
	for _, n := range w.nodes {
		silent := w.now - max(n.any, w.ctl.born, w.ctl.stalled)
		if fold := s.Nodes[n.name]; fold != nil && fold.Ready && silent > lease.Failover.Terms().Wait+time.Second {
			w.fail("leases", "%s is silent for %s and counts as ready", n.name, silent)
		}
	}
}

// sameFold: there is one state for one log.
func (w *world) sameFold(what string, a, b *state.State) {
	x, err := recordpb.Marshal(a.Snapshot())
	y, err2 := recordpb.Marshal(b.Snapshot())
	if err != nil || err2 != nil || !bytes.Equal(x, y) {
		w.fail("I13", "%s gives another state (%v, %v)", what, err, err2)
	}
}

// tells is I14: a record has no secret, neither in clear nor as a digest that a
// dictionary finds.
func (w *world) tells(r *state.Record, raw []byte) {
	if bytes.Contains(raw, []byte(canary)) {
		w.fail("I14", "record %d, %s, holds a secret's value", r.Seq, r.Fact.Kind())
	}
	if k := r.Fact.Kind(); k != state.KindRevisionApplied && k != state.KindRevised {
		return
	}
	for _, s := range w.repo.specs {
		for _, o := range s.objects(0) {
			if o.Ref.Kind != "Secret" {
				continue
			}
			for _, value := range secretValues(o) {
				if sum := sha256.Sum256(value); bytes.Contains(raw, sum[:]) {
					w.fail("I14", "record %d, %s, holds a digest of a secret without a key", r.Seq, r.Fact.Kind())
				}
			}
		}
	}
}

// same is I13 for one record: read and written again it is the same bytes.
func (w *world) same(raw []byte) {
	r, err := recordpb.UnmarshalRecord(raw)
	if err != nil {
		return // whoever replays it says so
	}
	if again, err := recordpb.MarshalRecord(r); err != nil || !bytes.Equal(raw, again) {
		w.fail("I13", "record %d, %s, is written again as other bytes (%v)", r.Seq, r.Fact.Kind(), err)
	}
}

// acknowledged notes what a person was told is done.
func (w *world) acknowledged(e *state.Reply) {
	if e.Code == state.ReplyDone && e.Seq > 0 && int(e.Seq) <= len(w.ctl.disk) {
		w.laws.acked[e.Seq] = sha256.Sum256(w.ctl.disk[e.Seq-1])
	}
	w.laws.read = max(w.laws.read, w.ctl.seq())
}

// remembers is I11: every record that a person was answered with is there, and
// no reader is shown an older log than before.
func (w *world) remembers() {
	for _, seq := range sortedKeys(w.laws.acked) {
		if int(seq) > len(w.ctl.disk) || sha256.Sum256(w.ctl.disk[seq-1]) != w.laws.acked[seq] {
			w.fail("I11", "record %d was acknowledged, and is not in the log", seq)
		}
	}
	if w.laws.read > w.ctl.seq() {
		w.fail("I11", "a reader has seen record %d, %d survived", w.laws.read, w.ctl.seq())
	}
}

// hurries is the other half of I12: nothing goes round and round.
func (w *world) hurries() {
	l := w.laws
	if w.now-l.second >= time.Second {
		l.second, l.steps = w.now, 0
	}
	if l.steps++; l.steps > 20_000 {
		w.fail("I12", "a hot loop: %d steps within a second", l.steps)
	}
}
