package doctor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/cmd/tandem/doctor"
	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// TestMain is a fencer, too, where it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 7 && os.Args[2] == "fence" {
		o := fencer.Options{Dir: os.Args[4], Group: os.Args[6], Version: "v1", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
		if err := fencer.Run(context.Background(), o); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func finding(t *testing.T, r doctor.Report, name string) doctor.Finding {
	t.Helper()
	i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("no finding %q", name)
	}
	return r.Findings[i]
}

// TestLook: what is well says so, what isn't says what to do, and nothing stays.
func TestLook(t *testing.T) {
	hosttest.Need(t, hosttest.Root)
	t.Setenv("TMPDIR", t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := doctor.Look(t.Context(), doctor.Options{Data: t.TempDir(), Fencer: []string{self, "agent", "fence"}, Version: "v1", Server: "127.0.0.1:1"})
	for _, f := range r.Findings {
		if f.Detail == "" || f.State != doctor.OK && f.Remedy == "" {
			t.Errorf("finding without words: %+v", f)
		}
	}
	if f := finding(t, r, "fencer"); f.State != doctor.OK {
		t.Errorf("the fencer: %+v", f)
	}
	if f := finding(t, r, "controller"); f.State != doctor.Bad || !strings.Contains(f.Detail, "127.0.0.1:1") {
		t.Errorf("a controller that isn't there: %+v", f)
	}
	if f := finding(t, r, "certificate"); f.State != doctor.Bad || !strings.Contains(f.Remedy, "agent join") {
		t.Errorf("no certificate: %+v", f)
	}
	if r.Usable {
		t.Error("a machine without its controller is usable")
	}
	var text bytes.Buffer
	r.Text(&text)
	if !strings.Contains(text.String(), "fix: see that `tandem controller` runs there") || !strings.HasSuffix(text.String(), "this machine can't be a node\n") {
		t.Errorf("for people:\n%s", text.String())
	}
	raw, err := json.Marshal(r)
	if err != nil || !bytes.Contains(raw, []byte(`"state":"bad"`)) {
		t.Errorf("as JSON: %s, %v", raw, err)
	}

	r = doctor.Look(t.Context(), doctor.Options{Data: t.TempDir(), Fencer: []string{"/bin/false"}, Version: "v1"})
	if f := finding(t, r, "fencer"); f.State != doctor.Warn || !strings.Contains(f.Remedy, "node-loss: wait") {
		t.Errorf("a fencer that can't start: %+v", f)
	}
	left, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if strings.HasPrefix(e.Name(), "tandem-doctor-") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}
