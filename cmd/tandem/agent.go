package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-gitops/tandem/cmd/tandem/metrics"
	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/agent/join"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
	"github.com/tandem-gitops/tandem/runtimes/containerd"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// defaultAgentData is where an agent keeps what it needs to go on.
func defaultAgentData() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(cmp.Or(os.Getenv("ProgramData"), `C:\ProgramData`), "tandem-agent")
	}
	return "/var/lib/tandem-agent"
}

// joined is what an agent remembers of its controller.
type joined struct {
	Server string         `json:"server"` // host:port
	Node   state.NodeName `json:"node"`
}

func (c *cli) agentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "agent COMMAND", Short: "this machine as a node: doctor, join, run, install, leave; token create, list, revoke", Args: cobra.ArbitraryArgs, RunE: group,
		Example: "  tandem agent join --server controller.example:7443 --token tandem.…",
	}
	cmd.AddCommand(c.agentJoin(), c.agentRun(), c.agentLeave(), c.agentFence(), c.agentKeep(), c.agentDoctor(), c.agentInstall(), c.agentUninstall(), c.tokenCommand())
	return cmd
}

func (c *cli) agentData() string {
	if c.data != "" {
		return c.data
	}
	return defaultAgentData()
}

func (c *cli) agentJoin() *cobra.Command {
	var token, name string
	cmd := &cobra.Command{
		Use: "join", Short: "make this machine a node of a controller", Args: args(cobra.NoArgs),
		Long: `Buy this machine a certificate with a join token, and remember the controller. The
token names the controller's certificate authority, so nothing is trusted on first use.`,
		Example: `  tandem agent join --server controller.example:7443 --token tandem.…
  tandem agent run`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if token == "" || c.server == "" {
				return usageError("agent join: give --server HOST:PORT and --token TOKEN (`tandem agent token create` on the controller prints one)")
			}
			address, err := hostPort(c.server)
			if err != nil {
				return err
			}
			j := joined{Server: address, Node: state.NodeName(name)}
			if j.Node == "" {
				j.Node = serve.NodeName()
			}
			dir := c.agentData()
			if err := join.Join(cmd.Context(), j.Server, token, j.Node, filepath.Join(dir, "join")); err != nil {
				return fmt.Errorf("join %s: %w", j.Server, err)
			}
			raw, err := json.MarshalIndent(j, "", "  ")
			if err != nil {
				return err
			}
			// The token is spent: a machine that loses its power now is to know what for.
			if err := atomicfile.WriteDurable(filepath.Join(dir, "agent.json"), append(raw, '\n'), 0o600); err != nil {
				return fmt.Errorf("remember the controller: %w", err)
			}
			_, err = fmt.Fprintf(c.out, "node %s joined %s; run it: tandem agent run --data %s\n", j.Node, j.Server, dir)
			return err
		},
	}
	cmd.Flags().StringVar(&token, "token", "", "join `TOKEN`, from `tandem agent token create` on the controller")
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the node; by default the host's")
	return cmd
}

// hostPort reads "host:port" or "https://host:port".
func hostPort(server string) (string, error) {
	if strings.Contains(server, "://") {
		u, err := url.Parse(server)
		if err != nil {
			return "", usageError("--server %s: %w", server, err)
		}
		server = u.Host
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		return "", usageError("--server %s: want HOST:PORT", server)
	}
	return server, nil
}

// joined is what a former join left.
func (c *cli) joined() (j joined, err error) {
	path := filepath.Join(c.agentData(), "agent.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return j, fmt.Errorf("this machine has joined no controller (%w); join one: tandem agent join --server HOST:PORT --token TOKEN", err)
	}
	if err := json.Unmarshal(raw, &j); err != nil {
		return j, fmt.Errorf("%s: %w", path, err)
	}
	return j, nil
}

// agentFlags are the flags of agent run.
type agentFlags struct {
	images, mirrors        []string
	socket                 string
	address, resolv, level string
	bootID                 string
	metrics                string
	labels                 map[string]string
	limits                 containerd.ImageLimits
}

func (c *cli) agentRun() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use: "run", Short: "run what the controller assigns to this machine", Args: args(cobra.NoArgs),
		Long: `Run pods on this machine: through containerd on Linux, through the Host Compute Service
(HCS) on Windows. When the agent stops, pods run on; the next agent takes them over.`,
		Example: `  tandem agent run --data /var/lib/tandem-agent
  tandem agent run --metrics 127.0.0.1:7444`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runAgent(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.images, "images", nil, "`DIR` of OCI layouts in which images are looked for first")
	mirrorFlag(cmd, &f.mirrors)
	fl.StringVar(&f.socket, "containerd", "", "Linux: `SOCKET` of a containerd that runs already; by default a private one is started")
	fl.StringVar(&f.address, "address", "", "`IP` that this machine is reached at")
	fl.StringVar(&f.resolv, "resolv-conf", "", "Linux: `FILE` that names the servers for names of the world outside; by default /etc/resolv.conf")
	fl.StringToStringVar(&f.labels, "label", nil, "`KEY=VALUE` added to the node's labels")
	fl.StringVar(&f.metrics, "metrics", "", "`ADDRESS` at which whoever reaches it may read the agent's metrics, such as 127.0.0.1:7444; by default none")
	usual := containerd.DefaultImageLimits()
	fl.IntVar(&f.limits.High, "image-gc-high-threshold", usual.High, "`PERCENT` of the disk above which images that no pod needs are removed, the least recently used first; 100: never")
	fl.IntVar(&f.limits.Low, "image-gc-low-threshold", usual.Low, "`PERCENT` of the disk down to which they are")
	fl.DurationVar(&f.limits.MinAge, "minimum-image-ttl-duration", usual.MinAge, "how long an image stays that was needed, `DURATION`")
	fl.StringVar(&f.level, "log-level", "info", "what is logged to standard error: debug, info, warn or error")
	// For tests that have a machine boot without its booting.
	fl.StringVar(&f.bootID, "boot-id", "", "`ID` of the machine's start; by default what the operating system says")
	if err := fl.MarkHidden("boot-id"); err != nil {
		panic(err) // it is defined one line above
	}
	return cmd
}

