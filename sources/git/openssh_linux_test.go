package git_test

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// TestConformanceOfDaemons: git's own daemon and OpenSSH as people run them. The
// servers of TestConformance are ours in front of git's programs.
func TestConformanceOfDaemons(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]func(*testing.T, *sourcetest.Repo) sources.Source{
		"git daemon": func(t *testing.T, repo *sourcetest.Repo) sources.Source {
			return open(t, git.Options{URL: sourcetest.ServeDaemon(t, repo).URL})
		},
		"OpenSSH": func(t *testing.T, repo *sourcetest.Repo) sources.Source {
			server := sourcetest.ServeSSHD(t, repo)
			return open(t, git.Options{URL: server.URL, Auth: git.Auth{SSHKeyFile: server.KeyFile, KnownHostsFile: server.KnownHostsFile}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.Run(t, create)
		})
	}
}

// TestOpenSSHKeys: which key a real server lets in, and what is said where it
// doesn't.
func TestOpenSSHKeys(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	server, other := sourcetest.ServeSSHD(t, repo), sourcetest.ServeSSHD(t, repo)
	secret, revoked := server.NewKey("correct horse"), server.NewKey("")
	with := func(key, passphrase string) *git.Source {
		auth := git.Auth{SSHKeyFile: key, KnownHostsFile: server.KnownHostsFile}
		if passphrase != "" {
			auth.SSHPassphraseFile = file(t, passphrase+"\n")
		}
		return open(t, git.Options{URL: server.URL, Auth: auth})
	}
	none := sources.Snapshot{}
	sourcetest.Await(t, with(server.KeyFile, ""), "")
	sourcetest.Await(t, with(secret, "correct horse"), "")
	refused(t, with(secret, ""), none, sources.ErrDenied, "has a passphrase")
	_, err := with(secret, "wrong horse").Next(t.Context(), "")
	if !errors.Is(err, sources.ErrUnavailable) || !strings.Contains(err.Error(), "with its passphrase") || strings.Contains(err.Error(), "wrong horse") {
		t.Errorf("a wrong passphrase: %v", err)
	}
	refused(t, with(other.KeyFile, ""), none, sources.ErrDenied, "refuses the SSH key")

	follows := with(revoked, "")
	first := sourcetest.Await(t, follows, "")
	server.Revoke(revoked)
	refused(t, follows, first, sources.ErrDenied, "refuses the SSH key")
}

// TestOpenSSHHostKeys: a server that isn't known by the key that it shows gets
// nothing from us, not even who we are.
func TestOpenSSHHostKeys(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	server := sourcetest.ServeSSHD(t, repo)
	knowing := func(lines string) *git.Source {
		return open(t, git.Options{URL: server.URL, Auth: git.Auth{SSHKeyFile: server.KeyFile, KnownHostsFile: file(t, lines)}})
	}
	none := sources.Snapshot{}
	refused(t, knowing(""), none, sources.ErrDenied, "not a known host", "ssh-keyscan", "SHA256:")
	refused(t, knowing(server.KnownHost("")+server.KnownHost("@revoked")), none, sources.ErrDenied, "revokes", "SHA256:")

	follows := open(t, git.Options{URL: server.URL, Auth: git.Auth{SSHKeyFile: server.KeyFile, KnownHostsFile: server.KnownHostsFile}})
	first := sourcetest.Await(t, follows, "")
	server.Down()
	server.NewHostKey()
	server.Up()
	refused(t, follows, first, sources.ErrDenied, "another key", "SHA256:")
	server.Trust() // the file is read anew
	repo.Commit("main", map[string]string{"a": "2"})
	sourcetest.Await(t, follows, first.Revision)
}

// TestOpenSSHAgent: OpenSSH's agent proves who we are; one that never answers is
// given up as a server is.
func TestOpenSSHAgent(t *testing.T) {
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	server := sourcetest.ServeSSHD(t, repo)
	hosttest.Need(t, "ssh-agent", "ssh-add")
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	agent := exec.CommandContext(t.Context(), "ssh-agent", "-D", "-a", socket)
	said, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill() // it doesn't end by itself
		_ = agent.Wait()
	})
	if _, err := bufio.NewReader(said).ReadString('\n'); err != nil { // it listens
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	follow := func(patience time.Duration) *git.Source {
		o := git.Options{URL: server.URL, Auth: git.Auth{KnownHostsFile: server.KnownHostsFile}}
		o.SetIdle(patience)
		return open(t, o)
	}
	refused(t, follow(time.Minute), sources.Snapshot{}, sources.ErrDenied, "refuses the SSH key")
	if out, err := exec.CommandContext(t.Context(), "ssh-add", server.KeyFile).CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
	sourcetest.Await(t, follow(time.Minute), "")

	mute, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "mute"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mute.Close() })
	t.Setenv("SSH_AUTH_SOCK", mute.Addr().String())
	refused(t, follow(300*time.Millisecond), sources.Snapshot{}, sources.ErrUnavailable, "timeout")
}

// TestOpenSSHPush: a branch of a repository behind a real server is moved by
// compare-and-swap.
func TestOpenSSHPush(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	first := repo.Commit("main", map[string]string{"a": "1"})
	second := repo.Commit("next", map[string]string{"a": "2"})
	server := sourcetest.ServeSSHD(t, repo)
	options := git.Options{URL: server.URL, Auth: git.Auth{SSHKeyFile: server.KeyFile, KnownHostsFile: server.KnownHostsFile}}
	if err := git.Push(t.Context(), options, git.Move{Branch: "main", Old: first, New: second}); err != nil || repo.Head("main") != second {
		t.Fatalf("push: %v, main is at %s", err, repo.Head("main"))
	}
	var moved *git.MovedError
	if err := git.Push(t.Context(), options, git.Move{Branch: "main", Old: first, New: strings.Repeat("12", 20)}); !errors.As(err, &moved) {
		t.Errorf("push from elsewhere: %v", err)
	}
}
