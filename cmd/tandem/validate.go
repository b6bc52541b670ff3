package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
)

// maxNamed is how many kustomizations that nothing reads are named as text.
const maxNamed = 5

func (c *cli) validateCommand() *cobra.Command {
	var t tree
	cmd := &cobra.Command{
		Use: "validate [REPO|DIR]", Short: "every problem of a path", Args: args(cobra.MaximumNArgs(1)),
		Long: "Validate renders a path, and the Applications that it declares in the same repository, and tells every problem at once with its place and what to do.\n" +
			"-o sarif and -o junit are for code hosts and test reports.",
		Example: "  tandem validate examples/shop\n  tandem validate -o sarif > tandem.sarif",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, label, err := c.validate(cmd.Context(), t, whereOf(args))
			if err != nil {
				return err
			}
			return c.tellFindings(f, label)
		},
	}
	t.flags(cmd)
	return cmd
}

// validate renders a root and all that it declares.
func (c *cli) validate(ctx context.Context, t tree, where string) (*findings, string, error) {
	r, err := t.render(ctx, where, c.quiet())
	if err != nil {
		return nil, "", err
	}
	f := &findings{}
	var reads []state.Read
	whole := true // every render of the tree went well, so what they read is known
	take := func(name string, one *rendering) {
		a := appFindings{name: name, problems: one.result.Problems}
		if m := one.result.Manifest; m != nil {
			a.objects = len(m.Objects)
			f.warnings = append(f.warnings, m.Warnings...)
			reads = append(reads, m.Reads...)
		} else {
			whole = false
		}
		f.apps = append(f.apps, a)
	}
	take(string(r.app.Name), r)
	if t.app != "" {
		return f, r.label(), nil
	}
	for i := range r.others {
		one := t
		one.app = string(r.others[i].Name)
		ra, err := one.render(ctx, where, c.quiet())
		if err != nil {
			return nil, "", fmt.Errorf("Application %s: %w", one.app, err) //nolint:staticcheck // a kind's name
		}
		take(one.app, ra)
	}
	if whole {
		if f.unread, err = render.Unread(r.snapshot.FS, reads); err != nil {
			return nil, "", err
		}
	}
	f.warnings = state.SortProblems(f.warnings)
	return f, r.label(), nil
}

// tellFindings prints what was found in the format that was asked for, and ends
// with 1 where something is wrong.
func (c *cli) tellFindings(f *findings, label string) error {
	problems := f.problems()
	if err := c.printFindings(f, problems); err != nil {
		return err
	}
	if len(problems) > 0 {
		_, _ = fmt.Fprintf(c.errs, "%d problems in %s\n", len(problems), label)
		return failed()
	}
	if c.output == "" {
		_, _ = fmt.Fprintf(c.out, "ok: %s, %d applications, %d objects, no problems\n", label, len(f.apps), f.objects())
	}
	return nil
}

func (c *cli) printFindings(f *findings, problems []state.Problem) error {
	var raw []byte
	var err error
	switch c.output {
	case "sarif":
		raw, err = f.sarif(version)
	case "junit":
		raw, err = f.junit()
	case "json", "yaml":
		return c.encode(problems)
	case "", "wide":
		c.printText(f, problems)
		return nil
	default:
		return usageError("-o %s: want json, yaml, wide, sarif or junit", c.output)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err = fmt.Fprintf(c.out, "%s\n", raw)
	return err
}

func (c *cli) printText(f *findings, problems []state.Problem) {
	for _, p := range problems {
		_, _ = fmt.Fprintf(c.errs, "error: %v\n", p)
	}
	for _, p := range f.warnings {
		_, _ = fmt.Fprintf(c.errs, "warning: %v\n", p)
	}
	if n := len(f.unread); n > 0 {
		named := strings.Join(f.unread[:min(n, maxNamed)], ", ")
		if n > maxNamed {
			named += fmt.Sprintf(" and %d more", n-maxNamed)
		}
		_, _ = fmt.Fprintf(c.errs, "note: nothing reads %s\n", named)
	}
}
