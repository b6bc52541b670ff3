package sourcetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// An SSHD is OpenSSH's server, which lets root in by the keys that NewKey makes.
type SSHD struct{ *Daemon }

// ServeSSHD serves a repository over SSH with OpenSSH. It has a mount namespace,
// since it wants /run/sshd, and one of processes, since what it starts for a
// client outlives it elsewhere: nothing of it is left.
func ServeSSHD(t testing.TB, repo *Repo) *SSHD {
	t.Helper()
	hosttest.Need(t, hosttest.Root, "sshd", "ssh-keygen", "git")
	program, err := exec.LookPath("sshd")
	if err != nil {
		t.Fatal(err)
	}
	s := &SSHD{newDaemon(t, repo)}
	s.write("authorized_keys", "")
	s.write("revoked", "")
	s.KeyFile, s.KnownHostsFile = s.NewKey(""), filepath.Join(s.dir, "known_hosts")
	s.NewHostKey()
	config := `AddressFamily inet
HostKey DIR/host
AuthorizedKeysFile DIR/authorized_keys
RevokedKeys DIR/revoked
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers root
PrintMotd no
MaxStartups 100
`
	config += "SetEnv " + strings.Join(s.environment, " ") + "\n"
	s.write("config", strings.ReplaceAll(config, "DIR", s.dir))
	s.run(func(port string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", `mount -t tmpfs sshd /run && mkdir -m 0755 /run/sshd && exec "$@"`, "sh", //nolint:noctx // ended by stop
			program, "-D", "-e", "-f", filepath.Join(s.dir, "config"), "-o", "ListenAddress=127.0.0.1:"+port)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
		return cmd
	})
	s.Trust()
	s.URL = "ssh://root@" + s.address + repo.Dir
	return s
}

// NewKey makes a key with a passphrase, which may be empty, that the server lets
// in.
func (s *SSHD) NewKey(passphrase string) string {
	s.t.Helper()
	file := s.keygen("key", passphrase)
	s.add("authorized_keys", s.read(file+".pub"))
	return file
}

// Revoke takes a key from who is let in by naming it among those that are revoked.
func (s *SSHD) Revoke(file string) {
	s.t.Helper()
	s.add("revoked", s.read(file+".pub"))
}

// NewHostKey gives the server another key, from its next Up.
func (s *SSHD) NewHostKey() {
	s.t.Helper()
	file := s.keygen("host", "")
	for _, end := range []string{"", ".pub"} {
		s.write("host"+end, s.read(file+end))
	}
}

// Trust makes the server's key the one that KnownHostsFile has.
func (s *SSHD) Trust() {
	s.t.Helper()
	s.write("known_hosts", s.KnownHost(""))
}

// KnownHost is a line of a known_hosts file that has the server's key, after a
// marker such as "@revoked".
func (s *SSHD) KnownHost(marker string) string {
	host, port, _ := strings.Cut(s.address, ":")
	return strings.TrimSpace(fmt.Sprintf("%s [%s]:%s %s", marker, host, port, s.read(filepath.Join(s.dir, "host.pub")))) + "\n"
}

func (s *SSHD) keygen(name, passphrase string) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, name)
	if err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(dir, "key")
	if out, err := exec.CommandContext(s.t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", file).CombinedOutput(); err != nil {
		s.t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return file
}

func (s *SSHD) add(name, line string) {
	s.t.Helper()
	s.write(name, s.read(filepath.Join(s.dir, name))+line)
}
