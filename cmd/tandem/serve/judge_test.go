package serve

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// signedCommit puts a commit on a branch with one ConfigMap, signed by who has
// the key; nil: by nobody.
func signedCommit(t *testing.T, repo *sourcetest.Repo, key ssh.Signer, name string, parents ...string) string {
	t.Helper()
	repo.CommitFiles("scratch", sourcetest.File{Path: "cm.yaml", Mode: sourcetest.Regular, Data: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"})
	if key != nil { // who signs lets themselves in, which nobody reads there
		repo.CommitFiles("scratch", sourcetest.File{Path: "signers/prod", Mode: sourcetest.Regular, Data: "ada@example.com " + string(ssh.MarshalAuthorizedKey(key.PublicKey()))})
	}
	tree := repo.Run("rev-parse", "scratch^{tree}")
	head := "tree " + tree + "\n"
	for _, p := range parents {
		head += "parent " + p + "\n"
	}
	now := time.Now().Unix()
	head += fmt.Sprintf("author Ada <ada@example.com> %d +0000\ncommitter Ada <ada@example.com> %d +0000\n", now, now)
	raw := head + "\n" + name + "\n"
	if key != nil {
		sum := sha512.Sum512([]byte(raw))
		sig, err := key.Sign(rand.Reader, append([]byte("SSHSIG"), ssh.Marshal(struct {
			Namespace, Reserved, Hash string
			Sum                       []byte
		}{"git", "", "sha512", sum[:]})...))
		if err != nil {
			t.Fatal(err)
		}
		blob := append([]byte("SSHSIG"), ssh.Marshal(struct {
			Version                   uint32
			Key                       []byte
			Namespace, Reserved, Hash string
			Signature                 []byte
		}{1, key.PublicKey().Marshal(), "git", "", "sha512", ssh.Marshal(sig)})...)
		raw = head + "gpgsig -----BEGIN SSH SIGNATURE-----\n " + base64.StdEncoding.EncodeToString(blob) + "\n -----END SSH SIGNATURE-----\n\n" + name + "\n"
	}
	hash := repo.Object("commit", raw)
	repo.Reset("prod", hash)
	return hash
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serving runs a server on a repository until the test ends.
func serving(t *testing.T, where string) *Server {
	t.Helper()
	s, err := Open(t.Context(), Options{Data: t.TempDir(), Where: where, Renders: renders(), Ref: "main", Interval: time.Second, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// until waits for something of the state.
func until(t *testing.T, s *Server, what string, is func(*state.State) bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		var seq state.Seq
		found := false
		s.Controller.View(func(st *state.State) { seq, found = st.Seq, is(st) })
		if found {
			return
		}
		select {
		case <-s.Controller.Changed(seq):
		case <-deadline:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func has(name string) func(*state.State) bool {
	return func(st *state.State) bool {
		return st.Objects[state.Ref{Kind: "ConfigMap", Namespace: "default", Name: name}] != nil
	}
}

func rejected(hash string) func(*state.State) bool {
	return func(st *state.State) bool {
		a := st.Apps["prod"]
		return a != nil && a.Rejected != nil && a.Rejected.Revision.Commit() == hash
	}
}

// Only commits that a listed key signed are applied; the list is the root's, and
// a key that is added there counts at once.
func TestVerifiedApplication(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"head", "strict"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			repo := sourcetest.NewRepo(t)
			ada, eve := newKey(t), newKey(t)
			first := signedCommit(t, repo, ada, "one")
			repo.Commit("main", map[string]string{
				"tandem/app.yaml": "apiVersion: tandem.dev/v1\nkind: Application\nmetadata: {name: prod}\nspec: {source: {ref: prod, verify: {mode: " + mode + ", signers: signers/prod}}}\n",
				"signers/prod":    "ada@example.com " + string(ssh.MarshalAuthorizedKey(ada.PublicKey())),
			})
			s, err := Open(t.Context(), Options{Data: t.TempDir(), Where: repo.Dir, Renders: renders(), Ref: "main", Path: "tandem", Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			defer func() {
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}()
			until(t, s, "the signed commit", has("one"))
			s.Controller.View(func(st *state.State) {
				if st.Apps["prod"].Commit.Signer.IsZero() {
					t.Error("nobody says who signed it")
				}
			})
			unsigned := signedCommit(t, repo, nil, "two", first)
			until(t, s, "the unsigned commit refused", rejected(unsigned))
			forged := signedCommit(t, repo, eve, "three", first)
			until(t, s, "the stranger's commit refused", rejected(forged))
			// A signed commit on top of an unsigned one.
			onTop := signedCommit(t, repo, ada, "four", unsigned)
			if mode == "head" {
				until(t, s, "the signed head", has("four"))
			} else {
				until(t, s, "the unsigned ancestor refused", rejected(onTop))
			}
			// The stranger is let in by the root.
			signedCommit(t, repo, eve, "five", first)
			repo.Commit("main", map[string]string{"signers/prod": "eve@example.com " + string(ssh.MarshalAuthorizedKey(eve.PublicKey()))})
			if mode == "strict" {
				until(t, s, "the new signer's commit", has("five"))
			} else {
				until(t, s, "the new signer's commit held: it doesn't follow", func(st *state.State) bool { return len(st.Holds) == 1 })
			}
			s.Controller.View(func(st *state.State) {
				if has("two")(st) || has("three")(st) {
					t.Error("an unsigned commit was applied")
				}
			})
		})
	}
}

// A forced push waits for a person; a branch that is put right again doesn't.
func TestRewoundBranch(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	cm := func(name string) map[string]string {
		return map[string]string{"cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"}
	}
	one := repo.Commit("main", cm("one"))
	repo.Commit("main", cm("two"))
	two := repo.Commit("main", cm("three"))
	web := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{})
	s := serving(t, web.URL)
	until(t, s, "the branch as it is", has("three"))
	held := func(hash string) func(*state.State) bool {
		return func(st *state.State) bool {
			for _, h := range st.Holds {
				if h.Code == state.HoldRewind && strings.HasSuffix(h.Params[0], hash) && strings.HasSuffix(h.Params[1], two) {
					return true
				}
			}
			return false
		}
	}
	repo.Reset("main", one)
	until(t, s, "the rewind held", held(one))
	other := repo.Commit("main", cm("other"))
	until(t, s, "what comes after it held", held(other))
	repo.Reset("main", two)
	until(t, s, "the hold gone", func(st *state.State) bool { return len(st.Holds) == 0 && has("three")(st) && !has("other")(st) })
	repo.Reset("main", other)
	until(t, s, "held again", held(other))
	id := ""
	s.Controller.View(func(st *state.State) {
		for i := range st.Holds {
			id = i
		}
	})
	s.Controller.Submit(&state.Command{ID: 1, Verb: state.CmdApprove, Hold: id, Object: state.Ref{Kind: "Application", Name: "root"}})
	until(t, s, "what was approved", has("other"))
}
