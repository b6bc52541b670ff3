package state

import (
	"fmt"
)

func (s *State) applyNode(r *Record) error {
	switch f := r.Fact.(type) {
	case *NodeJoined:
		old := s.Nodes[f.Node]
		n := &Node{Name: f.Node, Facts: f.Facts, BootID: f.BootID, Joined: r.At, Duty: Duty{Tainted: r.At}, Epoch: 1, Index: s.NodeCount, Pods: map[UID]*Pod{}, Claims: map[Ref]*Claim{}}
		if old != nil {
			return fmt.Errorf("node %s joined twice", f.Node)
		}
		s.NodeCount++
		n.Epoch = uint64(r.Seq)
		s.Nodes[f.Node] = n
		s.facts++
		s.watch(n)
		s.returned(n)
	case *NodeChanged:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		before := n.Facts.Taints
		n.Facts = f.Facts
		s.facts++
		s.duty(r, before)
	case *NodeReady:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.Ready, n.Parked, n.ReadyChange, n.Silent = true, f.Parked, r.At, 0
		n.BootID, n.Incarnation = f.BootID, f.Incarnation
		for _, p := range n.Pods {
			p.Lost = false
		}
	case *NodeLost:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.Ready, n.ReadyChange = false, r.At
		for _, p := range n.Pods {
			// Ready and Reason stay as its agent last said: where the same session
			// goes on, nobody says it again.
			p.Lost, p.Changed = true, r.Seq
		}
	case *NodeSuspect:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.Silent = f.Silent
	case *NodeCordoned:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.Cordoned = f.On
		s.duty(r, nil)
	case *NodeRemoved:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		if len(n.Pods) > 0 {
			return fmt.Errorf("node %s is removed while it has %d pods", f.Node, len(n.Pods))
		}
		delete(s.Nodes, f.Node)
		delete(s.Restless, f.Node)
		s.facts++
	}
	return nil
}

func (s *State) node(name NodeName) (*Node, error) {
	if n := s.Nodes[name]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("there is no node %s", name)
}
