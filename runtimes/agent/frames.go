package agent

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// The wire: one gRPC service that an agent calls. Session is the node's stream;
// Tunnel is one more for each log, exec or port-forward that the controller
// opened by a frame of Session. Frames are recordpb inside BytesValue, so both
// ends may be a version apart: what one doesn't know it skips.
const (
	serviceName   = "tandem.agent.v1.Agent"
	sessionMethod = "Session"
	tunnelMethod  = "Tunnel"

	// frameMost is the largest frame: a whole assignment with its ConfigMaps
	// and Secrets, of 1 MB each at most.
	frameMost = 256 << 20
)

// upFrame goes from agent to controller. One of its fields is set.
type upFrame struct {
	Hello  *wireHello    `pb:"1"`
	Report *state.Report `pb:"2"`
	Renew  uint64        `pb:"3"` // number of the renewal within the session, from 1
	Sent   time.Duration `pb:"4"` // with Renew: the agent's clock
	Wall   int64         `pb:"5"` // likewise: its wall clock, in nanoseconds
	Speaks *speaks       `pb:"6"` // with Hello
}

// downFrame goes from controller to agent. One of its fields is set.
type downFrame struct {
	Welcome *wireWelcome `pb:"1"`
	Delta   *wireDelta   `pb:"2"`
	Granted uint64       `pb:"3"` // the renewal that it answers
	Open    *wireOpen    `pb:"4"`
	Resync  bool         `pb:"5"`
	Head    *Head        `pb:"6"` // with Granted
	Network *wireNetwork `pb:"7"`
	Grant   *wireGrant   `pb:"8"`
	Speaks  *speaks      `pb:"9"` // with Welcome
}

type wireHello struct {
	Node        state.NodeName  `pb:"1"`
	Facts       state.NodeFacts `pb:"2"`
	BootID      string          `pb:"3"`
	Incarnation uint64          `pb:"4"`
	Epoch       uint64          `pb:"5"`
	Generation  uint64          `pb:"6"`
	Head        Head            `pb:"7"`
}

type wireWelcome struct {
	Head   Head           `pb:"1"`
	Renew  time.Duration  `pb:"2"`
	Lease  time.Duration  `pb:"3"`
	Proof  []state.Digest `pb:"175"`
	Proves bool           `pb:"176"`
}

// wireGrant is a lease. Granted alone says only that the stream lives.
type wireGrant struct {
	Sent       time.Duration `pb:"1"`
	Epoch      uint64        `pb:"2"`
	Generation uint64        `pb:"3"`
	Endless    bool          `pb:"4"`
}

// wireOpen asks the agent for a tunnel.
type wireOpen struct {
	ID   uint64      `pb:"1"`
	Logs *LogRequest `pb:"2"`
	Exec *wireExec   `pb:"3"`
	Port *wirePort   `pb:"4"`
}

type wireExec struct {
	UID       state.UID `pb:"1"`
	Container string    `pb:"2"`
	Command   []string  `pb:"3"`
	TTY       bool      `pb:"4"`
	Stdin     bool      `pb:"5"`
	Stdout    bool      `pb:"6"`
	Stderr    bool      `pb:"7"`
}

type wirePort struct {
	UID  state.UID `pb:"1"`
	Port uint32    `pb:"2"`
}

// A channel says what the data of a chunk is.
type channel uint8

const (
	chanBegin  channel = iota + 1 // the agent's first: ID is set
	chanStdin                     // and a port's bytes towards the pod
	chanStdout                    // and logs, and a port's bytes from the pod
	chanStderr
	chanResize
	chanEnd  // of an exec's stdin; from the agent: of the request, with its result
	chanHalf // no more bytes of a port from this end
)

// chunk is a frame of a tunnel.
type chunk struct {
	ID      uint64     `pb:"1"`
	Channel channel    `pb:"2"`
	Data    []byte     `pb:"3"`
	Width   uint32     `pb:"4"`
	Height  uint32     `pb:"5"`
	Code    int64      `pb:"6"`
	Class   step.Class `pb:"7"` // of an error; 0: none
	Text    string     `pb:"8"`
}

// chunkMost is how much data one chunk carries.
const chunkMost = 32 << 10

// messenger is either end of a gRPC stream.
type messenger interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

func send(s messenger, v any) error {
	b, err := recordpb.Marshal(v)
	if err != nil {
		return err
	}
	return s.SendMsg(wrapperspb.Bytes(b))
}

func receive(s messenger, v any) error {
	var b wrapperspb.BytesValue
	if err := s.RecvMsg(&b); err != nil {
		return err
	}
	return recordpb.UnmarshalLenient(b.GetValue(), v)
}

// A remoteError is an error of the other end: its words and its class.
type remoteError struct {
	text  string
	class error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.class }

func (c *chunk) fail(err error) {
	if err != nil {
		c.Class, c.Text = ClassOf(err), err.Error()
	}
}

func (c *chunk) err() error {
	class := runtimes.ErrUnavailable
	switch c.Class {
	case 0, step.OK:
		return nil
	case step.Rejected, step.ConfigMissing:
		class = runtimes.ErrRejected
	case step.Unsupported:
		class = runtimes.ErrUnsupported
	case step.NotFound, step.NeverPull:
		class = runtimes.ErrNotFound
	case step.Unavailable:
	}
	return &remoteError{c.Text, class}
}

// lost makes an error of a stream one of our classes.
func lost(err error) error {
	if err == nil {
		return nil
	}
	for _, class := range []error{runtimes.ErrUnavailable, runtimes.ErrRejected, runtimes.ErrUnsupported, runtimes.ErrNotFound} {
		if errors.Is(err, class) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
}

func streamDesc(name string) *grpc.StreamDesc {
	return &grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: true}
}
