package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// downPatience is how long pods may take to end: the longest grace period that
// is usual, and some more.
const downPatience = 2 * time.Minute

func (c *cli) downCommand() *cobra.Command {
	why := "tandem down"
	cmd := &cobra.Command{
		Use: "down", Short: "stop what `up` runs and remove its pods", Args: args(cobra.NoArgs),
		Long: `End every application of a data directory and remove its pods, in order. A running
up ends with them; where none runs, down itself takes the pods of this machine over
and removes them. The data directory, and with it the history, stays.`,
		Example: `  tandem down --data /var/lib/tandem/shop
  tandem down --reason "moving to another machine"`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.down(cmd.Context(), why) },
	}
	cmd.Flags().StringVar(&why, "reason", why, "why, in `WORDS`: kept with the record")
	return cmd
}

func (c *cli) down(ctx context.Context, why string) error {
	ctx, cancel := context.WithTimeout(ctx, downPatience)
	defer cancel()
	cl, err := c.connect(ctx)
	if errors.Is(err, errNoServer) && c.data != "" && c.server == "" {
		return c.downStopped(ctx, why)
	}
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, err := cl.command(ctx, kubeapi.CommandRequest{Verb: state.CmdDown.String(), Reason: why}); err != nil {
		return err
	}
	// The controller ends when the last pod has: then nobody listens. Another error
	// says nothing of pods.
	for {
		_, err := cl.status(ctx, false)
		if isRefused(err) {
			_, _ = fmt.Fprintln(c.out, "down: no pod is left")
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("whether pods are left isn't known after %s: %w; see `tandem status`", downPatience, err)
			}
			return fmt.Errorf("pods were still ending after %s; see `tandem status`", downPatience)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// isRefused says whether nobody listens where a controller was asked: the machine
// itself says so, or the socket is gone. That no way leads there says nothing.
func isRefused(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "dial" {
		return false
	}
	const onWindows = syscall.Errno(10061) // WSAECONNREFUSED
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, onWindows) || op.Net == "unix" && errors.Is(err, fs.ErrNotExist)
}

// downStopped takes the pods of this machine over and removes them.
func (c *cli) downStopped(ctx context.Context, why string) error {
	logger, err := c.logger("error")
	if err != nil {
		return err
	}
	o := serve.Options{Data: c.data, Listen: "127.0.0.1:0", Version: version, Logger: logger}
	if _, err := os.Stat(filepath.Join(c.data, "node")); err == nil {
		if ok, problems := serve.Usable(); !ok {
			return fmt.Errorf("pods of this machine can't be removed: %v", problems)
		}
		o.Node = serve.NodeName()
		if o.Fencer, o.Keeper, err = nodePrograms(); err != nil {
			return err
		}
	}
	s, err := serve.Open(ctx, o)
	if err != nil {
		return err
	}
	run, end := beside(ctx, s)
	_, err = s.Controller.Do(run, &state.Command{Verb: state.CmdDown, Reason: s.Controller.Text(why)})
	if err == nil {
		<-run.Done()
	}
	err = errors.Join(err, end())
	if ctx.Err() != nil {
		err = errors.Join(err, fmt.Errorf("pods were still there after %s: those of other nodes end when these are back", downPatience))
	}
	if err = errors.Join(err, s.Close()); err == nil {
		_, _ = fmt.Fprintln(c.out, "down: no pod is left")
	}
	return err
}
