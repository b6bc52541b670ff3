package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/hcs/hcstest"
)

// A windowsNode is a Windows machine under Wine, with a double of the Host
// Compute Service, and tandem.exe as its agent.
type windowsNode struct {
	machine *hcstest.Machine
	exe     string // tandem.exe
	data    string // of the agent
	agent   *process
}

// openWindows makes the machine.
func (s *stage) openWindows(ctx context.Context) error {
	if missing := hcstest.Missing(); len(missing) > 0 {
		return fmt.Errorf("WINDOWS=wine needs %s: apt-get install %s", strings.Join(missing, " and "), strings.Join(missing, " "))
	}
	if !s.real {
		return errors.New("WINDOWS=wine shows a real Linux node and tandem.exe side by side: run it as root, with containerd, runc and nftables")
	}
	say("building tandem.exe, and a Windows machine of Wine and a double of the Host Compute Service")
	w := &windowsNode{exe: filepath.Join(s.dir, "tandem.exe"), data: filepath.Join(s.dir, "windows-data")}
	if err := hcstest.Build(ctx, w.exe, "github.com/tandem-gitops/tandem/cmd/tandem"); err != nil {
		return err
	}
	var err error
	if w.machine, err = hcstest.Open(ctx, filepath.Join(s.dir, "windows"), os.Stderr); err != nil {
		return err
	}
	s.windows = w
	return w.machine.Reach(ctx)
}

// joinWindows joins the machine to the controller, and starts its agent.
func (s *stage) joinWindows(ctx context.Context) error {
	address, err := s.apiAddress(ctx)
	if err != nil {
		return err
	}
	token, err := exec.CommandContext(ctx, s.tandem, "agent", "token", "create", "--data", s.data).Output()
	if err != nil {
		return fmt.Errorf("make a join token: %w", err)
	}
	say("tandem.exe agent join --server %s --token … --name windows-1, under Wine", address)
	w := s.windows
	data := w.machine.Path(w.data)
	if err := w.run(ctx, "agent", "join", "--server", address, "--token", strings.TrimSpace(string(token)), "--name", "windows-1", "--data", data); err != nil {
		return err
	}
	w.agent, err = launchCommand(w.machine.Command(context.WithoutCancel(ctx), w.exe, "agent", "run", "--data", data, "--images", w.machine.Path(s.images)))
	return err
}

// apiAddress waits for the kubeconfig of `tandem up` and reads where it listens.
func (s *stage) apiAddress(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		c, err := s.client()
		if err == nil {
			if _, err = c.pods(ctx); err == nil {
				return strings.TrimPrefix(c.host, "https://"), nil
			}
		}
		select {
		case <-s.up.ended:
			return "", fmt.Errorf("tandem up ended: %w", errors.Join(s.up.err, err))
		case <-ctx.Done():
			return "", fmt.Errorf("no controller answers: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (w *windowsNode) run(ctx context.Context, args ...string) error {
	cmd := w.machine.Command(ctx, w.exe, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("tandem.exe %s: %w", args[0]+" "+args[1], err)
	}
	return nil
}

// leaveWindows ends the agent, has it clean up, and takes the machine away.
func (s *stage) leaveWindows(ctx context.Context) error {
	w := s.windows
	if w == nil {
		return nil
	}
	var errs []error
	if w.agent != nil {
		_ = w.agent.cmd.Process.Kill() // Wine has no way to ask it
		<-w.agent.ended
		say("tandem.exe agent leave")
		errs = append(errs, w.run(ctx, "agent", "leave", "--data", w.machine.Path(w.data)))
		left, err := w.machine.Left(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left on the Windows machine: %v", left)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, w.machine.Close())...)
}