// fits refuses what this operating system can't honour.
func (f *agentFlags) fits() error {
	if err := f.limits.Check(); err != nil {
		return usageError("--image-gc-high-threshold, --image-gc-low-threshold, --minimum-image-ttl-duration: %w", err)
	}
	if runtime.GOOS != "windows" {
		return nil
	}
	if f.limits != containerd.DefaultImageLimits() {
		return usageError("--image-gc-high-threshold, --image-gc-low-threshold and --minimum-image-ttl-duration: Windows nodes don't remove images by themselves yet; leave them out")
	}
	for name, value := range map[string]string{"containerd": f.socket, "resolv-conf": f.resolv} {
		if value != "" {
			return usageError("--%s: Windows nodes run pods through the Host Compute Service and have no such thing; leave it out", name)
		}
	}
	return nil
}

func (c *cli) runAgent(ctx context.Context, f *agentFlags) (err error) {
	dir := c.agentData()
	j, err := c.joined()
	if err != nil {
		return err
	}
	logger, err := c.logger(f.level)
	if err != nil {
		return err
	}
	if ok, why := serve.Usable(); !ok {
		return fmt.Errorf("this machine can't be a node:\n  %s", strings.Join(why, "\n  "))
	}
	mirrors, err := parseMirrors(f.mirrors)
	if err != nil {
		return err
	}
	if err := f.fits(); err != nil {
		return err
	}
	config, err := join.TLS(filepath.Join(dir, "join"))
	if err != nil {
		return err
	}
	conn, err := agent.Dial(j.Server, config)
	if err != nil {
		return fmt.Errorf("dial %s: %w", j.Server, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	fence, keep, err := nodePrograms()
	if err != nil {
		return err
	}
	m, err := serve.OpenMachine(ctx, serve.MachineOptions{
		Node: j.Node, Dir: dir, Socket: f.socket, Resolv: f.resolv, Address: f.address, Fencer: serve.Fencer{Program: fence, Version: version}, Keeper: keep, Limits: f.limits,
		Images: images.New(images.Options{Dirs: f.images, Mirrors: mirrors, Logger: logger}), Logger: logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	meter := metrics.NewAgent(version)
	a, err := agent.New(ctx, agent.Config{
		Node: j.Node, Dir: filepath.Join(dir, "agent"), Volatile: m.Volatile, Runtime: m.Runtime, Network: m.Network, Link: agent.Remote(conn),
		Version: version, Address: m.Address, Labels: f.labels, Resolv: f.resolv, Fencer: m.Fencer, Meter: meter, Logger: logger,
		BootID: f.bootID,
	})
	if err != nil {
		return err
	}
	var renewal sync.WaitGroup
	defer renewal.Wait()
	fresh, stop := context.WithCancel(ctx)
	defer stop()
	renewal.Go(func() { join.KeepFresh(fresh, conn, j.Server, filepath.Join(dir, "join"), logger) })
	meter.Of(a, m.Sizer, func() (time.Time, error) { return join.GoodUntil(filepath.Join(dir, "join")) })
	all, fresh := errgroup.WithContext(fresh)
	all.Go(func() error { return m.Run(fresh, a) })
	if f.metrics != "" {
		all.Go(func() error {
			return metrics.Listen(fresh, f.metrics, meter.Handler(logger), func(at net.Addr) {
				logger.LogAttrs(fresh, slog.LevelInfo, "answers for metrics", slog.String("address", at.String()))
			})
		})
	}
	if err := all.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	_, _ = fmt.Fprintln(c.errs, "stopped. Pods of this machine run on.")
	return nil
}

func (c *cli) agentLeave() *cobra.Command {
	var level string
	cmd := &cobra.Command{
		Use: "leave", Short: "remove every pod of this machine, and what runs them", Args: args(cobra.NoArgs),
		Long: `Remove what an agent that no longer runs left on this machine: pods, namespaces,
addresses and the private containerd. The controller takes the node for lost; remove it
there: tandem node remove NODE.`,
		Example: "  tandem agent leave --data /var/lib/tandem-agent",
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := c.logger(level)
			if err != nil {
				return err
			}
			j, err := c.joined()
			if err != nil {
				return err
			}
			_, keep, err := nodePrograms()
			if err != nil {
				return err
			}
			m, err := serve.OpenMachine(cmd.Context(), serve.MachineOptions{
				Node: j.Node, Dir: c.agentData(), Images: images.New(images.Options{Logger: logger}), Logger: logger, Keeper: keep,
			})
			if err != nil {
				return err
			}
			if err := m.Shutdown(cmd.Context()); err != nil {
				return err
			}
			if err := agent.RemovePods(filepath.Join(c.agentData(), "agent")); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "node %s runs nothing any more\n", j.Node)
			return err
		},
	}
	cmd.Flags().StringVar(&level, "log-level", "warn", "what is logged to standard error: debug, info, warn or error")
	return cmd
}
