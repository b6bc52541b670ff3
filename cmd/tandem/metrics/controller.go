package metrics

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
)

// Views are what a controller is asked at every scrape.
type Views struct {
	State    func(read func(s *state.State)) // at the durable watermark
	Sessions func() []agent.SessionStatus
	Sources  func() (looks []act.Look, failed uint64) // nil: it follows nothing
	LogSize  func() int64
	// Certificates are when those that the controller serves with end, by name.
	Certificates func() map[string]time.Time
}

// A Controller counts what one controller does. It is the controller's Meter.
type Controller struct {
	registry *prometheus.Registry
	steps    prometheus.Histogram
	decided  prometheus.Histogram
	appends  prometheus.Histogram
	records  *prometheus.CounterVec // by kind
	converge prometheus.Histogram

	mu         sync.Mutex // guards what follows
	checkpoint time.Time
	witnessed  time.Time
	applied    map[state.AppName]int64 // wall nanoseconds: revisions that are being rolled out
}

// NewController counts for a controller of this version.
func NewController(version string) *Controller {
	c := &Controller{
		registry: newRegistry(version), applied: map[state.AppName]int64{},
		steps: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tandem_step_duration_seconds", Help: "How long the machine took to decide on all that had happened.", Buckets: durations(),
		}),
		decided: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tandem_scheduler_decision_duration_seconds", Help: "How long those steps took that placed pods, or found that they can't be placed.", Buckets: durations(),
		}),
		appends: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tandem_log_append_duration_seconds", Help: "How long a batch of records took to be durable.", Buckets: durations(),
		}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tandem_log_appended_records_total", Help: "Records that were made durable since the start, by kind.",
		}, []string{"kind"}),
		converge: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tandem_converge_duration_seconds", Help: "From the record of an application's revision until all of it was there and available.", Buckets: waits(),
		}),
	}
	c.registry.MustRegister(c.steps, c.decided, c.appends, c.records, c.converge)
	return c
}

// Watch says what is asked at every scrape. Once, before Handler.
func (c *Controller) Watch(v Views) {
	c.registry.MustRegister(&views{Views: v, controller: c, desc: describe()})
}

// Add has the agent of this process in the same metrics.
func (c *Controller) Add() *Agent {
	a := newAgent()
	c.registry.MustRegister(a)
	return a
}

// Handler answers scrapes. Who may is for the caller to see to.
func (c *Controller) Handler(logger *slog.Logger) http.Handler { return handler(c.registry, logger) }

// Stepped implements act.Meter.
func (c *Controller) Stepped(took time.Duration, records []*state.Record) {
	c.steps.Observe(took.Seconds())
	for _, r := range records {
		switch r.Fact.(type) {
		case *state.Decided, *state.PodPlaced:
			c.decided.Observe(took.Seconds())
			return
		}
	}
}

// Appended implements act.Meter.
func (c *Controller) Appended(took time.Duration, records []*state.Record) {
	c.appends.Observe(took.Seconds())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checkpoint = time.Now()
	for _, r := range records {
		c.records.WithLabelValues(r.Fact.Kind().String()).Inc()
		switch f := r.Fact.(type) {
		case *state.RevisionApplied:
			c.applied[r.App] = r.At.Wall
		case *state.Converged:
			if at, ok := c.applied[r.App]; ok {
				c.converge.Observe(max(0, time.Duration(r.At.Wall-at).Seconds()))
				delete(c.applied, r.App)
			}
		case *state.AppRemoved:
			delete(c.applied, f.Name)
		case *state.DeploymentNoted:
			if f.Outcome == state.NoteWritten {
				c.witnessed = r.At.Time()
			}
		}
	}
}

var _ act.Meter = (*Controller)(nil)
