package agent

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// probedAt is where a child of the test below probes.
const probedAt = "TANDEM_TEST_PROBED_AT"

// A machine's proxy leads to the world outside: pods are probed past it. The
// environment is read once in a process, so another one probes.
func TestProbeGRPCPastTheProxy(t *testing.T) {
	if at := os.Getenv(probedAt); at != "" {
		host, port, err := net.SplitHostPort(at)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := probeGRPC(ctx, host, &corev1.GRPCAction{Port: int32(n)}); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", net.JoinHostPort(outside(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), probedAt+"="+l.Addr().String(), "HTTPS_PROXY=http://127.0.0.1:1", "NO_PROXY=")
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// outside is an address of this machine that isn't the loopback's, which no proxy
// is ever used for.
func outside(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	hosttest.Lacks(t, "this machine has no address but the loopback's")
	return ""
}
