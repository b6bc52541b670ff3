package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tandem-gitops/tandem/cmd/tandem/progress"
	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// upFlags are the flags of up.
type upFlags struct {
	ref, path, simulate, listen, level string
	credentials                        string
	routing                            string // of controller alone
	images, mirrors                    []string
	once                               bool
}

func (c *cli) upCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use: "up [REPO|DIR]", Short: "everything on this machine, from a repository or a directory", Args: args(cobra.MaximumNArgs(1)),
		Long: `Run a controller, and this machine as a node where root and containerd allow, until
what runs matches what the repository or directory says, and keep it so.

Ctrl-C leaves the pods of this machine running; another up takes them over, and
tandem down removes them. Simulated pods end with the process.`,
		Example: `  tandem up examples/shop --simulate linux=2,windows=1
  tandem up https://git.example/shop.git --ref main --path deploy
  tandem up . --once`,
		RunE: func(cmd *cobra.Command, list []string) error {
			where := "."
			if len(list) == 1 {
				where = list[0]
			}
			return c.up(cmd.Context(), where, &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.ref, "ref", "", "`BRANCH` to follow; by default the repository's own")
	fl.StringVar(&f.path, "path", ".", "`PATH` of the root in the repository or directory")
	fl.StringVar(&f.simulate, "simulate", "", "simulated nodes, `OS=N,…`: linux=2,windows=1")
	fl.StringSliceVar(&f.images, "images", nil, "`DIR` of OCI layouts in which images are looked for first")
	mirrorFlag(cmd, &f.mirrors)
	credentialsFlag(cmd, &f.credentials)
	fl.BoolVar(&f.once, "once", false, "end when all has converged (exit 0) or can't (exit 1, with the reasons)")
	fl.StringVar(&f.listen, "listen", "", "`ADDRESS` of the API; by default "+serve.DefaultListen+", or any free port with --once")
	fl.StringVar(&f.level, "log-level", "error", "what is logged to standard error: debug, info, warn or error")
	return cmd
}

func (c *cli) up(ctx context.Context, where string, f *upFlags) error {
	o, err := c.upOptions(where, f)
	if err != nil {
		return err
	}
	s, err := serve.Open(ctx, o)
	if err != nil {
		return err
	}
	c.banner(s, &o, where)
	run, end := beside(ctx, s)
	outcome, shown := c.show(run, s, f.once)
	interrupted := ctx.Err() != nil
	err = end()
	farewell(c.errs, s, &o)
	err = errors.Join(err, s.Close())
	switch {
	case err != nil:
		return err
	case shown != nil && !errors.Is(shown, context.Canceled):
		return shown
	case !f.once || s.TakenDown():
		return nil
	case outcome.Converged:
		return nil
	}
	if interrupted {
		_, _ = fmt.Fprintln(c.errs, "stopped before it converged")
	}
	for _, line := range outcome.Reasons {
		_, _ = fmt.Fprintln(c.errs, line)
	}
	return failed()
}

// beside runs a server beside its caller: run ends when the server does, and end
// stops the server and says how it ended. It is to be called once.
func beside(ctx context.Context, s *serve.Server) (run context.Context, end func() error) {
	run, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() {
		served <- s.Run(run)
		stop()
	}()
	return run, func() error {
		stop()
		return <-served
	}
}

// show tells what happens until the run ends.
func (c *cli) show(ctx context.Context, s *serve.Server, once bool) (progress.Outcome, error) {
	var from state.Seq
	s.Controller.View(func(st *state.State) { from = st.Seq + 1 })
	o := progress.Options{Out: c.out, From: from, Looked: s.Looked}
	if file, ok := c.out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		o.Terminal = true
		o.Width = func() int {
			if w, _, err := term.GetSize(int(file.Fd())); err == nil {
				return w
			}
			return 80
		}
	}
	watch := progress.New(s.Controller, o)
	if once {
		return watch.Until(ctx)
	}
	return progress.Outcome{}, watch.Show(ctx)
}

