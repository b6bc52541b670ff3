package containerd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/cgroup"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

const (
	namespace   = "tandem" // containerd's word for whose things are whose
	callTimeout = 2 * time.Minute
	lockWait    = time.Second
)

var (
	_ runtimes.Runtime = (*Runtime)(nil)
	_ runtimes.Execer  = (*Runtime)(nil)
)

// A Runtime runs pods through containerd.
type Runtime struct {
	o           Options
	id          string // eight hexadecimal digits of where it keeps its things
	run         string
	cgroup      string
	binary      string
	runc        string
	snapshotter string
	logger      *slog.Logger
	lock        *os.File
	addresses   *addresses
	kernel      unix.Utsname
	oomLeast    int // lower OOM scores can't be set here

	life context.Context //nolint:containedctx // of the goroutines below, ended by Close
	end  context.CancelFunc
	work sync.WaitGroup

	// calls is held for reading while something is made or removed through
	// containerd, for writing while the client is exchanged and what the old
	// daemon left is swept.
	calls sync.RWMutex
	swept bool // under calls

	mu      sync.Mutex // guards what follows, and the records of pods
	client  *client.Client
	ready   chan struct{} // closed while client is good
	daemon  *daemon
	version string // containerd's
	pods    map[state.UID]*pod
	seen    uint64        // counts changes
	news    chan struct{} // closed at the next change
	pulls   map[state.Digest]*pull
	users   map[userKey]user

	collectMu sync.Mutex // held while images are collected; taken before mu
	collector collector

	ledger *images.Ledger
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
	record  containerRecord // under Runtime.mu
	watched bool            // under Runtime.mu
	ask     func()          // has its watcher ask again how it is; under Runtime.mu
	ended   chan struct{}   // closed when its outcome is recorded
	gone    chan struct{}   // closed when containerd has nothing of it any more
}

func newContainer(rec containerRecord) *container {
	c := &container{record: rec, ended: make(chan struct{}), gone: make(chan struct{})}
	if rec.Phase == ended {
		close(c.ended)
	}
	return c
}

// left says that containerd has nothing of it any more; Runtime.mu is held.
func (c *container) left() {
	select {
	case <-c.gone:
	default:
		close(c.gone)
	}
}

func (r *Runtime) newPod(rec podRecord) *pod {
	return &pod{dir: r.podDir(rec.UID), record: rec, containers: map[string]*container{}, names: map[string]*sync.Mutex{}}
}

// Open takes over what an earlier process left running, starts containerd when
// it doesn't run, and sweeps away what a kill left half made.
func Open(ctx context.Context, o Options) (*Runtime, error) {
	r, err := prepare(o)
	if err != nil {
		return nil, fmt.Errorf("open the containerd runtime: %w", err)
	}
	if err := r.connectFirst(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the containerd runtime: %w", err), r.Close())
	}
	r.work.Go(r.askAgain)
	r.work.Go(r.collecting)
	return r, nil
}

func prepare(o Options) (*Runtime, error) {
	if o.Images == nil || o.Dir == "" || o.Node == "" {
		return nil, fmt.Errorf("%w: a node needs a name, a directory and a store of images", runtimes.ErrRejected)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	if !o.Range.IsValid() {
		o.Range = netip.MustParsePrefix("10.88.0.0/24")
	}
	if err := checkRange(o.Range); err != nil {
		return nil, err
	}
	if o.Limits == (ImageLimits{}) {
		o.Limits = DefaultImageLimits()
	}
	if err := o.Limits.Check(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(dir))
	r := &Runtime{
		o: o, id: fmt.Sprintf("%x", sum[:4]), run: o.RunDir, logger: o.Logger, addresses: newAddresses(o.Range),
		ready: make(chan struct{}), news: make(chan struct{}), seen: 1,
		pods: map[state.UID]*pod{}, pulls: map[state.Digest]*pull{}, users: map[userKey]user{}, collector: newCollector(),
	}
	if r.run == "" {
		r.run = "/run/tandem/" + r.id
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	r.cgroup = "/tandem/" + string(o.Node) + "." + r.id
	if err := unix.Uname(&r.kernel); err != nil {
		return nil, err
	}
	if r.oomLeast, err = oomLeast(); err != nil {
		return nil, err
	}
	if err := r.findPrograms(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(o.Dir, 0o711), os.MkdirAll(r.podsDir(), 0o711)); err != nil {
		return nil, err
	}
	if r.lock, err = lockFile(filepath.Join(r.run, "lock")); err != nil {
		return nil, err
	}
	if r.ledger, err = images.OpenLedger(filepath.Join(o.Dir, "private.json")); err != nil {
		return nil, errors.Join(err, r.lock.Close())
	}
	r.life, r.end = context.WithCancel(context.Background())
	r.chooseSnapshotter()
	r.loadUsed()
	if err := r.load(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Runtime) findPrograms() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: Linux containers need root; run as root or with --simulate linux=1", runtimes.ErrUnsupported)
	}
	for _, p := range []struct {
		given, name string
		found       *string
	}{{r.o.Binary, "containerd", &r.binary}, {r.o.Runc, "runc", &r.runc}} {
		if p.given != "" {
			*p.found = p.given
			continue
		}
		path, err := exec.LookPath(p.name)
		if err != nil && (p.name != "containerd" || r.o.Socket == "") {
			return fmt.Errorf("%w: %s is not installed; install it: apt-get install containerd runc", runtimes.ErrUnsupported, p.name)
		}
		*p.found = path
	}
	return nil
}

// lockFile keeps a second agent away from our directory.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// A process that was just being started when the last holder let go has the
	// lock until it runs its own program.
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for limit := time.Now().Add(lockWait); err != nil && time.Now().Before(limit); {
		time.Sleep(lockWait / 100)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: another process runs this node (%s is locked); stop it first", runtimes.ErrUnavailable, path), f.Close())
	}
	return f, nil
}

// RunDir is the node's directory in memory, which a reboot or Shutdown empties.
func (r *Runtime) RunDir() string { return r.run }

// Group is the control group that all pods of the node are below.
func (r *Runtime) Group() string { return r.cgroup }

// Close lets go of the node: pods and containerd stay, for the next Open.
func (r *Runtime) Close() error {
	r.end()
	r.mu.Lock()
	c := r.client
	r.mu.Unlock()
	if c != nil {
		_ = c.Close() // ends the calls that wait
	}
	r.work.Wait()
	return r.lock.Close()
}

// Shutdown removes every pod, stops the daemon and leaves nothing but images
// and snapshots in Dir.
func (r *Runtime) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	var errs []error
	var wg sync.WaitGroup
	var errMu sync.Mutex
	for uid := range r.pods {
		wg.Go(func() {
			if err := r.Remove(ctx, uid); err != nil {
				errMu.Lock()
				defer errMu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	r.mu.Unlock()
	wg.Wait()
	if len(errs) > 0 {
		return errors.Join(append(errs, r.Close())...)
	}
	r.mu.Lock()
	d := r.daemon
	r.mu.Unlock()
	r.end() // so that nobody starts it again
	if d != nil {
		errs = append(errs, d.stop())
	}
	errs = append(errs, r.Close(), endCgroups(r.cgroup))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("shut the node down: %w", err)
	}
	if err := os.RemoveAll(r.run); err != nil {
		return fmt.Errorf("shut the node down: %w", err)
	}
	// Both go when ours was the last node.
	_ = os.Remove("/run/tandem")
	cgroup.At(cgroup.Root, "/tandem").RemoveEmpty()
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
