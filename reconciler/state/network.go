package state

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// NodeRanged gives a node the addresses of its pods, for as long as it is a
// node of this name.
type NodeRanged struct {
	Node  NodeName `json:"node" pb:"1"`
	Range string   `json:"range" pb:"2"` // "10.88.3.0/24"
}

// ServiceAddressed gives a Service its address and node ports. They stay until
// the Service is gone, or another of these records says otherwise.
type ServiceAddressed struct {
	Service Ref        `json:"service" pb:"1"`
	IP      string     `json:"ip,omitempty" pb:"2"` // empty: it is headless
	Ports   []NodePort `json:"ports,omitempty" pb:"3"`
}

// RoutingChosen says how nodes reach each other's pods from here on.
type RoutingChosen struct {
	Routing Routing `json:"routing" pb:"1"`
}

// Routing is how nodes reach each other's pods.
type Routing uint8

// The ways of routing. Zero, in logs in which nobody chose, is RoutingAuto.
const (
	RoutingAuto   Routing = iota + 1 // routes to nodes on the same segment, VXLAN to others
	RoutingRoutes                    // routes alone
	RoutingVXLAN                     // VXLAN alone
)

// String is the word for the command line.
func (r Routing) String() string {
	switch r {
	case RoutingRoutes:
		return "routes"
	case RoutingVXLAN:
		return "vxlan"
	case RoutingAuto:
		return "auto"
	default:
		return "auto"
	}
}

// ParseRouting reads what String writes.
func ParseRouting(text string) (Routing, bool) {
	for _, r := range []Routing{RoutingAuto, RoutingRoutes, RoutingVXLAN} {
		if r.String() == text {
			return r, true
		}
	}
	return 0, false
}

// Kind implements Fact.
func (*RoutingChosen) Kind() Kind { return KindRoutingChosen }

// Kind implements Fact.
func (*NodeRanged) Kind() Kind { return KindNodeRanged }

// Kind implements Fact.
func (*ServiceAddressed) Kind() Kind { return KindServiceAddressed }

// A NodePort is the port of every node at which a port of a Service is reached.
type NodePort struct {
	Protocol string `json:"protocol" pb:"1"` // TCP, UDP
	Port     int32  `json:"port" pb:"2"`     // of the Service
	Node     int32  `json:"node" pb:"3"`
}

// A ServiceAddress is what a Service was given.
type ServiceAddress struct {
	IP    netip.Addr // not valid: it is headless
	Ports []NodePort
}

// A Network is what every node needs to know of the others and of Services, as
// of one record. It is captured when made, never changed, and may leave once
// the log is durable up to Seq. Values that are as before are the same pointers.
type Network struct {
	Seq       Seq
	Pods      string         // the cluster's range of pods: "10.88.0.0/14"
	Addresses string         // the cluster's range of Services: "10.96.0.0/16"
	Nodes     []*NodeNetwork // sorted by name
	Services  []*Service     // sorted by Ref
	Routing   Routing        // between nodes
}

// A NodeNetwork is where a node's pods are, and where the node is.
type NodeNetwork struct {
	Name    NodeName `json:"name" pb:"1"`
	OS      OS       `json:"os" pb:"2"`
	Range   string   `json:"range" pb:"3"`
	Address string   `json:"address,omitempty" pb:"4"` // of the machine; empty: it didn't say
}

// A Service is one as a node serves it. Headless ones have names only.
type Service struct {
	Ref       Ref           `json:"ref" pb:"1"`
	IP        string        `json:"ip,omitempty" pb:"2"`       // empty: headless
	Affinity  int32         `json:"affinity,omitempty" pb:"3"` // seconds for which a client stays with a pod; 0: it doesn't
	Ports     []ServicePort `json:"ports,omitempty" pb:"4"`
	Endpoints []Endpoint    `json:"endpoints,omitempty" pb:"5"` // those that are ready, sorted by pod
	// From outside the cluster (external) or from inside (internal), only
	// endpoints of the node that was asked answer.
	LocalExternal bool `json:"localExternal,omitempty" pb:"6"`
	LocalInternal bool `json:"localInternal,omitempty" pb:"7"`
}

// A ServicePort is a port of a Service.
type ServicePort struct {
	Name     string `json:"name,omitempty" pb:"1"`
	Protocol string `json:"protocol" pb:"2"`
	Port     int32  `json:"port" pb:"3"`
	NodePort int32  `json:"nodePort,omitempty" pb:"4"`
}

// An Endpoint is a pod behind a Service.
type Endpoint struct {
	Pod      string   `json:"pod" pb:"1"`
	IP       string   `json:"ip" pb:"2"`
	Node     NodeName `json:"node" pb:"3"`
	Hostname string   `json:"hostname,omitempty" pb:"4"` // its name below the Service's, where it has one
	Ports    []int32  `json:"ports,omitempty" pb:"5"`    // as the Service's; 0: the pod has no port of that name
}

// MatchedBy says whether a selector matches the pod's labels; an empty one
// matches none.
func (p *Pod) MatchedBy(selector map[string]string) bool {
	if len(selector) == 0 {
		return false
	}
	var all map[string]string
	for k, v := range selector {
		if p.Template.Spec.Labels[k] == v {
			continue
		}
		if all == nil {
			all = p.PodLabels()
		}
		if got, ok := all[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// ServiceSpec is the object's specification, where it is a Service.
func (o *Object) ServiceSpec() (*corev1.ServiceSpec, bool) {
	if svc, ok := o.First().(*corev1.Service); ok {
		return &svc.Spec, true
	}
	return nil, false
}

func (s *State) applyNetwork(r *Record) error {
	switch f := r.Fact.(type) {
	case *NodeRanged:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		n.PodRange = f.Range
	case *RoutingChosen:
		s.Routing = f.Routing
	case *ServiceAddressed:
		a := &ServiceAddress{Ports: f.Ports}
		a.IP, _ = netip.ParseAddr(f.IP)
		s.Services[f.Service] = a
		if o := s.Objects[f.Service]; o != nil {
			o.Changed = r.Seq
		}
	}
	return nil
}
