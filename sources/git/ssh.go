package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/tandem-gitops/tandem/sources"
)

// sshSession is a conversation with git-upload-pack behind an SSH server.
// go-git's own can't be cancelled while it connects, and asks ~/.ssh/config for
// another host; this one reads nothing but keys and known hosts.
type sshSession struct {
	stream
	client  *ssh.Client
	session *ssh.Session
	said    *firstWords
	stop    func() bool
	agent   io.Closer
}

func dialSSH(ctx context.Context, a address, auth Auth) (session, error) {
	return startSSH(ctx, a, auth, "git-upload-pack")
}

// startSSH runs one of git's programs behind an SSH server.
func startSSH(ctx context.Context, a address, auth Auth, program string) (_ *sshSession, err error) {
	s := &sshSession{said: &firstWords{}}
	defer func() {
		if err != nil {
			_ = s.Close() // the error before counts
		}
	}()
	config := &ssh.ClientConfig{User: a.user}
	if auth.Username != "" {
		config.User = auth.Username
	}
	if config.HostKeyCallback, config.HostKeyAlgorithms, err = knownHosts(a.host, auth.KnownHostsFile); err != nil {
		return nil, err
	}
	idle := cmp.Or(a.idle, idleTimeout)
	method, agent, err := auth.keys(ctx, idle)
	if err != nil {
		return nil, err
	}
	if agent != nil {
		s.agent = agent
	}
	config.Auth = []ssh.AuthMethod{method}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", a.host)
	if err != nil {
		return nil, err
	}
	s.conn = &impatient{Conn: conn, idle: idle}
	s.stop = context.AfterFunc(ctx, func() {
		_ = conn.Close()
		if agent != nil {
			_ = agent.Close()
		}
	})
	c, channels, requests, err := ssh.NewClientConn(s.conn, a.host, config)
	if err != nil {
		_ = conn.Close()
		return nil, explainSSH(err)
	}
	s.client = ssh.NewClient(c, channels, requests)
	if s.session, err = s.client.NewSession(); err != nil {
		return nil, err
	}
	s.session.Stderr = s.said
	if s.in, err = s.session.StdinPipe(); err != nil {
		return nil, err
	}
	if s.out, err = s.session.StdoutPipe(); err != nil {
		return nil, err
	}
	s.silent = func() error {
		_ = s.session.Wait() // then all of what it said has arrived
		if words := s.said.String(); words != "" {
			return fmt.Errorf("the server says %q: %w", words, sources.ErrNotFound)
		}
		return errors.New("the server hung up without a word")
	}
	return s, s.session.Start(program + " " + quote(a.path))
}

// quote is for the shell that the server may run the command with.
func quote(path string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(path) + "'"
}

func (s *sshSession) Close() error {
	if s.stop != nil {
		s.stop()
	}
	err := s.farewell()
	if s.client != nil {
		err = errors.Join(err, s.client.Close())
		_ = s.client.Wait() // its goroutines end with it
	}
	if s.agent != nil {
		err = errors.Join(err, s.agent.Close())
	}
	return err
}

// keys finds the key that proves who we are.
func (a Auth) keys(ctx context.Context, idle time.Duration) (ssh.AuthMethod, net.Conn, error) {
	if a.SSHKeyFile != "" {
		signer, err := a.key(a.SSHKeyFile)
		if err != nil {
			return nil, nil, err
		}
		return ssh.PublicKeys(signer), nil, nil
	}
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", socket)
		if err == nil {
			return ssh.PublicKeysCallback(agent.NewClient(&impatient{Conn: conn, idle: idle}).Signers), conn, nil
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, nil, err
	}
	var signers []ssh.Signer
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		path := filepath.Join(home, ".ssh", name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		signer, err := a.key(path)
		if err != nil {
			return nil, nil, err
		}
		signers = append(signers, signer)
	}
	if len(signers) == 0 {
		return nil, nil, fmt.Errorf("there is no SSH key: name a key file, run an agent, or make ~/.ssh/id_ed25519: %w", sources.ErrDenied)
	}
	return ssh.PublicKeys(signers...), nil, nil
}

