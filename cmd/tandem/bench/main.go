// Command bench measures what `make bench` prints: a line a figure, with its
// goal and whether it was met. Floors are measured in the same run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
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
		{"statefulset", statefulSet},
		{"rollout", rollout},
		{"history", past},
		{"idle", idle},
	}
}

func main() {
	only := flag.String("run", "", "comma-separated suites; empty: all")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := measure(ctx, *only)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// measure runs the suites that are asked for.
func measure(ctx context.Context, only string) error {
	b := &board{floors: map[string]float64{}}
	for _, s := range suites() {
		if only != "" && !strings.Contains(","+only+",", ","+s.name+",") {
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
