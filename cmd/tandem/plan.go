package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// planLong is what `tandem plan --help` explains.
const planLong = `Plan renders a path here and says what would come of it: which objects change
for which OS, where each pod would go, in which order, what would be held and
why, and what would make it fit. It asks the running controller, or reads --data
of a stopped one, or a file that "tandem status -o json" wrote (--inventory), and
changes nothing: the control plane's own code is run on a copy of its state, in a
world where every pod that starts becomes ready.

Text says how many pods go where; -o wide names each; -o markdown is for a
comment on a pull request. No form holds a value of a Secret.
Exit status: 0 no changes, 1 problems, 2 changes.`

func (c *cli) planCommand() *cobra.Command {
	var t tree
	var inventory string
	var look bool
	cmd := &cobra.Command{
		Use: "plan [REPO|DIR]", Short: "what a commit would change, where each pod would go, what would not fit", Args: args(cobra.MaximumNArgs(1)),
		Long: planLong,
		Example: `  tandem plan . --ref feature-x --app shop-prod
  tandem plan https://git.example/shop.git --ref pull/12/head -o markdown
  tandem status -o json > inventory.json; tandem plan . --inventory inventory.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			r, err := t.render(ctx, whereOf(args), c.quiet())
			if err != nil {
				return err
			}
			if len(r.result.Problems) > 0 {
				return c.problems(r.result.Problems)
			}
			request, err := report.NewPlanRequest(r.app, r.label(), r.result.Manifest)
			if err != nil {
				return err
			}
			var p *report.Plan
			if inventory != "" {
				p, err = planOffline(ctx, inventory, request, look)
			} else {
				p, err = c.planAgainst(ctx, request, look)
			}
			if err != nil {
				return err
			}
			if err := c.printPlan(p); err != nil {
				return err
			}
			if p.Changed() {
				return &codeError{code: exitChanges}
			}
			return nil
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&inventory, "inventory", "", "`FILE` with what runs, as `tandem status -o json` writes it; - reads it from standard input")
	cmd.Flags().BoolVar(&look, "look-up", false, "with --inventory or a stopped controller: look up from here what images mean that are not known there")
	return cmd
}

// planAgainst asks the controller, or reads what a stopped one left.
func (c *cli) planAgainst(ctx context.Context, request *report.PlanRequest, look bool) (*report.Plan, error) {
	from, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	switch from := from.(type) {
	case *client:
		var p report.Plan
		return &p, from.ask(ctx, http.MethodPost, kubeapi.PlanPath, nil, request, &p)
	case *stopped:
		base := forecast.Copy(from.state)
		known, err := lookUp(ctx, base, request, look)
		if err != nil {
			return nil, err
		}
		return report.NewPlan(base, request, known, false)
	default:
		panic("a reader that nobody can plan against")
	}
}

// planOffline plans against a saved inventory.
func planOffline(ctx context.Context, file string, request *report.PlanRequest, look bool) (*report.Plan, error) {
	raw, err := readFileOrInput(file)
	if err != nil {
		return nil, fmt.Errorf("read the inventory: %w", err)
	}
	var saved struct {
		Inventory *report.Inventory `json:"inventory"`
	}
	if err := json.Unmarshal(raw, &saved); err != nil {
		return nil, fmt.Errorf("read the inventory %s: %w", file, err)
	}
	if saved.Inventory == nil {
		return nil, fmt.Errorf("%s has no inventory; save one with `tandem status -o json`, as someone who may plan", file)
	}
	base, err := saved.Inventory.Base()
	if err != nil {
		return nil, err
	}
	known, err := lookUp(ctx, base, request, look)
	if err != nil {
		return nil, err
	}
	return report.NewPlan(base, request, known, true)
}

func readFileOrInput(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}

// lookUp asks registries from here, where that was wanted, what the images mean
// that the state doesn't know.
func lookUp(ctx context.Context, base *forecast.Base, request *report.PlanRequest, look bool) (map[string]state.Image, error) {
	if !look {
		return nil, nil //nolint:nilnil // nothing was looked up
	}
	s, err := state.Restore(base.Snapshot(), base.Blobs())
	if err != nil {
		return nil, err
	}
	names, err := request.UnknownImages(s)
	if err != nil {
		return nil, err
	}
	pulls, err := report.NewPulls(request, s)
	if err != nil {
		return nil, err
	}
	store := images.New(images.Options{})
	return report.LookUp(ctx, names, func(ctx context.Context, name string) state.Image {
		im, err := store.With(report.PullCredentials(pulls.Secrets(name))).Look(ctx, name)
		if err != nil {
			return state.Image{Name: name, Assumed: true, Failure: max(im.Failure, state.LookupUnavailable)}
		}
		return im
	}), nil
}

func (c *cli) printPlan(p *report.Plan) error {
	switch c.output {
	case "markdown":
		p.Markdown(c.out)
		return nil
	case "wide":
		p.Wide(c.out)
		return nil
	default:
		return c.print(p)
	}
}