func (a Auth) key(path string) (ssh.Signer, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the SSH key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		if a.SSHPassphraseFile == "" {
			return nil, fmt.Errorf("the SSH key %s has a passphrase: name a file that holds it, or use an agent: %w", path, sources.ErrDenied)
		}
		passphrase, err := os.ReadFile(a.SSHPassphraseFile)
		if err != nil {
			return nil, fmt.Errorf("read the SSH key's passphrase: %w", err)
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(pem, bytes.TrimRight(passphrase, "\r\n"))
		if err != nil {
			return nil, fmt.Errorf("open the SSH key %s with its passphrase: %w", path, err)
		}
		return signer, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the SSH key %s: %w", path, err)
	}
	return signer, nil
}

// knownHosts is the check of the server's key, and the kinds of keys that are
// known of it: asked for another kind, an honest server would seem a stranger.
func knownHosts(host, file string) (ssh.HostKeyCallback, []string, error) {
	files := []string{file}
	if file == "" {
		files = nil
		if home, err := os.UserHomeDir(); err == nil {
			files = append(files, filepath.Join(home, ".ssh", "known_hosts"))
		}
		files = append(files, "/etc/ssh/ssh_known_hosts")
	}
	var there []string
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			there = append(there, f)
		}
	}
	if len(there) == 0 {
		return nil, nil, fmt.Errorf("no server is known, there is no %s: put the output of `ssh-keyscan %s` there after checking it: %w", strings.Join(files, " or "), bare(host), sources.ErrDenied)
	}
	check, err := knownhosts.New(there...)
	if err != nil {
		return nil, nil, fmt.Errorf("read known hosts: %w", err)
	}
	var algorithms []string
	if known, ok := errors.AsType[*knownhosts.KeyError](check(host, &net.TCPAddr{IP: net.IPv4zero}, nobody{})); ok {
		for _, k := range known.Want {
			if kind := k.Key.Type(); kind == ssh.KeyAlgoRSA {
				algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			} else {
				algorithms = append(algorithms, kind)
			}
		}
	}
	return func(name string, remote net.Addr, key ssh.PublicKey) error {
		err := check(name, remote, key)
		var unknown *knownhosts.KeyError
		var revoked *knownhosts.RevokedError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &revoked):
			return fmt.Errorf("%s shows a key that %s:%d revokes (%s): somebody who has that key may be in between; if the server has another by now, put that there: %w", bare(host), revoked.Revoked.Filename, revoked.Revoked.Line, ssh.FingerprintSHA256(key), sources.ErrDenied)
		case errors.As(err, &unknown) && len(unknown.Want) == 0:
			return fmt.Errorf("%s is not a known host (its key is %s): after checking that, add the output of `ssh-keyscan %s` to %s: %w", bare(host), ssh.FingerprintSHA256(key), bare(host), there[0], sources.ErrDenied)
		case errors.As(err, &unknown):
			return fmt.Errorf("%s shows another key than %s has (%s): somebody may be in between; if the key was changed on purpose, mend that file: %w", bare(host), there[0], ssh.FingerprintSHA256(key), sources.ErrDenied)
		default:
			return errors.Join(err, sources.ErrDenied)
		}
	}, algorithms, nil
}

// bare is a host without the port that SSH has anyway.
func bare(host string) string { return strings.TrimSuffix(host, ":22") }

// nobody's key is known nowhere, so that asking for it lists what is.
type nobody struct{}

func (nobody) Type() string                        { return "none" }
func (nobody) Marshal() []byte                     { return nil }
func (nobody) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

func explainSSH(err error) error {
	if strings.Contains(err.Error(), "unable to authenticate") { // it has no type
		return fmt.Errorf("the server refuses the SSH key: %w", sources.ErrDenied)
	}
	return err
}

// firstWords keeps the beginning of what a server says beside the protocol.
type firstWords struct {
	mu   sync.Mutex
	text []byte
}

const maxWords = 300

func (w *firstWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p[:min(len(p), maxWords-len(w.text))]...)
	return len(p), nil
}

func (w *firstWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(w.text), "\uFFFD"))
}
