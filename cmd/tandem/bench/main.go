// Command bench measures what `make bench` prints: a line a figure, with its
// goal and whether it was met. Floors are measured in the same run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"

	"github.com/tandem-gitops/tandem/render/worker"
)

// suite is one group of figures.
type suite struct {
	name string
	run  func(ctx context.Context, b *board) error
}

// suites are all, in the order in which they run.
func suites() []suite {
	return []suite{
		{"floor", floors},
		{"converge", converge},
		{"wire", convergeWire},
		{"unchanged", unchanged},
		{"schedule-basic", basic},
		{"schedule-affinity", antiAffinity},
		{"schedule-spread", topologySpread},
		{"schedule-preemption", preemption},
		{"schedule-why", whyMany},
		{"schedule-plan", planMany},
		{"schedule-large", large},
		{"statefulset", statefulSet},
		{"rollout", rollout},
		{"history", past},
		{"mono-large", mono},
		{"mono-first", firstLook},
		{"mono-changed", oneOfThousand},
		{"idle", idle},
		{"node-network", nodeNetwork},
		{"node-start", nodeStart},
		{"node-rest", nodeRest},
	}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == renderWorker {
		if err := worker.Serve(os.Stdin, os.Stdout, worker.Overlay); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
			os.Exit(1)
		}
		return
	}
	only := flag.String("run", "", "comma-separated suites; empty: all")
	profile := flag.String("cpuprofile", "", "file to write a profile to")
	heap := flag.String("memprofile", "", "file to write what mono-large holds in memory to")
	apps := flag.Int("apps", monoApps, "applications of mono-large; its goals are for the default")
	flag.Parse()
	err := ownNetwork(*only)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	stopProfile, err := startProfile(*profile)
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = errors.Join(measure(ctx, &board{floors: map[string]float64{}, apps: *apps, heap: *heap}, *only), stopProfile())
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// startProfile writes a profile of the processors' time until it is stopped.
func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}

// measure runs the suites that are asked for.
func measure(ctx context.Context, b *board, only string) error {
	for _, s := range suites() {
		if !chosen(s.name, only) {
			continue
		}
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if b.missed > 0 {
		return fmt.Errorf("%d of %d figures missed their goal", b.missed, b.lines)
	}
	return nil
}

// chosen says whether a suite is to run: none is named, or it or its group is.
func chosen(name, only string) bool {
	group, _, _ := strings.Cut(name, "-") // "schedule" runs all of its parts
	return only == "" || strings.Contains(","+only+",", ","+name+",") || strings.Contains(","+only+",", ","+group+",")
}
