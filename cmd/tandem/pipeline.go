package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (c *client) pipelines(ctx context.Context, name string) (*report.Pipelines, error) {
	var v report.Pipelines
	return &v, c.ask(ctx, http.MethodGet, kubeapi.PipelinesPath, url.Values{"name": {name}}, nil, &v)
}

func (c *client) commandAnswer(ctx context.Context, r kubeapi.CommandRequest) (kubeapi.CommandAnswer, error) {
	var v kubeapi.CommandAnswer
	err := c.ask(ctx, http.MethodPost, kubeapi.CommandsPath, nil, r, &v)
	return v, err
}

func (c *cli) pipelineCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pipeline [NAME]", Short: "stages, candidates, gates and what waits", Args: args(cobra.MaximumNArgs(1)),
		Example: `  tandem pipeline shop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer cl.Close()
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			v, err := cl.pipelines(cmd.Context(), name)
			if err != nil {
				return err
			}
			return c.print(v)
		},
	}
}

func (c *cli) promoteCommand() *cobra.Command {
	var why string
	r := kubeapi.CommandRequest{Verb: state.CmdPromote.String()}
	wait := false
	cmd := &cobra.Command{
		Use: "promote PIPELINE STAGE", Short: "move a stage's branch to the newest tested commit, once its gates pass", Args: args(cobra.ExactArgs(2)),
		Example: `  tandem promote shop prod --reason "release 1.5"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Object, r.Reason = stageRef(args), why
			return c.promote(cmd.Context(), r, args, wait)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.Now, "now", false, "at once, or not at all: exit 1 where a gate doesn't pass")
	f.BoolVar(&wait, "wait", false, "until it has gone, or can't go any more")
	f.BoolVar(&r.Override, "override", false, "though its tree failed before: recorded")
	f.StringVar(&r.Commit, "commit", "", "this tested `COMMIT` (40 digits) and not the newest")
	reason(cmd, &why)
	return cmd
}

func stageRef(args []string) state.Ref {
	return state.Ref{Kind: "Pipeline", Name: args[0] + "/" + args[1]}
}

func (c *cli) promote(ctx context.Context, r kubeapi.CommandRequest, args []string, wait bool) error {
	cl, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	answer, err := cl.commandAnswer(ctx, r)
	if err != nil {
		return err
	}
	if c.output == "json" || c.output == "yaml" {
		return c.encode(answer)
	}
	if wait {
		return c.waitPromotion(ctx, cl, args, answer.Promotion)
	}
	_, err = fmt.Fprintf(c.out, "queued as %s; goes by itself when all gates of %s pass (tandem pipeline %s)\n", answer.Promotion, args[1], args[0])
	return err
}

// waitPromotion looks until a promotion is no longer open, and says what became
// of it.
func (c *cli) waitPromotion(ctx context.Context, cl *client, args []string, id string) error {
	commit := ""
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := cl.pipelines(ctx, args[0])
		if err != nil {
			return err
		}
		open := false
		for _, p := range v.Pipelines {
			for _, s := range p.Stages {
				if i := slices.IndexFunc(s.Promotions, func(l report.PromotionLine) bool { return l.ID == id }); i >= 0 && s.Name == args[1] {
					open, commit = true, s.Promotions[i].Commit
				} else if s.Name == args[1] && !open {
					_, err = fmt.Fprintf(c.out, "%s ended: %s/%s is at %.7s (tandem history says how)\n", id, args[0], args[1], s.Commit)
					if err == nil && commit != "" && s.Commit != commit {
						return fmt.Errorf("%s: the branch is not at %.7s", id, commit)
					}
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (c *cli) rejectCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "reject PROMOTION", Short: "end a promotion that waits", Args: args(cobra.ExactArgs(1)),
		Example: `  tandem reject p-17 --reason "the smoke test failed"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.command(cmd.Context(), kubeapi.CommandRequest{Verb: state.CmdReject.String(), Hold: args[0], Reason: why}, "rejected "+args[0])
		},
	}
	reason(cmd, &why)
	return cmd
}

func (c *cli) rollbackCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "rollback PIPELINE STAGE", Short: "give a stage's branch the last good tree, as a commit", Args: args(cobra.ExactArgs(2)),
		Example: `  tandem rollback shop prod --reason "checkout answers 500"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.command(cmd.Context(), kubeapi.CommandRequest{Verb: state.CmdRollback.String(), Object: stageRef(args), Reason: why}, "rollback "+args[0]+"/"+args[1])
		},
	}
	reason(cmd, &why)
	return cmd
}

// suspendCommands stop and allow promotions to a pipeline or one of its stages.
func (c *cli) suspendCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, v := range []struct {
		verb  state.CommandVerb
		short string
		long  string
	}{
		{
			state.CmdSuspend, "stop changing an application, or a pipeline or one of its stages",
			"While an application is suspended, no commit of it is applied; what runs keeps running and is healed.\nWhile a pipeline or a stage is, nothing is promoted to it. Without --until it lasts until it is resumed.",
		},
		{state.CmdResume, "end a suspension", "What Git says (spec.suspend of an Application) is ended in Git."},
	} {
		var why, until string
		cmd := &cobra.Command{
			Use: v.verb.String() + " app/APPLICATION | PIPELINE [STAGE]", Short: v.short, Args: args(cobra.RangeArgs(1, 2)),
			Long:    v.long,
			Example: "  tandem " + v.verb.String() + ` app/shop-prod --reason "incident 12"` + "\n  tandem " + v.verb.String() + ` shop prod --reason "incident 12"`,
			RunE: func(cmd *cobra.Command, args []string) error {
				r := kubeapi.CommandRequest{Verb: v.verb.String(), Object: state.Ref{Kind: "Pipeline", Name: args[0]}, Reason: why}
				if app, ok := strings.CutPrefix(args[0], "app/"); ok {
					if len(args) > 1 {
						return usageError("%s app/%s: an application has no stages", v.verb, app)
					}
					r.Object = state.Ref{Kind: "Application", Name: app}
				}
				if len(args) == 2 {
					r.Object = stageRef(args)
				}
				if until != "" {
					t, err := time.Parse(time.RFC3339, until)
					if err != nil {
						return usageError("--until %s: want a time such as 2026-12-01T09:00:00Z", until)
					}
					r.Until = t
				}
				return c.command(cmd.Context(), r, v.verb.String()+" "+r.Object.Name)
			},
		}
		if v.verb == state.CmdSuspend {
			cmd.Flags().StringVar(&until, "until", "", "until this `TIME` (RFC 3339), and then by itself no longer")
		}
		reason(cmd, &why)
		out = append(out, cmd)
	}
	return out
}
