// Package metrics says in Prometheus's text format how a controller and an
// agent are doing.
//
//	act, hub, sources, log, agent ──► [ metrics ] ──GET /metrics──► Prometheus
//
// In: the state at the durable watermark, read at every scrape, and what the
// shells tell of as it happens. Out: one handler. It decides nothing, and nothing
// that decides reads it. Every label has a bounded number of values: the codes of
// this version, at most MaxApplications applications and MaxNodes nodes.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The most label values that a scrape has. What is beyond them is counted in
// tandem_applications_unlisted and tandem_nodes_unlisted; those that need
// attention come first.
const (
	MaxApplications = 500
	MaxNodes        = 1000
)

// Path is where metrics are.
const Path = "/metrics"

// durations are the buckets of what takes a disk or a processor a while.
func durations() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

// waits are the buckets of what people wait for.
func waits() []float64 {
	return []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600}
}

// newRegistry has what every process of Tandem says.
func newRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tandem_build_info", Help: "1, with the version that runs."}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// handler answers scrapes of a registry. What can't be gathered is left out and
// logged: the rest is worth having.
func handler(r *prometheus.Registry, logger *slog.Logger) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: complaints{logger}, MaxRequestsInFlight: 4, Registry: r,
	})
}

// complaints logs what promhttp says.
type complaints struct{ logger *slog.Logger }

// Println implements promhttp.Logger.
func (c complaints) Println(v ...any) {
	c.logger.LogAttrs(context.Background(), slog.LevelWarn, "left something out of the metrics", slog.String("err", fmt.Sprint(v...)))
}

// Listen answers at an address of its own, without asking who scrapes, until ctx
// ends. Started is told the address.
func Listen(ctx context.Context, address string, h http.Handler, started func(net.Addr)) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w; another address: --metrics 127.0.0.1:0", err)
	}
	s := server(h, idle)
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	started(l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answer for metrics: %w", err)
	}
	return nil
}

// idle is how long a connection may say nothing between two scrapes.
const idle = 2 * time.Minute

// server holds nobody's connection for ever: whoever reaches it could have all of
// this process's.
func server(h http.Handler, idle time.Duration) *http.Server {
	const patience = 10 * time.Second
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, h)
	return &http.Server{Handler: mux, ReadTimeout: patience, WriteTimeout: 3 * patience, IdleTimeout: idle, MaxHeaderBytes: 64 << 10}
}

// seconds is a time as Prometheus wants it; 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() || t.UnixNano() == 0 {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
