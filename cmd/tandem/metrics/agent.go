package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// imagesEvery is how old the size of all images may be: adding it up asks the
// runtime for every layer.
const imagesEvery = time.Minute

// An Agent counts what one agent does. It is the agent's Meter.
type Agent struct {
	registry *prometheus.Registry

	starts, restarts  prometheus.Counter
	unobserved        prometheus.Counter
	reconnects        *prometheus.CounterVec // by what became of the session before
	connected         prometheus.Gauge
	pulls, failures   *prometheus.CounterVec
	probes            *prometheus.CounterVec
	took              *prometheus.HistogramVec
	sizer             ImageSizer
	certificate       func() (time.Time, error)
	mu                sync.Mutex // guards what follows
	sized             time.Time
	size              int64
	agent             *agent.Agent
	pods, unfenced    *prometheus.Desc
	imageSize, expiry *prometheus.Desc
}

// An ImageSizer knows what the images of a node take on its disk, in bytes.
type ImageSizer interface {
	ImageBytes(ctx context.Context) (int64, error)
}

// NewAgent counts for an agent of its own process, or of a controller's.
func NewAgent(version string) *Agent {
	a := newAgent()
	a.registry = newRegistry(version)
	a.registry.MustRegister(a)
	return a
}

func newAgent() *Agent {
	return &Agent{
		starts:     prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_agent_pod_starts_total", Help: "Pods whose sandbox was made."}),
		restarts:   prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_agent_container_restarts_total", Help: "Containers that were started again after an earlier attempt in the same pod."}),
		unobserved: prometheus.NewCounter(prometheus.CounterOpts{Name: "tandem_agent_runtime_unobserved_total", Help: "How often the runtime did not say what exists on the node."}),
		reconnects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_agent_stream_losses_total", Help: "Streams to the controller that ended or could not begin: lost, or rejected by the controller."}, []string{"reason"}),
		connected:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "tandem_agent_connected", Help: "1 while the agent has a stream to its controller."}),
		pulls:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_agent_image_pulls_total", Help: "Images that pods waited for, by result. An image that was present already is ok."}, []string{"result"}),
		failures:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_agent_runtime_errors_total", Help: "Operations of the runtime that failed, by what was asked and how it ended."}, []string{"operation", "result"}),
		probes:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tandem_agent_probes_total", Help: "Answers of probes, by kind and result."}, []string{"probe", "result"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tandem_agent_runtime_operation_duration_seconds", Help: "How long operations of the runtime took, once it was their turn.", Buckets: waits(),
		}, []string{"operation"}),
		pods:      prometheus.NewDesc("tandem_agent_pods", "Pods that this node is to run.", nil, nil),
		unfenced:  prometheus.NewDesc("tandem_agent_unfenced", "1 while no fencer runs: the node takes no pod of a StatefulSet.", nil, nil),
		imageSize: prometheus.NewDesc("tandem_agent_image_bytes", "What images take on the disk: blobs and unpacked layers. At most a minute old.", nil, nil),
		expiry:    prometheus.NewDesc("tandem_agent_certificate_expiry_timestamp_seconds", "When the certificate on the disk ends. The agent renews it when a third of its time is left.", nil, nil),
	}
}

// Of says what is asked at every scrape. Sizer and certificate may be nil.
func (a *Agent) Of(of *agent.Agent, sizer ImageSizer, certificate func() (time.Time, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.agent, a.sizer, a.certificate = of, sizer, certificate
}

// Handler answers scrapes of an agent that is a process of its own.
func (a *Agent) Handler(logger *slog.Logger) http.Handler { return handler(a.registry, logger) }

// Did implements agent.Meter.
func (a *Agent) Did(x *step.Action, class step.Class, took time.Duration) {
	operation := verb(x.Do)
	a.took.WithLabelValues(operation).Observe(took.Seconds())
	if class != step.OK {
		a.failures.WithLabelValues(operation, result(class)).Inc()
	}
	switch {
	case x.Do == step.Pull:
		a.pulls.WithLabelValues(result(class)).Inc()
	case class != step.OK:
	case x.Do == step.MakeSandbox:
		a.starts.Inc()
	case x.Do == step.Run && x.Attempt > 0:
		a.restarts.Inc()
	}
}

// Probed implements agent.Meter.
func (a *Agent) Probed(kind step.Probe, ok bool) {
	result := "failure"
	if ok {
		result = "success"
	}
	a.probes.WithLabelValues(kind.String(), result).Inc()
}

// Unobserved implements agent.Meter.
func (a *Agent) Unobserved() { a.unobserved.Inc() }

// Reached implements agent.Meter.
func (a *Agent) Reached() { a.connected.Set(1) }

// Lost implements agent.Meter.
func (a *Agent) Lost(err error) {
	a.connected.Set(0)
	reason := "lost"
	if agent.ClassOf(err) == step.Rejected {
		reason = "rejected"
	}
	a.reconnects.WithLabelValues(reason).Inc()
}

// Describe implements prometheus.Collector.
func (a *Agent) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range a.counters() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{a.pods, a.unfenced, a.imageSize, a.expiry} {
		ch <- d
	}
}

func (a *Agent) counters() []prometheus.Collector {
	return []prometheus.Collector{a.starts, a.restarts, a.unobserved, a.reconnects, a.connected, a.pulls, a.failures, a.probes, a.took}
}

// Collect implements prometheus.Collector.
func (a *Agent) Collect(ch chan<- prometheus.Metric) {
	for _, c := range a.counters() {
		c.Collect(ch)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.agent == nil {
		return
	}
	ch <- gauge(a.pods, float64(a.agent.Assigned()))
	ch <- gauge(a.unfenced, number(a.agent.Facts().Unfenced))
	if a.certificate != nil {
		if at, err := a.certificate(); err == nil {
			ch <- gauge(a.expiry, seconds(at))
		} else {
			ch <- prometheus.NewInvalidMetric(a.expiry, err)
		}
	}
	if a.sizer == nil {
		return
	}
	if time.Since(a.sized) > imagesEvery {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		size, err := a.sizer.ImageBytes(ctx)
		if err != nil {
			ch <- prometheus.NewInvalidMetric(a.imageSize, err)
			return
		}
		a.size, a.sized = size, time.Now()
	}
	ch <- gauge(a.imageSize, float64(a.size))
}

// verb is an operation as a label.
func verb(v step.Verb) string {
	switch v {
	case step.Pull:
		return "pull"
	case step.Prepare:
		return "prepare"
	case step.MakeSandbox:
		return "sandbox"
	case step.Run:
		return "run"
	case step.Stop:
		return "stop"
	case step.Remove:
		return "remove"
	case step.DropVolume:
		return "drop_volume"
	case step.Cancel, step.StartProbe, step.StopProbe:
	}
	return "other"
}

// result is how an operation ended, as a label.
func result(c step.Class) string {
	switch c {
	case step.OK:
		return "ok"
	case step.Unavailable:
		return "unavailable"
	case step.Rejected:
		return "rejected"
	case step.Unsupported:
		return "unsupported"
	case step.NotFound:
		return "not_found"
	case step.ConfigMissing:
		return "config_missing"
	case step.NeverPull:
		return "never_pull"
	}
	return "other"
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var _ agent.Meter = (*Agent)(nil)
