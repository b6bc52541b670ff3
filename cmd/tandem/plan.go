package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
)

func (c *cli) planCommand() *cobra.Command {
	var t tree
	cmd := &cobra.Command{
		Use: "plan [REPO|DIR]", Short: "what a commit would change", Args: args(cobra.MaximumNArgs(1)),
		Long:    "Plan renders a path here and compares it with what the controller (or --data, with the controller stopped) has applied.\nExit status: 0 no changes, 1 problems, 2 changes.",
		Example: "  tandem plan . --ref feature-x --app shop-prod",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			r, err := t.render(ctx, whereOf(args), c.quiet())
			if err != nil {
				return err
			}
			if len(r.result.Problems) > 0 {
				return c.problems(r.result.Problems)
			}
			request, err := report.NewPlanRequest(r.app.Name, r.label(), r.result.Manifest)
			if err != nil {
				return err
			}
			from, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			defer from.Close()
			var p report.Plan
			switch from := from.(type) {
			case *client:
				err = from.ask(ctx, http.MethodPost, kubeapi.PlanPath, nil, request, &p)
			case *stopped:
				p, err = report.NewPlan(from.state, request)
			}
			if err != nil {
				return err
			}
			if err := c.print(&p); err != nil {
				return err
			}
			if len(p.Changes) > 0 {
				return &codeError{code: exitChanges}
			}
			return nil
		},
	}
	t.flags(cmd)
	return cmd
}
