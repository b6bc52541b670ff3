package hcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	keeperArgs = 7
	waiting    = ".waiting" // the outcome's file with this says that the keeper watches
)

// Keep is the whole of a keeper's process: it copies a container's output into
// its log and writes down its exit code. Its arguments are what Runtime appends
// to Options.Keeper. It ends when both are done.
func Keep(args []string) error {
	if len(args) != keeperArgs {
		return fmt.Errorf("keep a container's log: %w: want %d arguments; the agent starts this by itself", runtimes.ErrRejected, keeperArgs)
	}
	id, logs, file := args[0], args[2:4], args[4]
	pid, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return fmt.Errorf("keep a container's log: process: %w", err)
	}
	var copies sync.WaitGroup
	errs := make([]error, 2)
	for i, arg := range args[5:] {
		h, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			return fmt.Errorf("keep a container's log: handle: %w", err)
		}
		from, err := openPipe(windows.Handle(h))
		if err != nil {
			return err
		}
		to, err := os.OpenFile(logs[i], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return errors.Join(fmt.Errorf("keep a container's log: %w", err), from.Close())
		}
		copies.Go(func() {
			defer from.Close()
			_, err := io.Copy(to, from)
			if broken(err) {
				err = nil // nobody writes any more
			}
			if errs[i] = errors.Join(err, to.Close()); errs[i] != nil {
				errs[i] = fmt.Errorf("keep a container's log: %w", errs[i])
			}
		})
	}
	seen := keepOutcome(id, uint32(pid), file)
	copies.Wait()
	return errors.Join(errs[0], errs[1], seen)
}

// keepOutcome waits for a process, over restarts of the compute service.
func keepOutcome(id string, pid uint32, file string) error {
	c, err := openCompute()
	if err != nil {
		return err
	}
	for {
		code, err := c.exitOf(context.Background(), id, pid, func() error { return os.WriteFile(file+waiting, nil, 0o600) })
		if err == nil {
			return writeJSON(file, outcome{ExitCode: code, FinishedAt: time.Now().UTC()})
		}
		if isGone(err) {
			return nil // the agent saw it, or nobody did
		}
		time.Sleep(watchPause)
	}
}

// exitOf waits for the end of a process of a container; ready is called when it
// has found it.
func (c *compute) exitOf(ctx context.Context, id string, pid uint32, ready func() error) (uint32, error) {
	sys, err := c.open(id)
	if err != nil {
		return 0, err
	}
	defer sys.close()
	p, err := sys.openProcess(pid)
	if err != nil {
		return 0, err
	}
	defer p.close()
	if err := ready(); err != nil {
		return 0, err
	}
	return p.wait(ctx)
}