// upOptions says what the flags mean on this machine.
func (c *cli) upOptions(where string, f *upFlags) (serve.Options, error) {
	o := serve.Options{
		Data: c.data, Where: where, Ref: f.ref, Path: f.path, Images: f.images, Listen: f.listen, Version: version, Renders: renderProgram(),
	}
	var err error
	if o.Mirrors, err = parseMirrors(f.mirrors); err != nil {
		return o, err
	}
	if o.Credentials, err = credentials(f.credentials); err != nil {
		return o, err
	}
	if o.Simulate, err = parseSimulate(f.simulate); err != nil {
		return o, err
	}
	if o.Logger, err = c.logger(f.level); err != nil {
		return o, err
	}
	if o.Data == "" {
		if o.Data, err = defaultData(where); err != nil {
			return o, err
		}
	}
	if o.Listen == "" && f.once {
		o.Listen = "127.0.0.1:0"
	}
	if o.Simulate[state.OS(runtime.GOOS)] == 0 {
		ok, why := serve.Usable()
		switch {
		case ok:
			o.Node = serve.NodeName()
			if o.Fencer, o.Keeper, err = nodePrograms(); err != nil {
				return o, err
			}
		case len(o.Simulate) == 0:
			return o, fmt.Errorf("this machine can't be a node, and no node is simulated:\n  %s\nor simulate nodes: --simulate linux=2,windows=1", strings.Join(why, "\n  "))
		default:
			_, _ = fmt.Fprintf(c.errs, "note   this machine is no node: %s\n", strings.Join(why, "; "))
		}
	}
	return o, nil
}

func (c *cli) logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usageError("--log-level %s: want debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(c.errs, &slog.HandlerOptions{Level: l})), nil
}

// parseSimulate reads "linux=2,windows=1".
func parseSimulate(text string) (map[state.OS]int, error) {
	out := map[state.OS]int{}
	if text == "" {
		return out, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, count, ok := strings.Cut(strings.TrimSpace(part), "=")
		n, err := strconv.Atoi(count)
		os := state.OS(name)
		if !ok || err != nil || n < 1 || n > 10_000 || os != state.Linux && os != state.Windows {
			return nil, usageError("--simulate %s: want linux=N,windows=N", text)
		}
		out[os] += n
	}
	return out, nil
}

// defaultData is the data directory of what is followed: /var/lib/tandem as
// root, else below XDG_DATA_HOME, by name.
func defaultData(where string) (string, error) {
	name := strings.TrimSuffix(filepath.Base(filepath.ToSlash(where)), ".git")
	if abs, err := filepath.Abs(where); err == nil && !strings.Contains(where, "://") {
		name = strings.TrimSuffix(filepath.Base(abs), ".git")
	}
	if os.Geteuid() == 0 {
		return "/var/lib/tandem/" + name, nil
	}
	home := os.Getenv("XDG_DATA_HOME")
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", usageError("no data directory: give --data DIR (%w)", err)
		}
		home = filepath.Join(user, ".local", "share")
	}
	return filepath.Join(home, "tandem", name), nil
}

// banner says what runs here before it begins.
func (c *cli) banner(s *serve.Server, o *serve.Options, where string) {
	_, _ = fmt.Fprintf(c.errs, "tandem %s  %s, %s  data %s\n", o.Version, where, s.Kind, o.Data)
	_, _ = fmt.Fprintf(c.errs, "api    https://%s  kubectl --kubeconfig %s\n", s.Address(), s.Kubeconfig())
}

// farewell says what stays when the process ends.
func farewell(w io.Writer, s *serve.Server, o *serve.Options) {
	real, simulated := 0, 0
	s.Controller.View(func(st *state.State) {
		for _, p := range st.Pods {
			if n := st.Nodes[p.Node]; n != nil && n.Facts.Simulated {
				simulated++
			} else {
				real++
			}
		}
	})
	switch {
	case s.TakenDown():
		_, _ = fmt.Fprintln(w, "taken down: no pod is left.")
	case real > 0:
		_, _ = fmt.Fprintf(w, "stopped. %d pods keep running: `tandem up` takes them over again, `tandem down --data %s` removes them.\n", real, o.Data)
	default:
		_, _ = fmt.Fprintf(w, "stopped. %d simulated pods ended with it.\n", simulated)
	}
}
