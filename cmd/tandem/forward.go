package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/portforward"
)

func (c *cli) portForwardCommand() *cobra.Command {
	var address []string
	cmd := &cobra.Command{
		Use: "port-forward OBJECT [LOCAL:]PORT...", Short: "reach ports of a pod from this machine", Args: args(cobra.MinimumNArgs(2)),
		Long: `Listen on ports of this machine and pass each connection on to a port of a pod,
through the controller and the stream that the pod's agent keeps open: no port of a
node need be reachable. Of a workload the first pod that is ready is taken. It ends
with Ctrl-C, or when the pod does.`,
		Example: "  tandem port-forward db-0 5432\n  tandem port-forward deploy/web 8080:80",
		RunE: func(cmd *cobra.Command, list []string) error {
			return c.portForward(cmd.Context(), list[0], list[1:], address)
		},
	}
	cmd.Flags().StringSliceVar(&address, "address", []string{"localhost"}, "`ADDRESS` of this machine to listen on")
	return cmd
}

func (c *cli) portForward(ctx context.Context, object string, ports, address []string) error {
	for _, p := range ports {
		if err := checkForward(p); err != nil {
			return err
		}
	}
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	pods, err := podsOf(ctx, cl, object, c.namespace)
	if err != nil {
		return err
	}
	pod := &pods[0]
	for i := range pods {
		if pods[i].Ready {
			pod = &pods[i]
			break
		}
	}
	target, err := url.Parse(cl.config.Host + podPath(pod) + "/portforward")
	if err != nil {
		return err
	}
	dialer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, cl.config)
	if err != nil {
		return fmt.Errorf("port-forward: %w", err)
	}
	// What is passed on is told line by line; a stop is no failure.
	forwarder, err := portforward.NewOnAddressesForStreamingWithContext(ctx, dialer, address, ports, make(chan struct{}), c.out, c.errs)
	if err != nil {
		return usageError("port-forward: %w", err)
	}
	err = forwarder.ForwardPorts()
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, portforward.ErrLostConnectionToPod), errors.Is(err, io.EOF):
		return fmt.Errorf("lost the connection to %s: it ended, or its node's agent did; `tandem status` says which", pod.Ref.Name)
	case err != nil:
		return fmt.Errorf("port-forward to %s: %w", pod.Ref.Name, err)
	}
	return nil
}

// checkForward wants "PORT", "LOCAL:PORT" or ":PORT".
func checkForward(text string) error {
	local, remote, two := strings.Cut(text, ":")
	if !two {
		remote = local
	}
	for _, p := range []string{local, remote} {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil && p != "" || err == nil && n == 0 && p == remote {
			return usageError("port-forward: %q: want PORT or LOCAL:PORT, numbers from 1 to 65535", text)
		}
	}
	if remote == "" {
		return usageError("port-forward: %q names no port of the pod: want PORT or LOCAL:PORT", text)
	}
	return nil
}
