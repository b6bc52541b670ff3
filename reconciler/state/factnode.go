package state

import (
	"time"
)

// NodeJoined adds a node, or a new life of one that was removed.
type NodeJoined struct {
	Node   NodeName  `json:"node" pb:"1"`
	Facts  NodeFacts `json:"facts" pb:"2"`
	BootID string    `json:"bootID" pb:"3"`
}

// Kind implements Fact.
func (*NodeJoined) Kind() Kind { return KindNodeJoined }

// NodeChanged replaces what is known of a node's machine.
type NodeChanged struct {
	Node  NodeName  `json:"node" pb:"1"`
	Facts NodeFacts `json:"facts" pb:"2"`
}

// Kind implements Fact.
func (*NodeChanged) Kind() Kind { return KindNodeChanged }

// NodeReady says that a node reports and may be given pods.
type NodeReady struct {
	Node        NodeName `json:"node" pb:"1"`
	BootID      string   `json:"bootID" pb:"2"`
	Incarnation uint64   `json:"incarnation" pb:"3"`
	// Parked: an agent that a clean stop left its leases for ever has connected,
	// but has not yet said that it counts them again.
	Parked bool `json:"parked,omitempty" pb:"4"`
}

// Kind implements Fact.
func (*NodeReady) Kind() Kind { return KindNodeReady }

// NodeSuspect says that a node with identities has been silent for a while, by
// the controller's steady clock. No grant leaves after it before a NodeReady is
// durable, so whichever controller comes next may go on counting from Silent.
type NodeSuspect struct {
	Node   NodeName      `json:"node" pb:"1"`
	Epoch  uint64        `json:"epoch" pb:"2"`
	BootID string        `json:"bootID" pb:"3"`
	Silent time.Duration `json:"silent" pb:"4"`
}

// Kind implements Fact.
func (*NodeSuspect) Kind() Kind { return KindNodeSuspect }

// NodeLost says that a node's lease lapsed. Since is the volatile input of the
// decision: when the node was last heard.
type NodeLost struct {
	Node  NodeName `json:"node" pb:"1"`
	Since Instant  `json:"since" pb:"2"`
}

// Kind implements Fact.
func (*NodeLost) Kind() Kind { return KindNodeLost }

// NodeCordoned says whether a node takes new pods.
type NodeCordoned struct {
	Node NodeName `json:"node" pb:"1"`
	On   bool     `json:"on,omitempty" pb:"2"`
}

// Kind implements Fact.
func (*NodeCordoned) Kind() Kind { return KindNodeCordoned }

// NodeRemoved forgets a node and every pod on it.
type NodeRemoved struct {
	Node NodeName `json:"node" pb:"1"`
}

// Kind implements Fact.
func (*NodeRemoved) Kind() Kind { return KindNodeRemoved }
