package state

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TerminationGrace is how long a pod may take to stop; Kubernetes's default is 30 s.
func TerminationGrace(spec *corev1.PodSpec) time.Duration {
	if spec.TerminationGracePeriodSeconds != nil {
		return time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
	}
	return 30 * time.Second
}

// Grace is how long the pod may take to stop, from StopAt on.
func (p *Pod) Grace() time.Duration {
	if p.StopGrace > 0 {
		return p.StopGrace
	}
	return TerminationGrace(&p.Template.Spec.Spec)
}

func (s *State) applyPod(r *Record) error {
	if f, ok := r.Fact.(*PodPlaced); ok {
		return s.place(r, f)
	}
	var uid UID
	switch f := r.Fact.(type) {
	case *PodStopping:
		uid = f.UID
	case *PodHurried:
		uid = f.UID
	case *PodGone:
		uid = f.UID
	case *PodObserved:
		uid = f.UID
	case *PodFlapping:
		uid = f.UID
	case *PodSettled:
		uid = f.UID
	}
	p := s.Pods[uid]
	if p == nil {
		return fmt.Errorf("there is no pod %s", uid)
	}
	p.Changed = r.Seq
	n := s.Nodes[p.Node]
	switch f := r.Fact.(type) {
	case *PodStopping:
		n.Yielding -= p.yields()
		p.Stopping, p.StopWhy, p.StopAt = true, f.Why, r.At
		n.Yielding += p.yields()
		n.Generation++
	case *PodHurried:
		p.StopGrace, p.StopAt = f.Grace, r.At
		n.Generation++
	case *PodGone:
		if w := s.Workloads[p.Workload]; w != nil && w.Ref.Kind == "Pod" && p.Ended() && !p.Stopping {
			w.Finished = Finished{p.Template.Digest, p.Phase == Failed}
		}
		s.removePod(p, n)
	case *PodObserved:
		if f.Ready && !p.Ready {
			p.ReadySince = r.At
			if w := s.Workloads[p.Workload]; w != nil {
				w.Progress = r.At
			}
		}
		n.Used = n.Used.Sub(p.Charge())
		p.Phase, p.Ready, p.Reason, p.Detail, p.Containers, p.Reported = f.Phase, f.Ready, f.Reason, f.Detail, f.Containers, true
		n.Used = n.Used.Add(p.Charge()) // nothing, once it ended
		if p.Phase != Pending {
			s.begin(p)
		}
		p.IP, _ = netip.ParseAddr(f.IP)
		before := p.Restarts
		p.Restarts = 0
		for i := range f.Containers {
			p.Restarts += f.Containers[i].Restarts
		}
		if p.Restarts > before {
			s.soakAgain(r)
		}
	case *PodFlapping:
		p.Flapping, p.Ready, p.Reason = true, false, ReasonFlapping
	case *PodSettled:
		p.Flapping = false
	}
	return nil
}

func (s *State) place(r *Record, f *PodPlaced) error {
	w, err := s.workload(f.Workload)
	if err != nil {
		return err
	}
	n, err := s.node(f.Node)
	if err != nil {
		return err
	}
	t, err := s.template(w, f.Template)
	if err != nil {
		return err
	}
	n.Generation++
	p := &Pod{
		Key: f.Pod, UID: NewUID(s.LogID, r.Seq, f.Pod.Namespace, f.Pod.Name), Workload: f.Workload, OS: f.OS, Ordinal: f.Ordinal,
		Template: t, Node: f.Node, Isolation: f.Isolation, Placed: r.At, PlacedSeq: r.Seq, PlacedGen: n.Generation,
		Phase: Pending, Reason: ReasonContainerCreating, Changed: r.Seq, Loss: f.Loss,
	}
	s.Pods[p.UID], s.ByName[p.Key] = p, p
	w.Pods = append(w.Pods, p)
	s.leans(w, t, 1)
	w.Serial = max(w.Serial, f.Serial)
	n.Pods[p.UID] = p
	s.uses(p, n, 1)
	n.Used = n.Used.Add(Charge(t.Requests, f.Isolation))
	return nil
}

func (s *State) removePod(p *Pod, n *Node) {
	delete(s.Pods, p.UID)
	if s.ByName[p.Key] == p {
		delete(s.ByName, p.Key)
	}
	if w := s.Workloads[p.Workload]; w != nil {
		if i := slices.Index(w.Pods, p); i >= 0 {
			w.Pods = slices.Delete(w.Pods, i, i+1)
			s.leans(w, p.Template, -1)
		}
	}
	delete(n.Pods, p.UID)
	s.uses(p, n, -1)
	n.Used = n.Used.Sub(p.Charge())
	n.Yielding -= p.yields()
	n.Generation++
}
