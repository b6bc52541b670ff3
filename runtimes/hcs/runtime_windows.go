package hcs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

var (
	_ runtimes.Runtime = (*Runtime)(nil)
	_ runtimes.Execer  = (*Runtime)(nil)
)

// A Runtime runs pods through Windows' compute service.
type Runtime struct {
	place

	o       Options
	compute *compute
	logger  *slog.Logger
	lock    *os.File

	life context.Context //nolint:containedctx // of the goroutines below, ended by Close
	end  context.CancelFunc
	work sync.WaitGroup

	network sync.Mutex // one at a time makes the network; guards o.Range
	layers  layerStore

	mu   sync.Mutex // guards what follows, and the records of pods
	pods map[state.UID]*pod
	seen uint64        // counts changes
	news chan struct{} // closed at the next change
}

// A pod is a sandbox and the latest attempt of each of its containers.
type pod struct {
	dir string

	// life is held for reading by calls that need the sandbox, for writing by
	// those that make or remove it.
	life    sync.RWMutex
	removed bool // under Runtime.mu and life
	leaving bool // under Runtime.mu: Remove has begun

	record     podRecord             // written under Runtime.mu and life
	containers map[string]*container // under Runtime.mu
	names      map[string]*sync.Mutex
}

// A container is one attempt.
type container struct {
	record containerRecord // under Runtime.mu
	ended  chan struct{}   // closed when its outcome is recorded
	clean  sync.Mutex      // one at a time removes what is left of it
	gone   bool            // under clean: nothing is
}

func newContainer(rec containerRecord) *container {
	c := &container{record: rec, ended: make(chan struct{})}
	if rec.Phase == ended {
		close(c.ended)
	}
	return c
}

func (r *Runtime) newPod(rec podRecord) *pod {
	return &pod{dir: r.podDir(rec.UID), record: rec, containers: map[string]*container{}, names: map[string]*sync.Mutex{}}
}

// Open takes over what an earlier process left running and sweeps away what a
// kill left half made.
func Open(ctx context.Context, o Options) (*Runtime, error) {
	r, err := prepare(o)
	if err != nil {
		return nil, fmt.Errorf("open the hcs runtime: %w", err)
	}
	if err := r.takeOver(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the hcs runtime: %w", err), r.Close())
	}
	r.work.Go(r.mend)
	return r, nil
}

func prepare(o Options) (*Runtime, error) {
	if o.Images == nil || o.Dir == "" || o.Node == "" || len(o.Keeper) == 0 {
		return nil, fmt.Errorf("%w: a node needs a name, a directory, a store of images and a keeper", runtimes.ErrRejected)
	}
	at, err := placeOf(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = at.dir
	if !o.Range.IsValid() {
		o.Range = netip.MustParsePrefix("10.89.0.0/24")
	}
	if err := checkRange(o.Range); err != nil {
		return nil, err
	}
	if _, err := networkType(o.Network); err != nil {
		return nil, err
	}
	r := &Runtime{
		place: at, o: o, logger: o.Logger, news: make(chan struct{}), seen: 1, pods: map[state.UID]*pod{},
		layers: layerStore{dir: at.dir, images: o.Images, one: map[string]*sync.Mutex{}},
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	if r.compute, err = openCompute(); err != nil {
		return nil, err
	}
	for _, d := range []string{r.podsDir(), r.layers.path("layers"), r.layers.path("images"), r.layers.path("scratch")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if r.lock, err = lockFile(filepath.Join(at.dir, "lock")); err != nil {
		return nil, err
	}
	if r.layers.ledger, err = images.OpenLedger(filepath.Join(at.dir, "private.json")); err != nil {
		return nil, errors.Join(err, r.lock.Close())
	}
	r.life, r.end = context.WithCancel(context.Background())
	if err := r.load(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// lockFile keeps a second agent away from our directory.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: another process runs this node (%s is locked); stop it first", runtimes.ErrUnavailable, path), f.Close())
	}
	return f, nil
}

// Close lets go of the node: pods stay, for the next Open.
func (r *Runtime) Close() error {
	r.end()
	r.work.Wait()
	return r.lock.Close()
}

// Shutdown removes every pod and leaves nothing but images in Dir.
func (r *Runtime) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	uids := make([]state.UID, 0, len(r.pods))
	for uid := range r.pods {
		uids = append(uids, uid)
	}
	r.mu.Unlock()
	errs := make([]error, len(uids), len(uids)+2)
	var all sync.WaitGroup
	for i, uid := range uids {
		all.Go(func() { errs[i] = r.Remove(ctx, uid) })
	}
	all.Wait()
	errs = append(errs, r.dropNetwork(), os.RemoveAll(r.marks()), r.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("shut the node down: %w", err)
	}
	return nil
}

// changed tells everyone who observes.
func (r *Runtime) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changedLocked()
}

func (r *Runtime) changedLocked() {
	r.seen++
	close(r.news)
	r.news = make(chan struct{})
}

// enter finds a pod, or makes its entry where fresh isn't nil.
func (r *Runtime) enter(uid state.UID, fresh func() *pod) (*pod, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[uid]
	switch {
	case p != nil && p.leaving:
		return nil, fmt.Errorf("%w: it is being removed", runtimes.ErrUnavailable)
	case p == nil && fresh == nil:
		return nil, fmt.Errorf("%w: the pod has no sandbox here", runtimes.ErrNotFound)
	case p == nil:
		p = fresh()
		r.pods[uid] = p
	}
	return p, nil
}

// container finds the latest attempt of a container; nil when there is none.
func (r *Runtime) container(uid state.UID, name string) *container {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[uid]; p != nil {
		return p.containers[name]
	}
	return nil
}

// recordOf reads a container's record.
func (r *Runtime) recordOf(c *container) containerRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.record
}

// gate lets one call at a time make or clear a container of one name.
func (r *Runtime) gate(p *pod, name string) *sync.Mutex {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.names[name] == nil {
		p.names[name] = &sync.Mutex{}
	}
	return p.names[name]
}
