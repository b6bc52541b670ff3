package network

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Try programs a Service of each sort in a network namespace that nobody else
// uses, and says what the kernel doesn't take.
func Try() error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread, and the namespace with it, end with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		result <- try()
	}()
	return <-result
}

func try() error {
	kernel, err := openTables()
	if err != nil {
		return err
	}
	defer kernel.close()
	c := &change{table: "tandem-try"}
	own := netip.MustParsePrefix("10.88.0.0/24")
	c.begin(own, &ranges{pods: netip.MustParsePrefix("10.88.0.0/16"), services: netip.MustParsePrefix("10.96.0.0/16")})
	s := &state.Service{
		Ref: state.Ref{Kind: "Service", Namespace: "default", Name: "try"}, IP: "10.96.0.10",
		Ports:     []state.ServicePort{{Protocol: "TCP", Port: 80, NodePort: 30080}, {Protocol: "UDP", Port: 53}},
		Endpoints: []state.Endpoint{{Pod: "a", IP: "10.88.0.2", Ports: []int32{8080, 53}}, {Pod: "b", IP: "10.88.0.3", Ports: []int32{8080, 53}}},
	}
	c.part(nil, render(s, ""))
	stays := *s
	stays.Ref.Name, stays.IP, stays.Affinity = "stays", "10.96.0.11", 60
	stays.Ports = []state.ServicePort{{Protocol: "TCP", Port: 80}}
	c.part(nil, render(&stays, ""))
	_, err = kernel.run(c)
	return err
}
