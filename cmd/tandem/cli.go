package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The exit codes.
const (
	exitDone    = 0
	exitFailed  = 1 // failed, not converged, or problems
	exitChanges = 2 // plan: there are changes
	exitUsage   = 64
)

// A codeError ends the program with a code of its own. A nil error was told
// already, or is none.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// usageError is a mistake in how a command is called.
func usageError(format string, args ...any) error {
	return &codeError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// failed ends with 1 after everything was told.
func failed() error { return &codeError{code: exitFailed} }

// A cli is one call of the program: its streams and the flags of all commands.
type cli struct {
	in        io.Reader
	out, errs io.Writer

	server    string
	data      string
	namespace string
	output    string
}

// run is the whole program but for the process: it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	c := &cli{in: in, out: out, errs: errs}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitFailed
	if coded, ok := errors.AsType[*codeError](err); ok {
		code = coded.code
		if coded.err == nil {
			return code
		}
	}
	_, _ = fmt.Fprintf(errs, "error: %v\n", err)
	if code == exitUsage {
		_, _ = fmt.Fprintln(errs, "run `tandem --help`, or a command with --help")
	}
	return code
}

// root puts all commands together.
func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use: "tandem COMMAND [flags]", Short: "Tandem makes what runs on Linux and Windows machines match what Git says.",
		Long: `Tandem makes what runs on Linux and Windows machines match what Git says.

Objects are named as with kubectl: deploy/web, db-2, node/win-1, app/shop-prod.
-o json|yaml|wide where there is data; --server or TANDEM_SERVER; --data DIR reads a stopped controller.
Exit status: 0 done; 1 failed, not converged or problems; 2 plan: there are changes; 64 wrong usage.`,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.ArbitraryArgs,
	}
	root.RunE = group
	// What outlives this process must be found from any working directory.
	root.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		if c.data != "" {
			c.data, err = filepath.Abs(c.data)
		}
		return err
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError("%w", err) })
	p := root.PersistentFlags()
	p.StringVar(&c.server, "server", "", "address of the controller, `URL` (TANDEM_SERVER); by default what the data directory's kubeconfig says")
	p.StringVar(&c.data, "data", "", "data `DIR`ectory; without a running controller it is read as it was left")
	p.StringVarP(&c.namespace, "namespace", "n", "", "`NAMESPACE` of an object whose name is in several")
	p.StringVarP(&c.output, "output", "o", "", "`FORMAT`: json, yaml or wide instead of text")
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run it"}, &cobra.Group{ID: "before", Title: "Before a commit"}, &cobra.Group{ID: "what", Title: "What runs"},
		&cobra.Group{ID: "act", Title: "Act (each asks for --reason and leaves a record)"}, &cobra.Group{ID: "back", Title: "Look back"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("run", c.runners()...)
	add("before", c.renderCommand(), c.validateCommand(), c.planCommand())
	add("what", c.statusCommand(), c.whyCommand(), c.logsCommand(), c.execCommand(), c.portForwardCommand())
	add("act", c.approveCommand(), c.syncCommand(), c.restartCommand(), c.nodeCommand(),
		c.promoteCommand(), c.rejectCommand(), c.rollbackCommand())
	add("act", c.suspendCommands()...)
	add("what", c.pipelineCommand())
	add("run", c.userCommand(), c.loginCommand(), c.logoutCommand(), c.whoamiCommand())
	add("back", c.historyCommand(), c.verifyCommand())
	root.AddCommand(c.versionCommand(), c.renderWorker())
	return root
}

// group is the command that only has others below it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 2
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError("there is no command %q%s", args[0], hint)
}

// args makes a wrong number of arguments a mistake in usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError("%s: %w", cmd.CommandPath(), err)
		}
		return nil
	}
}

// A value is data that a command prints: as text for people, or its JSON.
type value interface{ Text(w io.Writer) }

// print writes a value in the format that was asked for.
func (c *cli) print(v value) error {
	switch c.output {
	case "", "wide":
		v.Text(c.out)
		return nil
	default:
		return c.encode(v)
	}
}

// encode writes data as JSON or YAML.
func (c *cli) encode(v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal the answer: %w", err)
	}
	switch c.output {
	case "json":
		_, err = fmt.Fprintf(c.out, "%s\n", raw)
		return err
	case "yaml":
		if raw, err = yaml.JSONToYAML(raw); err != nil {
			return fmt.Errorf("marshal the answer: %w", err)
		}
		_, err = c.out.Write(raw)
		return err
	default:
		return usageError("-o %s: want json, yaml or wide", c.output)
	}
}

// problems tells every mistake of a text and ends with 1.
func (c *cli) problems(ps []state.Problem) error {
	for _, p := range ps {
		_, _ = fmt.Fprintf(c.errs, "error: %v\n", p)
	}
	return failed()
}
