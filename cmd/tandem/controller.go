package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (c *cli) controllerCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use: "controller REPO|DIR", Short: "the control plane", Args: args(cobra.ExactArgs(1)),
		Long: `Run the control plane alone: it follows a repository or directory, keeps the log, and
serves the API, the agents of other machines and Prometheus's /metrics (with the token of
a viewer) on one TLS address. Machines join with ` + "`tandem agent join`" + `. A stop parks every node: pods run on, and nothing is moved.`,
		Example: `  tandem controller https://git.example/shop.git --ref main --listen :7443 --data /var/lib/tandem/shop
  tandem agent token create --data /var/lib/tandem/shop`,
		RunE: func(cmd *cobra.Command, list []string) error { return c.controller(cmd.Context(), list[0], &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.ref, "ref", "", "`BRANCH` to follow; by default the repository's own")
	fl.StringVar(&f.path, "path", ".", "`PATH` of the root in the repository or directory")
	fl.StringVar(&f.simulate, "simulate", "", "simulated nodes, `OS=N,…`: linux=2,windows=1")
	fl.StringSliceVar(&f.images, "images", nil, "`DIR` of OCI layouts in which images are looked for first")
	mirrorFlag(cmd, &f.mirrors)
	credentialsFlag(cmd, &f.credentials)
	fl.StringVar(&f.listen, "listen", ":7443", "`ADDRESS` of the API and of the agents' streams")
	fl.StringVar(&f.routing, "routing", "", "how nodes reach each other's pods: auto (routes on one segment, VXLAN between segments), routes or vxlan; recorded, and kept until another is given")
	fl.StringVar(&f.level, "log-level", "info", "what is logged to standard error: debug, info, warn or error")
	return cmd
}

func (c *cli) controller(ctx context.Context, where string, f *upFlags) error {
	o := serve.Options{Data: c.data, Where: where, Ref: f.ref, Path: f.path, Images: f.images, Listen: f.listen, Version: version, Renders: renderProgram()}
	var err error
	if o.Mirrors, err = parseMirrors(f.mirrors); err != nil {
		return err
	}
	if o.Credentials, err = credentials(f.credentials); err != nil {
		return err
	}
	if f.routing != "" {
		var ok bool
		if o.Routing, ok = state.ParseRouting(f.routing); !ok {
			return usageError("--routing %s: want auto, routes or vxlan", f.routing)
		}
	}
	if o.Simulate, err = parseSimulate(f.simulate); err != nil {
		return err
	}
	if o.Logger, err = c.logger(f.level); err != nil {
		return err
	}
	if o.Data == "" {
		if o.Data, err = defaultData(where); err != nil {
			return err
		}
	}
	s, err := serve.Open(ctx, o)
	if err != nil {
		return err
	}
	c.banner(s, &o, where)
	run, end := beside(ctx, s)
	_, shown := c.show(run, s, false)
	err = errors.Join(end(), s.Close())
	if err == nil && shown != nil && !errors.Is(shown, context.Canceled) {
		err = shown
	}
	if err == nil {
		_, _ = fmt.Fprintln(c.errs, "stopped. Nodes are parked: pods run on, nothing is moved.")
	}
	return err
}
