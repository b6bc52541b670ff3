package hcs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	serviceLimit = time.Second     // for one answer of the compute service
	shutLimit    = 2 * time.Second // until what was killed should be gone
	shutPause    = 10 * time.Millisecond
	asked        = 32          // calls of the compute service that may hang at once
	stale        = time.Minute // a mark that no fencer has renewed for so long
)

// errSilent says that the compute service doesn't answer.
var errSilent = fmt.Errorf("%w: the compute service does not answer; if this stays, restart the service vmcompute", runtimes.ErrUnavailable)

// Cells are the pods of a node as its fencer ends them: through the compute
// service, and where that doesn't answer through the job objects that its
// containers are.
type Cells struct {
	compute *compute
	node    place
	asking  chan struct{}
}

// OpenCells are the cells of the node that keeps its things in a directory.
func OpenCells(dir string) (*Cells, error) {
	node, err := placeOf(dir)
	if err != nil {
		return nil, err
	}
	c, err := openCompute()
	if err != nil {
		return nil, fmt.Errorf("open the cells of a node: %w", err)
	}
	return &Cells{compute: c, node: node, asking: make(chan struct{}, asked)}, nil
}

// A mark says that no container of a pod may begin. Who starts one makes its
// compute system, then looks for the mark, then starts the first process; who
// shuts a pod makes the mark, then ends its compute systems. So whichever is
// first, nothing runs.
func (p place) mark(uid state.UID) string { return filepath.Join(p.marks(), uid.String()) }
func (p place) marks() string             { return filepath.Join(p.dir, "fenced") }

func (p place) forbid(uid state.UID) error {
	if err := os.MkdirAll(p.marks(), 0o700); err != nil {
		return err
	}
	return os.WriteFile(p.mark(uid), nil, 0o600)
}

func (p place) allow(uid state.UID) error {
	if err := os.Remove(p.mark(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// forbidden says whether no container of a pod may begin. What can't be read may
// not.
func (p place) forbidden(uid state.UID) bool {
	_, err := os.Stat(p.mark(uid))
	return !errors.Is(err, fs.ErrNotExist)
}

// sweepMarks removes those that no fencer renews: of one that was killed.
func (p place) sweepMarks() error {
	entries, err := os.ReadDir(p.marks())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > stale {
			if err := os.Remove(filepath.Join(p.marks(), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Open lets containers of the pod begin.
func (c *Cells) Open(uid state.UID) error { return c.node.allow(uid) }

// Drop takes away what Shut left.
func (c *Cells) Drop(uid state.UID) error { return c.node.allow(uid) }

// within asks the compute service and waits so long. What goes on after that is
// counted, so that a service that hangs doesn't fill this process.
func (c *Cells) within(limit time.Duration, call func(context.Context) error) error {
	select {
	case c.asking <- struct{}{}:
	default:
		return errSilent
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	done := make(chan error, 1)
	go func() { // ends when Windows answers
		defer func() { <-c.asking }()
		done <- call(ctx)
	}()
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errSilent
	}
}

// systems are the pod's compute systems.
func (c *Cells) systems(uid state.UID) ([]string, error) {
	found := make(chan []properties, 1)
	err := c.within(serviceLimit, func(ctx context.Context) error {
		all, err := c.compute.list(ctx)
		found <- all
		return err
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, s := range <-found {
		if strings.HasPrefix(s.ID, c.node.podPrefix(uid)) {
			ids = append(ids, s.ID)
		}
	}
	return ids, nil
}

// recorded are the compute systems that the pod's records name: written before
// anything is made.
func (c *Cells) recorded(uid state.UID) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(c.node.podDir(uid), "c-*.json"))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, file := range files {
		var rec containerRecord
		if err := readJSON(file, &rec); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if rec.ID != "" && rec.Phase != ended {
			ids = append(ids, rec.ID)
		}
	}
	return ids, nil
}

// Term asks the pod's containers to end. It doesn't wait until they have.
func (c *Cells) Term(uid state.UID) error {
	ids, err := c.systems(uid)
	if err != nil {
		return fmt.Errorf("ask pod %s to end: %w", uid, err)
	}
	return each(ids, func(id string) error {
		err := c.within(serviceLimit, func(ctx context.Context) error {
			s, err := c.compute.open(id)
			if err != nil {
				return err
			}
			defer s.close()
			return s.shutdown(ctx)
		})
		if isGone(err) || errors.Is(err, errSilent) || errors.Is(err, context.DeadlineExceeded) {
			return nil // it is asked, and has its grace
		}
		return err
	})
}

func each(ids []string, do func(string) error) error {
	errs := make([]error, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		all.Go(func() { errs[i] = do(id) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Shut kills all containers of a pod, and lets none begin. It says how many it
// killed.
func (c *Cells) Shut(uid state.UID) (int, error) {
	if err := c.node.forbid(uid); err != nil {
		return 0, fmt.Errorf("forbid pod %s to begin: %w", uid, err)
	}
	var mu sync.Mutex
	killed, forced := map[string]bool{}, map[string]bool{}
	for end := time.Now().Add(shutLimit); ; time.Sleep(shutPause) {
		ids, err := c.systems(uid)
		if err != nil {
			n, err := c.shutBlind(uid, err)
			return len(killed) + n, err
		}
		// Nothing runs in what was forced, also where the service doesn't say so.
		ids = slices.DeleteFunc(ids, func(id string) bool { return forced[id] })
		if len(ids) == 0 {
			return len(killed), nil
		}
		late := time.Now().After(end)
		err = each(ids, func(id string) error {
			force, err := c.kill(id)
			mu.Lock()
			defer mu.Unlock()
			killed[id], forced[id] = killed[id] || err == nil, force
			return err
		})
		if late {
			return len(killed), errors.Join(fmt.Errorf("kill pod %s: containers are left: %s", uid, strings.Join(ids, ", ")), err)
		}
	}
}

// kill ends a compute system, by force where the service doesn't.
func (c *Cells) kill(id string) (forced bool, err error) {
	err = c.within(serviceLimit, func(ctx context.Context) error {
		s, err := c.compute.open(id)
		if err != nil {
			return err
		}
		defer s.close()
		return s.terminate(ctx)
	})
	if err == nil || isGone(err) {
		return false, nil
	}
	if _, failed := killSilo(id); failed != nil {
		return false, errors.Join(err, failed)
	}
	return true, nil
}

// shutBlind kills what the pod's records name while the compute service doesn't
// answer. It can't say that a container is gone whose job object isn't there.
func (c *Cells) shutBlind(uid state.UID, why error) (int, error) {
	ids, err := c.recorded(uid)
	if err != nil {
		return 0, errors.Join(why, err)
	}
	killed := 0
	var errs []error
	for _, id := range ids {
		n, err := killSilo(id)
		if n > 0 {
			killed++
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return killed, fmt.Errorf("kill pod %s: %w: %w", uid, why, err)
	}
	return killed, nil
}
