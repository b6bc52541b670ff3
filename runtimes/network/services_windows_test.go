package network

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/Microsoft/hcsshim/hcn"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
)

func (p *policy) String() string {
	s := fmt.Sprintf("%s to %d of %s", p.front, p.port, strings.Join(p.backends, " "))
	if p.affinity {
		s += ", clients stay"
	}
	return s
}

// The load balancers that a Service wants of this node, "win".
func TestPolicies(t *testing.T) {
	// at is a pod on a node, with the Service's target ports.
	at := func(ip string, node state.NodeName, ports ...int32) state.Endpoint {
		return state.Endpoint{Pod: "pod-" + ip, IP: ip, Node: node, Ports: ports}
	}
	http := state.ServicePort{Name: "http", Protocol: "TCP", Port: 80}
	out := state.ServicePort{Name: "http", Protocol: "TCP", Port: 80, NodePort: 30080}
	here, there := at("10.89.0.2", "win", 8080), at("10.88.0.2", "linux", 8080)
	many := make([]state.Endpoint, backendsMost+2)
	for i := range many {
		many[i] = at(fmt.Sprintf("10.90.%d.%d", i/200, i%200+1), "linux", 8080)
	}
	for _, c := range []struct {
		name    string
		service state.Service
		want    []string
		told    string // of what isn't served as written
	}{
		{
			"local and remote pods",
			state.Service{IP: "10.96.0.1", Ports: []state.ServicePort{http}, Endpoints: []state.Endpoint{here, there}},
			[]string{"10.96.0.1 80/6 to 8080 of 10.88.0.2 10.89.0.2"},
			"",
		},
		{
			"node port",
			state.Service{IP: "10.96.0.1", Ports: []state.ServicePort{out}, Endpoints: []state.Endpoint{here, there}},
			[]string{"10.96.0.1 80/6 to 8080 of 10.88.0.2 10.89.0.2", "node port 30080/6 to 8080 of 10.88.0.2 10.89.0.2"},
			"",
		},
		{
			"only local pods from outside",
			state.Service{IP: "10.96.0.1", LocalExternal: true, Ports: []state.ServicePort{out}, Endpoints: []state.Endpoint{here, there}},
			[]string{"10.96.0.1 80/6 to 8080 of 10.88.0.2 10.89.0.2", "node port 30080/6 to 8080 of 10.89.0.2"},
			"",
		},
		{
			"only local pods from inside",
			state.Service{IP: "10.96.0.1", LocalInternal: true, Ports: []state.ServicePort{out}, Endpoints: []state.Endpoint{here, there}},
			[]string{"10.96.0.1 80/6 to 8080 of 10.89.0.2", "node port 30080/6 to 8080 of 10.88.0.2 10.89.0.2"},
			"",
		},
		{"only local pods, and none is", state.Service{IP: "10.96.0.1", LocalInternal: true, LocalExternal: true, Ports: []state.ServicePort{out}, Endpoints: []state.Endpoint{there}}, nil, ""},
		{
			"affinity",
			state.Service{IP: "10.96.0.1", Affinity: 10800, Ports: []state.ServicePort{http}, Endpoints: []state.Endpoint{here}},
			[]string{"10.96.0.1 80/6 to 8080 of 10.89.0.2, clients stay"},
			"",
		},
		{"headless", state.Service{Ports: []state.ServicePort{http}, Endpoints: []state.Endpoint{here}}, nil, ""},
		{"no pods", state.Service{IP: "10.96.0.1", Ports: []state.ServicePort{out}}, nil, ""},
		{
			"UDP",
			state.Service{IP: "10.96.0.1", Ports: []state.ServicePort{{Protocol: "UDP", Port: 53}}, Endpoints: []state.Endpoint{here}},
			[]string{"10.96.0.1 53/17 to 8080 of 10.89.0.2"},
			"",
		},
		{
			"SCTP",
			state.Service{IP: "10.96.0.1", Ports: []state.ServicePort{{Protocol: "SCTP", Port: 80}}, Endpoints: []state.Endpoint{here}},
			nil, "Windows serves TCP and UDP, not SCTP",
		},
		{
			"target ports differ: that of the most",
			state.Service{
				IP: "10.96.0.1", Ports: []state.ServicePort{http},
				Endpoints: []state.Endpoint{at("10.88.0.1", "linux", 8080), at("10.88.0.2", "linux", 9090), at("10.89.0.3", "win", 9090)},
			},
			[]string{"10.96.0.1 80/6 to 9090 of 10.88.0.2 10.89.0.3"},
			"1 pods are left out",
		},
		{
			"target ports differ: as many, the lowest",
			state.Service{
				IP: "10.96.0.1", Ports: []state.ServicePort{http},
				Endpoints: []state.Endpoint{at("10.88.0.2", "linux", 9090), at("10.89.0.3", "win", 8080)},
			},
			[]string{"10.96.0.1 80/6 to 8080 of 10.89.0.3"},
			"1 pods are left out",
		},
		{
			"a pod without the port",
			state.Service{
				IP: "10.96.0.1", Ports: []state.ServicePort{http},
				Endpoints: []state.Endpoint{here, at("10.88.0.2", "linux", 0), at("10.88.0.3", "linux"), at("", "linux", 8080)},
			},
			[]string{"10.96.0.1 80/6 to 8080 of 10.89.0.2"},
			"",
		},
		{
			"each port by itself",
			state.Service{
				IP: "10.96.0.1", Ports: []state.ServicePort{http, {Name: "more", Protocol: "TCP", Port: 81}},
				Endpoints: []state.Endpoint{at("10.89.0.2", "win", 8080, 8081), at("10.88.0.2", "linux", 8080, 0)},
			},
			[]string{"10.96.0.1 80/6 to 8080 of 10.88.0.2 10.89.0.2", "10.96.0.1 81/6 to 8081 of 10.89.0.2"},
			"",
		},
		{"too many", state.Service{IP: "10.96.0.1", Ports: []state.ServicePort{http}, Endpoints: many}, nil, "2 pods are left out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &Node{o: Options{Node: "win"}}
			c.service.Ref = state.Ref{Kind: "Service", Namespace: "shop", Name: "web"}
			told := map[string]string{}
			var got []string
			for i := range c.service.Ports {
				for _, p := range n.policiesOf(&c.service, i, told) {
					if len(p.backends) == backendsMost {
						continue // as many as it may have
					}
					got = append(got, p.String())
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("wants\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			said := ""
			for what, why := range told {
				said += what + ": " + why
			}
			if (c.told == "") != (said == "") || !strings.Contains(said, c.told) || said != "" && !strings.Contains(said, "shop/web") {
				t.Errorf("told %q, want %q", said, c.told)
			}
		})
	}
}

// An endpoint that can't be made takes its own Service's traffic to the others,
// and nothing of the other Services; the error says which, and the next round
// makes up for it.
func TestOneEndpointFails(t *testing.T) {
	if _, err := os.Stat(`C:\hcstest\port`); err != nil {
		t.Skip("needs the double of Windows' network service (TestUnderWine)")
	}
	network, err := (&hcn.HostComputeNetwork{
		Name: "one-fails", Type: hcn.L2Bridge, SchemaVersion: hcn.SchemaVersion{Major: 2},
		Ipams: []hcn.Ipam{{Type: "Static", Subnets: []hcn.Subnet{{
			IpAddressPrefix: "10.89.0.0/24", Routes: []hcn.Route{{NextHop: "10.89.0.1", DestinationPrefix: "0.0.0.0/0"}},
		}}}},
	}).Create()
	if err != nil {
		t.Fatal(err)
	}
	w := &state.Network{Addresses: "10.96.0.0/16"}
	for i := range 3 {
		s := &state.Service{
			Ref: state.Ref{Kind: "Service", Namespace: "prod", Name: fmt.Sprintf("s%d", i)}, IP: fmt.Sprintf("10.96.0.%d", i+1),
			Ports: []state.ServicePort{{Protocol: "TCP", Port: 80}},
		}
		for e := range 2 {
			s.Endpoints = append(s.Endpoints, state.Endpoint{IP: fmt.Sprintf("10.88.%d.%d", i, e+2), Node: "linux", Ports: []int32{8080}})
		}
		w.Services = append(w.Services, s)
	}
	n := &Node{o: Options{Node: "win", ID: "one", Pods: "one-fails"}, log: slog.New(slog.DiscardHandler), own: netip.MustParsePrefix("10.89.0.0/24")}
	t.Cleanup(func() {
		if err := n.unprogram(t.Context(), w); err != nil {
			t.Error(err)
		}
		if err := network.Delete(); err != nil {
			t.Error(err)
		}
	})
	fault, err := json.Marshal(map[string]any{"call": "HcnCreateEndpoint", "hresult": uint32(0x800706ba), "times": 1})
	if err != nil {
		t.Fatal(err)
	}
	port, err := os.ReadFile(`C:\hcstest\port`)
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:"+string(port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := hcstest.Call(c, "test.fault", string(fault)); err != nil {
		t.Fatal(err)
	}

	count := func() (all int) {
		list, err := hcn.ListLoadBalancers()
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 3 {
			t.Errorf("%d load balancers, want one of each of the 3 Services", len(list))
		}
		for i := range list {
			all += len(list[i].HostComputeEndpoints)
		}
		return all
	}
	if err := n.programIn(t.Context(), network, w); err == nil || !strings.Contains(err.Error(), "make the endpoint of 10.88.") {
		t.Errorf("the first round: %v", err)
	}
	if got := count(); got != 5 {
		t.Errorf("Services lead to %d endpoints, want all of the 6 but one", got)
	}
	if err := n.programIn(t.Context(), network, w); err != nil {
		t.Errorf("the next round: %v", err)
	}
	if got := count(); got != 6 {
		t.Errorf("Services lead to %d endpoints, want 6", got)
	}
}
