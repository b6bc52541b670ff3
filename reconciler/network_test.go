package reconciler_test

import (
	"fmt"
	"strings"
)

// printNetwork shows what nodes were last told of each other and of Services.
func (s *story) printNetwork() {
	if s.network == nil {
		fmt.Fprintln(&s.out, "nobody was told anything")
		return
	}
	if s.network.Routing != 0 {
		fmt.Fprintf(&s.out, "routing %s\n", s.network.Routing)
	}
	for _, n := range s.network.Nodes {
		fmt.Fprintf(&s.out, "node %s %s\n", n.Name, n.Range)
	}
	for _, svc := range s.network.Services {
		ip := svc.IP
		if ip == "" {
			ip = "headless"
		}
		fmt.Fprintf(&s.out, "service %s %s\n", svc.Ref.Name, ip)
		for _, e := range svc.Endpoints {
			line := fmt.Sprintf("  on %s %s", e.Node, e.IP)
			if e.Hostname != "" {
				line += " as " + e.Hostname
			}
			for i, p := range e.Ports {
				line += fmt.Sprintf(" %s %d→%d", strings.ToLower(svc.Ports[i].Protocol), svc.Ports[i].Port, p)
			}
			fmt.Fprintln(&s.out, line)
		}
	}
}
