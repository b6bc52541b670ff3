// Package kubeapi is the API: Kubernetes-shaped, so that kubectl works, with
// Tandem's own verbs beside it.
//
//	kubectl, tandem ──HTTPS──► [ kubeapi ] ──Command──► reconciler ──► history
//	                               ▲────────state, records──────┘
//
// In: requests of users that package access knows. Out: what the state says at
// the durable watermark; resourceVersion is the position in the log. It refuses
// to know how anything is decided, and it changes nothing that Git owns.
package kubeapi

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
)

// A Controller is what the API needs of the control plane.
type Controller interface {
	// View shows the state at the durable watermark. s must be neither kept
	// nor changed.
	View(func(s *state.State))
	// Changed is closed once the watermark is beyond after.
	Changed(after state.Seq) <-chan struct{}
	// Do carries out what a person asks for, and answers when it is durable.
	Do(ctx context.Context, c *state.Command) (state.Reply, error)
	// Submit tells what happened outside.
	Submit(events ...state.Event)
	// Text stores words beside the log.
	Text(clear string) state.Text
	// Person is the one token of somebody's name.
	Person(name string) state.Text
	// Words are the words of a text, or "(erased)".
	Words(t state.Text) string
	// Records yields the log from a position up to the watermark.
	Records(ctx context.Context, from state.Seq) iter.Seq2[*state.Record, error]
}

// LogOptions say which part of a container's log is wanted.
type LogOptions struct {
	Follow     bool
	Previous   bool      // the life before this one
	Since      time.Time // zero: from the start
	Tail       int64     // the last lines; negative: all
	Timestamps bool
	Stream     string // stdout or stderr; empty: both
	Limit      int64  // bytes; 0: none
}

// Nodes are the agents that are connected.
type Nodes interface {
	Logs(ctx context.Context, node state.NodeName, uid state.UID, container string, o LogOptions) (io.ReadCloser, error)
	Exec(ctx context.Context, node state.NodeName, uid state.UID, container string, x runtimes.Exec) (int, error)
	// PortForward joins conn to a port of a pod until either end closes.
	PortForward(ctx context.Context, node state.NodeName, uid state.UID, port uint16, conn io.ReadWriteCloser) error
}

// Config is what an API is made of.
type Config struct {
	Controller Controller
	Nodes      Nodes
	Past       Past
	Access     *access.Store
	Logger     *slog.Logger
	Version    string // of Tandem
	// Look finds out what an image name means, for plans; nil: nobody can.
	Look func(ctx context.Context, name string, secrets []*state.Object) state.Image
	// Tokens are the join tokens; nil: there are none.
	Tokens *join.Tokens
	// Metrics answers scrapes of those who may read; nil: there are none.
	Metrics http.Handler
}

// maxBody is the largest request body that is read, in bytes.
const maxBody = 16 << 20

type api struct {
	Config
	decoder   runtime.Decoder
	resources []*resource
	caches    map[*resource]*cache
	events    *events
}

// New makes the handler of the whole API. It starts nothing: what waits, waits
// in the goroutine of its request.
func New(c Config) http.Handler {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, policyv1.AddToScheme, schedulingv1.AddToScheme, authorizationv1.AddToScheme, authenticationv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err) // two types of k8s.io/api under one name: the build is broken
		}
	}
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	a := &api{Config: c, caches: map[*resource]*cache{}}
	a.decoder = serializer.NewCodecFactory(scheme).UniversalDeserializer()
	a.events = &events{api: a}
	a.resources = a.allResources()
	for _, r := range a.resources {
		a.caches[r] = newCache(a, r)
	}
	return a
}

// find is the resource of that name, or nil.
func (a *api) find(group, version, plural string) *resource {
	for _, r := range a.resources {
		if r.group == group && r.version == version && r.plural == plural {
			return r
		}
	}
	return nil
}
