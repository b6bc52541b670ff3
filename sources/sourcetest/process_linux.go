package sourcetest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// run starts what listens on a port of this machine, now and at every Up.
func (d *Daemon) run(command func(port string) *exec.Cmd) {
	d.t.Helper()
	d.start = func(address string) (string, func()) {
		deadline := time.Now().Add(patience)
		for {
			at := address
			if at == "" {
				at = d.freePort()
			}
			_, port, err := net.SplitHostPort(at)
			if err != nil {
				d.t.Fatal(err)
			}
			stop, said := d.listen(command(port), at)
			if stop != nil {
				return at, stop
			}
			if time.Now().After(deadline) { // else somebody may have taken the port
				d.t.Fatalf("the server doesn't listen on %s:\n%s", at, said)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	d.Up()
	d.t.Cleanup(d.Down)
}

// freePort is an address that nobody listens on.
func (d *Daemon) freePort() string {
	d.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(d.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// listen starts a server and waits until it answers; where it ends before, stop
// is nil and what it said is the other result.
func (d *Daemon) listen(cmd *exec.Cmd, address string) (stop func(), said string) {
	d.t.Helper()
	name := filepath.Join(d.dir, "said")
	out, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) // a file: nobody waits for who else holds it
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	stop = func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		<-ended
	}
	for {
		ctx, cancel := context.WithTimeout(d.t.Context(), time.Second)
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		cancel()
		select {
		case <-ended:
			if err == nil {
				_ = conn.Close() // it was somebody else's port
			}
			return nil, d.read(name)
		default:
		}
		if err == nil {
			_ = conn.Close() // it listens
			return stop, ""
		}
		select {
		case <-d.t.Context().Done():
			stop()
			d.t.Fatal("the test is over")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
