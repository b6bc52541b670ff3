// Command demo shows Tandem from a commit to running pods: it makes a Git
// repository of examples/shop, runs `tandem up` on it with a real Linux node and
// a Windows node, commits new images, and reads what happened. It fails when
// anything is not as it says, and leaves nothing behind.
//
//	go run ./cmd/tandem/e2e/demo                 # the Windows node is simulated
//	WINDOWS=wine go run ./cmd/tandem/e2e/demo    # it is tandem.exe under Wine
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how long the demo waits for anything before it fails.
const patience = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	if err := run(ctx); err != nil {
		say("FAILED: %v", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
	say("done in %.0f s; nothing is left behind", time.Since(began).Seconds())
}

// say tells the viewer what happens now.
func say(format string, args ...any) { fmt.Printf("\n=== "+format+"\n", args...) }

// A stage is where the demo plays: everything below one temporary directory.
type stage struct {
	dir    string // holds all of the below
	tandem string // the binary
	repo   string
	data   string
	images string
	real   bool // linux-1 is this machine
	up     *process

	wine    bool         // windows-1 is tandem.exe under Wine, else simulated
	windows *windowsNode //nolint:unused,nolintlint // of wine; used on Linux alone
	marks   []string     // names that only the demo's things bear
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "tandem-demo-")
	if err != nil {
		return err
	}
	s := &stage{
		dir: dir, tandem: filepath.Join(dir, "tandem"), repo: filepath.Join(dir, "shop"),
		data: filepath.Join(dir, "data"), images: filepath.Join(dir, "images"),
	}
	s.mark(dir)
	defer func() { err = errors.Join(err, s.leave(ctx)) }()

	s.real = canRunContainers()
	switch os.Getenv("WINDOWS") {
	case "", "simulated":
	case "wine":
		s.wine = true
	default:
		return fmt.Errorf("WINDOWS=%s: want wine or simulated", os.Getenv("WINDOWS"))
	}
	for _, act := range []func(context.Context) error{s.build, s.commitShop, s.start, s.look, s.rollOut, s.read} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// canRunContainers says whether this machine can be a node, and says so once if not.
func canRunContainers() bool {
	if os.Geteuid() != 0 {
		say("not root: the Linux nodes are simulated too")
		return false
	}
	for _, name := range []string{"containerd", "runc", "nft"} {
		if _, err := exec.LookPath(name); err != nil {
			say("no %s here: the Linux nodes are simulated too", name)
			return false
		}
	}
	return true
}

func (s *stage) build(ctx context.Context) error {
	say("building tandem, and the images of examples/shop for linux and windows")
	if err := quiet(ctx, "go", "build", "-ldflags", "-s -w", "-o", s.tandem, "./cmd/tandem"); err != nil {
		return err
	}
	mkimages := filepath.Join(s.dir, "mkimages")
	if err := quiet(ctx, "go", "build", "-o", mkimages, "./examples/shop/images/mkimages"); err != nil {
		return err
	}
	for _, v := range []versions{before(), after()} {
		if err := show(ctx, mkimages, "-out", s.images, "-web", v.web, "-db", v.db); err != nil {
			return err
		}
	}
	if s.wine {
		return s.openWindows(ctx)
	}
	return nil
}

func (s *stage) start(ctx context.Context) error {
	simulate := "windows=1"
	if !s.real {
		simulate = "linux=2,windows=1"
	}
	args := []string{"up", s.repo, "--ref", "main", "--images", s.images, "--data", s.data}
	if !s.wine {
		args = append(args, "--simulate", simulate)
	}
	say("tandem %s", strings.Join(args, " "))
	up, err := launch(s.tandem, args...)
	if err != nil {
		return err
	}
	s.up = up
	if s.wine {
		if err := s.joinWindows(ctx); err != nil {
			return err
		}
	}
	return s.waitFor(ctx, before())
}

func (s *stage) look(ctx context.Context) error {
	say("what runs where")
	if err := s.run(ctx, "status"); err != nil {
		return err
	}
	if !s.real {
		return nil
	}
	if err := s.askWeb(ctx, before()); err != nil {
		return err
	}
	return s.askService(ctx, before())
}

func (s *stage) rollOut(ctx context.Context) error {
	orders, stop, err := s.watchOrder(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.commitImages(ctx); err != nil {
		return err
	}
	if err := s.waitFor(ctx, after()); err != nil {
		return err
	}
	order := orders()
	say("db was replaced in order: %s", strings.Join(order, ", "))
	if want := "db-2 db-1 db-0"; strings.Join(order, " ") != want {
		return fmt.Errorf("db was replaced as %v, not as %s", order, want)
	}
	if err := s.run(ctx, "status"); err != nil {
		return err
	}
	if !s.real {
		return nil
	}
	if err := s.askWeb(ctx, after()); err != nil {
		return err
	}
	return s.askService(ctx, after())
}

func (s *stage) read(ctx context.Context) error {
	for _, args := range [][]string{{"why", "db-0"}, {"history", "--limit", "30"}, {"verify"}} {
		say("tandem %s", strings.Join(args, " "))
		if err := s.run(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// run runs a command of tandem on the demo's data directory.
func (s *stage) run(ctx context.Context, args ...string) error {
	return show(ctx, s.tandem, append(args, "--data", s.data)...)
}

// leave stops everything, checks that nothing is left, and removes the files.
// It does so also after a failure or Ctrl-C, so it doesn't end with ctx.
func (s *stage) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	var errs []error
	if s.up != nil {
		say("tandem down")
		errs = append(errs, s.run(ctx, "down"), s.up.end(ctx))
	}
	errs = append(errs, s.leaveWindows(ctx))
	if err := s.nothingLeft(ctx); err != nil {
		return errors.Join(append(errs, fmt.Errorf("%w; the data is kept in %s", err, s.dir))...)
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
