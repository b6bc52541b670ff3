package fencer

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/bootclock"
	"github.com/tandem-gitops/tandem/runtimes/agent/step/fence"
)

// files are cells that write what they were asked into a file.
type files string

func (f files) note(what string) error {
	to, err := os.OpenFile(string(f), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = to.WriteString(what + "\n")
	_ = to.Close() // it is in the file
	return err
}

func (f files) Open(state.UID) error        { return f.note("open") }
func (f files) Term(state.UID) error        { return f.note("term") }
func (f files) Shut(state.UID) (int, error) { return 1, f.note("shut") }
func (f files) Drop(state.UID) error        { return f.note("drop") }

// TestMain is also the fencer's process.
func TestMain(m *testing.M) {
	if len(os.Args) > 5 && os.Args[1] == "fence" {
		o := Options{Dir: os.Args[3], Group: os.Args[5], Version: "v1", Cells: files(filepath.Join(os.Args[3], "asked")), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
		if err := Run(context.Background(), o); err != nil {
			o.Logger.Error("ended", slog.Any("err", err))
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestFencersProcess: a real process, in a job object and with memory of its own, outlives its
// guard, is taken over by the next, and ends when told. A file of one that has
// ended, and whose number is another process's, harms nobody.
func TestFencersProcess(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stranger := whereabouts{Address: "127.0.0.1:9", PID: os.Getpid(), Created: 1}
	raw, err := json.Marshal(stranger)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, place), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	o := GuardOptions{Program: []string{self, "fence"}, Dir: dir, Group: dir, Log: filepath.Join(dir, "log"), Version: "v1", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	uid := state.UID{1}
	w := fence.Word{Known: true, Wards: []fence.Ward{{UID: uid, Class: lease.FailoverFast, Grace: time.Second}}}
	w.Lease.Held[lease.FailoverFast], w.Lease.Sent[lease.FailoverFast] = true, bootclock.Now()
	var pids []int
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		g := NewGuard(o)
		g.Tell(w)
		opened := false
		g.Run(ctx, func(h Health) {
			if slices.Contains(h.Open, uid) {
				opened = true
				cancel()
			}
		})
		cancel()
		said, _ := os.ReadFile(o.Log)
		if !opened {
			t.Fatalf("it never opened an identity under a lease; its log:\n%s", said)
		}
		conn, pid, err := dial(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		pids = append(pids, pid)
	}
	if pids[0] != pids[1] || pids[0] == os.Getpid() {
		t.Errorf("two guards had the fencers %v, want one and the same", pids)
	}
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pids[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = windows.CloseHandle(h) }()
	if class, err := windows.GetPriorityClass(h); err != nil || class != windows.HIGH_PRIORITY_CLASS {
		t.Errorf("its priority is 0x%x: %v", class, err)
	}
	if err := End(t.Context(), dir, dir); err != nil {
		t.Fatal(err)
	}
	if _, _, err := dial(t.Context(), dir); err == nil || !gone(pids[0]) {
		t.Errorf("it is still there: %v", err)
	}
}
