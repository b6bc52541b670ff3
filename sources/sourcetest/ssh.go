package sourcetest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// ServeSSH serves a repository over SSH with git upload-pack, to one key.
func ServeSSH(t testing.TB, repo *Repo) *Server {
	t.Helper()
	hosttest.Need(t, "git")
	dir := t.TempDir()
	s := &Server{t: t, address: "127.0.0.1:0", KeyFile: filepath.Join(dir, "key"), KnownHostsFile: filepath.Join(dir, "known_hosts")}
	client := s.newKey(s.KeyFile)
	host := s.newKey("")
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.PublicKey().Marshal()) {
			return nil, errors.New("another key")
		}
		return &ssh.Permissions{}, nil
	}}
	config.AddHostKey(host)
	s.serve = func(listener net.Listener) func() { return s.listen(listener, config, repo) }
	s.Up()
	t.Cleanup(s.Down)
	line := knownhosts.Line([]string{s.address}, host.PublicKey())
	if err := os.WriteFile(s.KnownHostsFile, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.URL = "ssh://git@" + s.address + repo.Dir
	return s
}

func (s *Server) newKey(file string) ssh.Signer {
	s.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	if file != "" {
		block, err := ssh.MarshalPrivateKey(key, "test")
		if err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	return signer
}

func (s *Server) listen(listener net.Listener, config *ssh.ServerConfig, repo *Repo) func() {
	var done sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	closed := false
	done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if closed {
				_ = conn.Close()
				mu.Unlock()
				return
			}
			open[conn] = true
			mu.Unlock()
			s.Requests.Add(1)
			done.Go(func() {
				s.talk(conn, config, repo)
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
				_ = conn.Close() // the client may have been first
			})
		}
	})
	return func() {
		mu.Lock()
		closed = true
		for conn := range open {
			_ = conn.Close() // what is going on breaks, as it should
		}
		mu.Unlock()
		_ = listener.Close()
		done.Wait()
	}
}

func (s *Server) talk(conn net.Conn, config *ssh.ServerConfig, repo *Repo) {
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return // a client that we don't let in, or that doesn't trust us
	}
	var done sync.WaitGroup
	done.Go(func() { ssh.DiscardRequests(requests) })
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			continue
		}
		done.Go(func() {
			for r := range requests {
				if r.Type != "exec" {
					_ = r.Reply(false, nil)
					continue
				}
				var command struct{ Text string }
				err := ssh.Unmarshal(r.Payload, &command)
				_ = r.Reply(err == nil, nil)
				s.execute(channel, command.Text, repo)
				_ = channel.Close()
			}
		})
	}
	_ = server.Wait()
	done.Wait()
}

func (s *Server) execute(channel ssh.Channel, command string, repo *Repo) {
	path, ok := strings.CutPrefix(command, "git-upload-pack '")
	status := struct{ Status uint32 }{}
	if !ok {
		status.Status = 127
	} else {
		cmd := exec.CommandContext(context.Background(), "git", "upload-pack", strings.TrimSuffix(path, "'"))
		cmd.Env = environment(repo.home)
		var out io.Writer = channel
		if cut := s.Cut.Load(); cut > 0 {
			out = &cutChannel{Channel: channel, left: cut}
		}
		cmd.Stdout, cmd.Stderr = out, channel.Stderr()
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			var done sync.WaitGroup
			done.Go(func() {
				_, _ = io.Copy(in, channel) // ends with the client
				_ = in.Close()
			})
			err = cmd.Wait()
			_ = channel.CloseWrite()
			if err != nil {
				status.Status = 128
			}
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
			_ = channel.Close()
			done.Wait()
			return
		}
		status.Status = 126
	}
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
}

// cutChannel ends the conversation after so many bytes.
type cutChannel struct {
	ssh.Channel
	left int64
}

func (c *cutChannel) Write(p []byte) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		_ = c.Close()
		return 0, errors.New("cut")
	}
	return c.Channel.Write(p)
}
