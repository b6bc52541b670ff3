package fencer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/runtimes/cgroup"
)

// settle makes the process one that is there when it is needed: in a control
// group of its own, its memory locked as it is touched, spared by the kernel
// when memory runs out, first in line for the processor. The last two a
// container's root may not have: then it warns.
func settle(group string, log *slog.Logger) error {
	debug.SetGCPercent(20)
	g := groupsAt(groupRoot, group)
	own := own(group)
	joined := false
	for _, h := range g.hierarchies() {
		dir := filepath.Join(h, own)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			continue // a hierarchy that is mounted read-only
		}
		if cgroup.Put(dir, "cgroup.procs", strconv.Itoa(os.Getpid())) == nil {
			joined = true
		} else {
			_ = os.Remove(dir) // cpuset takes nobody before it is told processors
		}
	}
	if !joined {
		return errors.New("no control group takes the fencer")
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock the fencer's memory: %w", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0o600); err != nil {
		log.LogAttrs(context.Background(), slog.LevelWarn, "the fencer is not spared when memory runs out", slog.Any("err", err))
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
		log.LogAttrs(context.Background(), slog.LevelWarn, "the fencer is not first in line for the processor", slog.Any("err", err))
	}
	return nil
}

// own is the fencer's group: beside that of the pods, which may be removed.
func own(group string) string { return group + ".fencer" }

// removeOwn takes the fencer's group away after its end.
func removeOwn(group string) {
	_ = cgroup.At(groupRoot, own(group)).Remove(shutLimit) // the next fencer has the same
}
