package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

func probeOf(c *corev1.Container, k step.Probe) *corev1.Probe {
	switch k {
	case step.Startup:
		return c.StartupProbe
	case step.Liveness:
		return c.LivenessProbe
	case step.Readiness:
		return c.ReadinessProbe
	default:
		return nil
	}
}

// probe begins to probe a container, until it is told to stop.
func (w *worker) probe(ctx context.Context, x step.Action) {
	a := w.agent
	spec := specByName(x.Pod.Template, x.Container)
	if spec == nil || probeOf(spec, x.Probe) == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	key := probeKey{x.Container, x.Probe}
	a.mu.Lock()
	p := a.work(x.UID)
	if old := p.probes[key]; old != nil {
		old()
	}
	p.probes[key] = cancel
	a.mu.Unlock()
	w.all.Go(func() {
		defer cancel()
		a.probing(ctx, &x, spec, probeOf(spec, x.Probe))
	})
}

// stopProbes ends one probe of a pod, or all.
func (a *Agent) stopProbes(uid state.UID, key *probeKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.running[uid]
	if p == nil {
		return
	}
	for k, cancel := range p.probes {
		if key == nil || k == *key {
			cancel()
			delete(p.probes, k)
		}
	}
}

// probing probes at the period that the manifest says, beginning after the
// initial delay, counted from the container's start.
func (a *Agent) probing(ctx context.Context, x *step.Action, c *corev1.Container, p *corev1.Probe) {
	period := max(time.Duration(p.PeriodSeconds)*time.Second, 0)
	if period == 0 {
		period = 10 * time.Second
	}
	delay := time.Duration(p.InitialDelaySeconds)*time.Second - time.Duration(now().Wall-x.Started)
	if p.InitialDelaySeconds > 0 && delay > 0 {
		pause(ctx, min(delay, time.Duration(p.InitialDelaySeconds)*time.Second))
	}
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	// A pod that is about to be ready isn't made to wait a whole period: until
	// the first success the probe is tried more often at first.
	quick := min(period, 50*time.Millisecond)
	for ctx.Err() == nil {
		err := a.probeOnce(ctx, x, c, p)
		if ctx.Err() != nil {
			return
		}
		if err != nil && x.Probe != step.Liveness && quick < period && isRefused(err) {
			pause(ctx, quick)
			quick *= 2
			continue
		}
		quick = period
		e := &step.Probed{UID: x.UID, Container: x.Container, Attempt: x.Attempt, Probe: x.Probe, OK: err == nil}
		if err != nil {
			e.Text = err.Error()
		}
		a.cfg.Meter.Probed(x.Probe, err == nil)
		a.post(e)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// isRefused says whether a probe failed because nothing listens yet. Only such
// quick tries, before the first period is over, count neither way.
func isRefused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && !op.Timeout()
}

func (a *Agent) probeOnce(ctx context.Context, x *step.Action, c *corev1.Container, p *corev1.Probe) error {
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if rt, ok := a.cfg.Runtime.(runtimes.Prober); ok {
		return rt.Probe(ctx, x.UID, x.Container, x.Probe.String(), p)
	}
	ip := a.podIP(x)
	switch {
	case p.HTTPGet != nil:
		return probeHTTP(ctx, ip, c, p.HTTPGet)
	case p.TCPSocket != nil:
		host := p.TCPSocket.Host
		if host == "" {
			host = ip
		}
		port, err := portOf(c, p.TCPSocket.Port)
		if err != nil {
			return err
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		return conn.Close()
	case p.Exec != nil:
		return a.probeExec(ctx, x, p.Exec.Command)
	case p.GRPC != nil:
		return probeGRPC(ctx, ip, p.GRPC)
	default:
		return fmt.Errorf("this kind of %s probe: %w", x.Probe, runtimes.ErrUnsupported)
	}
}

func (a *Agent) probeExec(ctx context.Context, x *step.Action, command []string) error {
	rt, ok := a.cfg.Runtime.(runtimes.Execer)
	if !ok {
		return fmt.Errorf("exec probe: %w", runtimes.ErrUnsupported)
	}
	var out, errs capped
	code, err := rt.Exec(ctx, x.UID, x.Container, runtimes.Exec{Command: command, Stdout: &out, Stderr: &errs})
	switch {
	case err != nil:
		return err
	case code != 0:
		return fmt.Errorf("%s exited with %d: %s", command[0], code, strings.TrimSpace(string(errs)+string(out)))
	default:
		return nil
	}
}

// capped keeps the beginning of what is written to it.
type capped []byte

const cappedMost = 1024

// Write keeps what there is room for.
func (c *capped) Write(b []byte) (int, error) {
	*c = append(*c, b[:min(len(b), cappedMost-len(*c))]...)
	return len(b), nil
}

// probeGRPC asks a server of the gRPC health protocol, without TLS as the
// kubelet does.
func probeGRPC(ctx context.Context, ip string, g *corev1.GRPCAction) error {
	service := ""
	if g.Service != nil {
		service = *g.Service
	}
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(ip, strconv.Itoa(int(g.Port))),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("tandem-probe"),
		grpc.WithNoProxy()) // the machine's is for the world outside, not for its own pods
	if err != nil {
		return err
	}
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err := errors.Join(err, conn.Close()); err != nil {
		return err
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC health of service %q is %s", service, answer.Status)
	}
	return nil
}

func portOf(c *corev1.Container, p intstr.IntOrString) (string, error) {
	if p.Type == intstr.Int {
		return strconv.Itoa(p.IntValue()), nil
	}
	for i := range c.Ports {
		if c.Ports[i].Name == p.StrVal {
			return strconv.Itoa(int(c.Ports[i].ContainerPort)), nil
		}
	}
	if n, err := strconv.ParseUint(p.StrVal, 10, 16); err == nil {
		return strconv.FormatUint(n, 10), nil
	}
	return "", fmt.Errorf("container %s has no port named %s", c.Name, p.StrVal)
}
