package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
)

func (c *cli) logsCommand() *cobra.Command {
	var container string
	var follow, previous, timestamps bool
	var tail int64
	var since time.Duration
	cmd := &cobra.Command{
		Use: "logs OBJECT", Short: "what a pod, or every pod of a workload, has said", Args: args(cobra.ExactArgs(1)),
		Example: "  tandem logs db-1 --previous\n  tandem logs deploy/web --tail 20",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			pods, err := podsOf(cmd.Context(), cl, args[0], c.namespace)
			if err != nil {
				return err
			}
			if follow && len(pods) > 1 {
				return usageError("--follow wants one pod; %s has %d", args[0], len(pods))
			}
			q := url.Values{
				"container": {container}, "follow": {strconv.FormatBool(follow)}, "previous": {strconv.FormatBool(previous)}, "timestamps": {strconv.FormatBool(timestamps)},
			}
			if tail >= 0 {
				q.Set("tailLines", strconv.FormatInt(tail, 10))
			}
			if since > 0 {
				q.Set("sinceSeconds", strconv.FormatInt(int64(since/time.Second), 10))
			}
			return c.copyLogs(cmd.Context(), cl, pods, q)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&container, "container", "c", "", "`NAME` of the container, where the pod has several")
	f.BoolVarP(&follow, "follow", "f", false, "go on as it is written")
	f.BoolVarP(&previous, "previous", "p", false, "of the container's life before this one")
	f.BoolVar(&timestamps, "timestamps", false, "each line begins with its time")
	f.Int64Var(&tail, "tail", -1, "the last `N` lines")
	f.DurationVar(&since, "since", 0, "not older than `DURATION`")
	return cmd
}

// podsOf are the pods that an object stands for.
func podsOf(ctx context.Context, cl *client, object, namespace string) ([]report.Pod, error) {
	d, err := cl.detail(ctx, object, namespace)
	if err != nil {
		return nil, err
	}
	if d.Ref.Kind == "Node" || len(d.Pods) == 0 {
		return nil, fmt.Errorf("%s has no pods to read", d.Ref)
	}
	return d.Pods, nil
}

func (c *cli) copyLogs(ctx context.Context, cl *client, pods []report.Pod, q url.Values) error {
	var failures error
	for i := range pods {
		p := &pods[i]
		if len(pods) > 1 {
			_, _ = fmt.Fprintf(c.out, "==> %s on %s (%s) <==\n", p.Ref.Name, p.Node, p.OS)
		}
		resp, err := cl.do(ctx, http.MethodGet, podPath(p)+"/log", q, nil)
		if err == nil {
			_, err = io.Copy(c.out, resp.Body)
			err = errors.Join(err, resp.Body.Close())
		}
		if err != nil && ctx.Err() == nil {
			failures = errors.Join(failures, fmt.Errorf("log of %s: %w", p.Ref.Name, err))
		}
	}
	return failures
}

func podPath(p *report.Pod) string {
	return "/api/v1/namespaces/" + url.PathEscape(p.Ref.Namespace) + "/pods/" + url.PathEscape(p.Ref.Name)
}

func (c *cli) execCommand() *cobra.Command {
	var container string
	var stdin, tty bool
	cmd := &cobra.Command{
		Use: "exec POD -- COMMAND [ARGUMENT]...", Short: "run a command in a container; it is recorded", Args: args(cobra.MinimumNArgs(2)),
		Long: `Run a command in a container; it is recorded. The exit code is the command's.
Codes of Windows have 32 bits: one that is not from 0 to 255 is told on stderr, and
the exit code is 255.`,
		Example: "  tandem exec -it db-0 -- sh",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			pods, err := podsOf(cmd.Context(), cl, args[0], c.namespace)
			if err != nil {
				return err
			}
			q := url.Values{
				"container": {container}, "command": args[1:], "stdin": {strconv.FormatBool(stdin)}, "stdout": {"true"},
				"stderr": {strconv.FormatBool(!tty)}, "tty": {strconv.FormatBool(tty)},
			}
			return c.exec(cmd.Context(), cl, cl.config.Host+podPath(&pods[0])+"/exec?"+q.Encode(), stdin, tty)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(true)
	f.StringVarP(&container, "container", "c", "", "`NAME` of the container, where the pod has several")
	f.BoolVarP(&stdin, "stdin", "i", false, "hand this program's input on")
	f.BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	return cmd
}

func (c *cli) exec(ctx context.Context, cl *client, target string, stdin, tty bool) error {
	executor, err := remotecommand.NewWebSocketExecutor(cl.config, http.MethodGet, target)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	o := remotecommand.StreamOptions{Stdout: c.out, Tty: tty}
	if !tty {
		o.Stderr = c.errs
	}
	if stdin {
		o.Stdin = c.in
	}
	if f, ok := c.in.(*os.File); ok && tty && stdin && term.IsTerminal(int(f.Fd())) {
		old, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return fmt.Errorf("exec: make the terminal raw: %w", err)
		}
		defer func() { _ = term.Restore(int(f.Fd()), old) }()
		sizes, stop := terminalSizes(int(f.Fd()))
		defer stop()
		o.TerminalSizeQueue = sizes
	}
	err = executor.StreamWithContext(ctx, o)
	if exit, ok := errors.AsType[utilexec.CodeExitError](err); ok {
		return &codeError{code: exit.Code}
	}
	return err
}
