// Package runtimes says what a node's runtime must do.
//
//	sources ──► render ──► reconciler ──assignment──► [ runtimes ] ──► machines
//
// In: pods to run, one call at a time, from the agent. Out: what runs. The
// implementations are containerd (Linux), hcs (Windows) and simulated.
package runtimes

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// Errors are classes. A caller acts on the class and shows the text.
var (
	ErrUnavailable = errors.New("unavailable")   // try again later
	ErrRejected    = errors.New("rejected")      // try again when Git changes
	ErrUnsupported = errors.New("not supported") // never here: place it elsewhere
	ErrNotFound    = errors.New("not found")     // no such sandbox, container or image
)

// A Runtime runs containers in pods on one node; the agent decides which and
// when. A pod begins with its Sandbox (namespaces, address), holds containers
// that Run and Stop one by one, and ends with Remove. Every method is
// idempotent by UID, container and attempt, and safe for concurrent use. What
// it runs outlives the process that called it. runtimetest holds each
// implementation to this text, directly and through the wire.
type Runtime interface {
	// Describe says what this machine is and can take.
	Describe(ctx context.Context) (state.NodeFacts, error)
	// Pull makes an image present and unpacked.
	Pull(ctx context.Context, image Image) error
	// Sandbox makes the pod's namespaces and address, or finds them.
	Sandbox(ctx context.Context, pod Sandbox) (SandboxStatus, error)
	// Run starts a container. An earlier attempt's remains are removed first;
	// the same attempt is found again, running or ended.
	Run(ctx context.Context, c Container) error
	// Stop asks a container to end and kills it after grace. It returns when
	// the container has ended; one that isn't there has.
	Stop(ctx context.Context, uid state.UID, container string, grace time.Duration) error
	// Remove ends a pod: containers are killed, and nothing of it is left.
	Remove(ctx context.Context, uid state.UID) error
	// Observe waits until something differs from after (a value that an
	// earlier Observe returned; 0: now) and says all that exists.
	Observe(ctx context.Context, after uint64) (Observation, error)
}

// An Image is what to run: a digest that the controller resolved, and the name
// that people know it by.
type Image struct {
	Name   string
	Digest state.Digest // of the platform's manifest; zero on simulated nodes that assume it
	Policy string       // Always, IfNotPresent, Never

	Credentials images.Credentials // for its registry, besides the machine's own
}

// An ImageKeeper removes images that no pod needs when its disk fills up.
type ImageKeeper interface {
	// Keep says which images pods that are to run here need, by the digest of
	// their manifest: the newest counts. It comes before any Pull of them.
	Keep(images []state.Digest)
}

// A Sandbox is what the containers of a pod share.
type Sandbox struct {
	UID         state.UID
	Key         state.PodKey
	Hostname    string
	Isolation   state.Isolation
	HostNetwork bool
	SharePID    bool
	Labels      map[string]string
	DNS         []string // lines of resolv.conf; empty: the host's
	Ports       []Port   // host ports
	Domain      string   // below which the hostname is a name of its own; empty: none
	Hosts       []string // lines added to the file of hosts
	Sysctls     map[string]string
}

// Port maps a port of the host to one of the pod.
type Port struct {
	Protocol  string // TCP, UDP
	HostIP    string
	HostPort  uint16
	Container uint16
}

// SandboxStatus is what came of a sandbox.
type SandboxStatus struct {
	IP string // empty where the runtime gives none
}

// A Container is everything that a runtime needs to start one: the agent has
// resolved variables, volumes and limits.
type Container struct {
	UID        state.UID
	Name       string
	Attempt    int32 // counts the lives of this container within the pod, from 0
	Image      Image
	Command    []string // replaces the image's entrypoint where not empty
	Args       []string // replaces the image's command where not empty
	Env        []string // "NAME=value", after the image's own
	WorkingDir string
	Mounts     []Mount
	Limits     Limits
	Security   Security
	TTY        bool
	Stdin      bool
	LogPath    string // stdout is appended to it as written; its directory exists
	ErrPath    string // stderr, likewise; empty: LogPath
	Init       bool   // it is to end before others start; a sidecar is none
}

// A Mount puts a directory or file of the host into a container.
type Mount struct {
	Source    string // on the host; the agent made it
	Target    string
	ReadOnly  bool
	Propagate string // "", HostToContainer, Bidirectional
}

// Limits are a container's resources. Zero means none said.
type Limits struct {
	CPURequest int64 // thousandths of a core
	CPULimit   int64
	Memory     int64 // bytes
	PIDs       int64
	OOMScore   int
}

// Security is how much a container may do.
type Security struct {
	User, Group     *int64
	Groups          []int64
	RunAsNonRoot    bool
	UserName        string // Windows: runAsUserName
	Privileged      bool
	NoNewPrivileges bool
	ReadOnlyRoot    bool
	Add, Drop       []string // capabilities, without CAP_
	Seccomp         string   // "", RuntimeDefault, Unconfined, or a path of a profile
}

// An Observation is all that exists on the node now.
type Observation struct {
	Version    uint64 // hand it to the next Observe
	Sandboxes  []SandboxObserved
	Containers []ContainerObserved
}

// SandboxObserved is a pod that has something on this node.
type SandboxObserved struct {
	UID state.UID
	Key state.PodKey
	IP  string
}

// ContainerObserved is a container that runs or has ended.
type ContainerObserved struct {
	UID        state.UID
	Name       string
	Attempt    int32
	Running    bool
	ExitCode   int32
	OOMKilled  bool
	StartedAt  time.Time
	FinishedAt time.Time
	Error      string // why it couldn't be started, where it couldn't
	Writing    bool   // it has ended, but the last of its output may still come
}

// An Execer runs commands in a running container.
type Execer interface {
	// Exec runs a command and returns its exit code. A nil stream is closed.
	Exec(ctx context.Context, uid state.UID, container string, x Exec) (int, error)
}

// Exec is a command in a container.
type Exec struct {
	Command        []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan Size
}

// Size is a terminal's, in characters.
type Size struct{ Width, Height uint16 }

// A Prober answers probes of a running container where its pod has no address
// that the agent could reach by itself. An error says why the probe failed.
// Kind is startup, liveness or readiness.
type Prober interface {
	Probe(ctx context.Context, uid state.UID, container, kind string, probe *corev1.Probe) error
}

// A Dialer reaches a port of a pod where the agent can't by itself.
type Dialer interface {
	Dial(ctx context.Context, uid state.UID, port uint16) (net.Conn, error)
}
