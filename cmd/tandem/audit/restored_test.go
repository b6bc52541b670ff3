package audit_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/simulated"
)

// grow adds records to a log.
func grow(t *testing.T, s *history.Store, n int, by string) {
	t.Helper()
	head := s.Head()
	var batch []*state.Record
	for i := range n {
		seq := head.Seq + 1 + state.Seq(i)
		batch = append(batch, &state.Record{
			Seq: seq, At: state.Instant{Mono: time.Duration(seq), Wall: int64(seq)}, Fact: &state.ControllerStarted{Version: by},
		})
	}
	if _, err := s.Append(t.Context(), head, batch); err != nil {
		t.Fatal(err)
	}
}

func openLog(t *testing.T, dir string) *history.Store {
	t.Helper()
	s, err := history.Open(dir, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// blind is a controller's end that doesn't look at what the agent remembers.
type blind struct{ agent.Link }

// Open implements agent.Link.
func (b blind) Open(ctx context.Context, hello agent.Hello, peer agent.Peer) (agent.Session, error) {
	hello.Head = agent.Head{}
	return b.Link.Open(ctx, hello, peer)
}

// controllerOf is the controller's end over a log, and what it was told and logs.
func controllerOf(s *history.Store) (hub *agent.Hub, hellos func() int, logged *lockedBuffer) {
	var mu sync.Mutex
	n := 0
	logged = new(lockedBuffer)
	hub = agent.NewHub(agent.HubConfig{
		Renew: 20 * time.Millisecond, Lease: time.Minute, Logger: slog.New(slog.NewTextHandler(logged, nil)),
		Submit: func(events ...state.Event) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				if _, ok := e.(*state.NodeHello); ok {
					n++
				}
			}
		},
		Head: func() agent.Head {
			h := s.Head()
			return agent.Head{Log: s.ID(), Size: uint64(h.Seq), Root: h.Root}
		},
		Proof: func(earlier, later uint64) ([]state.Digest, error) {
			hashes, err := s.Consistency(state.Seq(earlier), state.Seq(later))
			var out []state.Digest
			for _, h := range hashes {
				out = append(out, state.Digest(h))
			}
			return out, err
		},
	})
	return hub, func() int { mu.Lock(); defer mu.Unlock(); return n }, logged
}

// agentOf starts a real agent over a directory; it ends with stop.
func agentOf(t *testing.T, dir string, link agent.Link) (logged *lockedBuffer, stop func()) {
	t.Helper()
	logged = new(lockedBuffer)
	a, err := agent.New(t.Context(), agent.Config{
		Node: "linux-1", Dir: dir, Runtime: simulated.New(simulated.Options{Facts: simulated.Facts(state.Linux, "amd64", "")}), Link: link, BootID: "boot", Version: "test",
		Logger: slog.New(slog.NewTextHandler(logged, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return logged, stop
}

// soon waits for a condition.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// A log that was rolled back to an old copy is told by real agents: as it is, and when it
// has grown longer than what they saw; also where the controller doesn't look. The newest
// log is good again, and an agent that joins anew takes the old copy.
func TestAgentsRefuseAnOlderHistory(t *testing.T) {
	t.Parallel()
	dir, node := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "node")
	s := openLog(t, dir)
	grow(t, s, 10, "one")
	old := copied(t, dir)
	hub, hellos, _ := controllerOf(s)
	_, stop := agentOf(t, node, hub.Link())
	soon(t, "the agent connects", func() bool { return hellos() == 1 })
	grow(t, s, 7, "one") // what happens within a session is remembered too
	soon(t, "the agent has seen record 17", func() bool {
		raw, err := os.ReadFile(filepath.Join(node, "agent.json"))
		return err == nil && strings.Contains(strings.ReplaceAll(string(raw), " ", ""), `"Size":17`)
	})
	stop()

	refused := func(name string, log *history.Store, looks bool, words string) {
		t.Helper()
		hub, hellos, logged := controllerOf(log)
		link := hub.Link()
		if !looks {
			link = blind{link}
		}
		said, stop := agentOf(t, node, link)
		defer stop()
		soon(t, name+": the agent refuses it", func() bool { return strings.Contains(said.String(), words) })
		if text := said.String(); !strings.Contains(text, "remove the agent's data directory and join again") || !strings.Contains(text, "level=ERROR") {
			t.Errorf("%s: the agent doesn't say what to do: %s", name, text)
		}
		if strings.Contains(said.String(), "reached the controller") {
			t.Errorf("%s: the agent takes orders from it", name)
		}
		if looks && (hellos() > 0 || !strings.Contains(logged.String(), "another history of the log")) {
			t.Errorf("%s: the controller goes on, and logs %q", name, logged.String())
		}
	}
	copy := openLog(t, old)
	refused("an old copy", copy, true, "an old copy was restored")
	refused("an old copy, and nobody looks", copy, false, "an old copy was restored")
	grow(t, copy, 7, "two")
	refused("another history of the same length", copy, true, "differs from the one that this node has seen")
	grow(t, copy, 9, "two")
	refused("another history, longer", copy, true, "it is another history")
	refused("another history, longer, and nobody looks", copy, false, "does not prove")

	grow(t, s, 30, "one")
	hub, hellos, _ = controllerOf(s)
	_, stop = agentOf(t, node, hub.Link())
	soon(t, "the newest log is taken", func() bool { return hellos() == 1 })
	stop()
	if err := os.RemoveAll(node); err != nil {
		t.Fatal(err)
	}
	hub, hellos, _ = controllerOf(copy)
	_, stop = agentOf(t, node, hub.Link())
	soon(t, "an agent that joins anew takes the copy", func() bool { return hellos() == 1 })
	stop()
}

// The controller's own memory: a log whose files are older than its checkpoint, or whose
// checkpoint is of another log, starts no controller.
func TestAControllerRefusesAnOlderLog(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	s := openLog(t, dir)
	grow(t, s, 10, "one")
	old := copied(t, dir)
	grow(t, s, 5, "one")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("log", "00000000000000000001.log")
	raw, err := os.ReadFile(filepath.Join(old, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := history.Open(dir, history.Options{}); err == nil || !strings.Contains(err.Error(), "15 were acknowledged") {
		t.Errorf("a log that ends earlier than it did: %v", err)
	}
}
