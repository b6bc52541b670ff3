package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
)

// A process is `tandem up` in the background, its lines before the viewer.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // set before ended is closed
}

func launch(name string, args ...string) (*process, error) {
	return launchCommand(exec.Command(name, args...)) //nolint:noctx // it is ended by `tandem down`, also after ctx
}

func launchCommand(cmd *exec.Cmd) (*process, error) {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// end waits for the process, and kills it when ctx ends first.
func (p *process) end(ctx context.Context) error {
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		err := p.cmd.Process.Kill()
		<-p.ended
		return errors.Join(errors.New("tandem up did not end after tandem down, and was killed"), err)
	}
}
