package agent

import (
	"context"
	"io"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// A Head is what a controller says of its log, durably: a later head of another
// log, or a shorter one, is another writer or a restored copy.
type Head struct {
	Log  state.Digest `pb:"1"` // the log's ID
	Size uint64       `pb:"2"`
	Root state.Digest `pb:"3"`
}

// Hello begins a session: who this is, and what it follows.
type Hello struct {
	Node        state.NodeName
	Facts       state.NodeFacts
	BootID      string
	Incarnation uint64
	Epoch       uint64 // of the applied assignment; 0 before the first
	Generation  uint64
	Head        Head // the last that the agent was told
}

// Welcome is the controller's answer.
type Welcome struct {
	Head  Head
	Renew time.Duration // how often to renew the lease
	Lease time.Duration
	Proof []state.Digest // that Head follows from Hello's: RFC 6962's consistency proof
	// Proves says that this end gives proofs. A release that doesn't is held to the
	// length of its log alone, so that agents may be upgraded before it.
	Proves bool
}

// A Link is an agent's way to its controller. A session begins with Open and
// ends with Close, or when the peer is told that it is lost; whoever opened it
// opens another. Reports of one session arrive in order, or the session ends.
type Link interface {
	Open(ctx context.Context, hello Hello, peer Peer) (Session, error)
}

// A Session is the agent's end of an open link.
type Session interface {
	Welcome() Welcome
	// Report sends what changed. An error ends the session.
	Report(ctx context.Context, r *state.Report) error
	// Renew asks for the lease again. Sent is the agent's clock right before; a
	// Grant brings it back. 0: this agent ends nothing, it is only heard.
	Renew(ctx context.Context, sent time.Duration) error
	// Close ends the session and waits until the peer is called no more.
	Close()
}

// A Peer is the agent's end as its controller sees it.
type Peer interface {
	// Assign hands over the newest assignment: the whole of it, never to be
	// changed. It doesn't block.
	Assign(a *state.Assignment)
	// Resync asks for a full report. It doesn't block.
	Resync()
	// Lost says that the session has ended. It doesn't block.
	Lost(err error)
	Server
}

// A GrantPeer is a peer that ends identities when its lease does: its facts say
// Fences.
type GrantPeer interface {
	// Grant hands over a lease. It doesn't wait for the agent.
	Grant(g state.Grant)
}

// A Server is what a controller may ask of a node while a session is open.
type Server interface {
	// Logs is the output of a container.
	Logs(ctx context.Context, r LogRequest) (io.ReadCloser, error)
	// Exec runs a command in a container and returns its exit code.
	Exec(ctx context.Context, r ExecRequest) (int, error)
	// PortForward joins conn to a port of a pod until either end closes.
	PortForward(ctx context.Context, uid state.UID, port uint16, conn io.ReadWriteCloser) error
}

// A LogRequest says which output of which container.
type LogRequest struct {
	UID       state.UID `pb:"1"`
	Container string    `pb:"2"`
	Follow    bool      `pb:"3"`
	Previous  bool      `pb:"4"` // of the life before this one
	Tail      int64     `pb:"5"` // lines; 0: all, below 0: none
	Since     int64     `pb:"6"` // wall nanoseconds; 0: from the start
	Times     bool      `pb:"7"` // each line begins with its time
	Stream    string    `pb:"8"` // stdout or stderr; empty: both
	Most      int64     `pb:"9"` // bytes; 0: no limit
}

// An ExecRequest is a command for a container.
type ExecRequest struct {
	UID       state.UID
	Container string
	runtimes.Exec
}
