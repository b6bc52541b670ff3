package doctor

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
)

// fence starts a fencer that guards nobody, and ends it.
func fence(ctx context.Context, o *Options) Finding {
	f := Finding{Name: "fencer", State: OK, Detail: "starts, and keeps its memory"}
	fail := func(err error) Finding {
		f.State, f.Detail = Warn, firstLine(err.Error())
		f.Remedy = "StatefulSets' pods run here only as tandem.dev/node-loss: wait; " + fenceNeeds
		return f
	}
	dir, err := os.MkdirTemp("", "tandem-doctor-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	group := "/tandem-doctor." + filepath.Base(dir)
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	g := fencer.NewGuard(fencer.GuardOptions{Program: o.Fencer, Dir: dir, Group: group, Version: o.Version, Log: filepath.Join(dir, "log"), Logger: slog.New(slog.DiscardHandler)})
	why := errors.New("it does not answer")
	running, end := context.WithCancel(ctx)
	defer end()
	g.Run(running, func(h fencer.Health) {
		why = nil
		if !h.Running {
			why = errors.New(h.Why)
		}
		end()
	})
	if err := errors.Join(why, fencer.End(ctx, dir, group)); err != nil {
		return fail(err)
	}
	return f
}

// firstLine keeps a finding to one line.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
