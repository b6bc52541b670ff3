package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/tandem-gitops/tandem/cmd/tandem/serve"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/worker"
	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/open"
)

// A tree is what render, validate and plan read.
type tree struct {
	ref, commit, path, app string
	credentials            string
}

func (t *tree) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.ref, "ref", "", "`BRANCH` of a repository, or a pull request's head: pull/12/head, merge-requests/12/head; without it a directory is read as it is")
	f.StringVar(&t.commit, "commit", "", "`HASH` of a commit, instead of --ref")
	f.StringVar(&t.path, "path", ".", "`PATH` in the tree that the root is read from")
	f.StringVar(&t.app, "app", "", "`NAME` of an Application of the root to render instead of the root's own objects")
	credentialsFlag(cmd, &t.credentials)
}

// keyed makes tokens of secret values, with a key that nobody keeps.
type keyed []byte

// Token implements manifest.Tokens.
func (k keyed) Token(v []byte) string {
	h := hmac.New(sha256.New, k)
	_, _ = h.Write(v)
	return hex.EncodeToString(h.Sum(nil))
}

// A rendering is what a tree came to.
type rendering struct {
	snapshot sources.Snapshot
	app      state.Application
	result   render.Result
	others   []state.Application // of the root
}

// label is the tree's revision for people.
func (r *rendering) label() string {
	if r.snapshot.Label != "" {
		return r.snapshot.Label
	}
	return r.snapshot.Revision.Short()
}

// render reads one snapshot of a place and renders the root, or one of its
// Applications.
func (t *tree) render(ctx context.Context, where string, logger *slog.Logger) (out *rendering, err error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	options := worker.Options{Command: renderProgram(), Tokens: keyed(key), Workers: 1, Logger: logger}
	if file := os.Getenv("SOPS_AGE_KEY_FILE"); file != "" {
		if options.Keys, err = serve.AgeKeys(file); err != nil {
			return nil, err
		}
	}
	known, err := credentials(t.credentials)
	if err != nil {
		return nil, err
	}
	renderer := worker.New(options)
	defer func() { err = errors.Join(err, renderer.Close()) }()
	snap, err := snapshot(ctx, open.Spec{Where: where, Ref: t.ref, Commit: t.commit, Credentials: known, Logger: logger})
	if err != nil {
		return nil, err
	}
	out = &rendering{snapshot: snap, app: state.Application{Name: state.RootApp, Path: t.path}}
	if out.result, err = renderer.Render(ctx, snap, out.app); err != nil {
		return nil, err
	}
	out.others = out.result.Apps
	if t.app == "" || len(out.result.Problems) > 0 || t.app == string(state.RootApp) {
		return out, nil
	}
	i := slices.IndexFunc(out.others, func(a state.Application) bool { return string(a.Name) == t.app })
	if i < 0 {
		var known []string
		for _, a := range out.others {
			known = append(known, string(a.Name))
		}
		return nil, fmt.Errorf("the root declares no Application %s; it declares %s", t.app, strings.Join(append(known, string(state.RootApp)), ", "))
	}
	out.app = out.others[i]
	if s := out.app.Source; s.Repo != "" {
		if out.snapshot, err = snapshot(ctx, open.Spec{Where: s.Repo, Ref: s.Ref, Commit: s.Commit, Tag: s.Tag, Semver: s.Semver, Credentials: known, Logger: logger}); err != nil {
			return nil, err
		}
	}
	out.result, err = renderer.Render(ctx, out.snapshot, out.app)
	return out, err
}

// snapshot reads one snapshot of what spec names.
func snapshot(ctx context.Context, spec open.Spec) (_ sources.Snapshot, err error) {
	cache, err := os.MkdirTemp("", "tandem-fetch-")
	if err != nil {
		return sources.Snapshot{}, fmt.Errorf("make a place to fetch into: %w", err)
	}
	spec.Cache = cache
	source, kind, err := open.Source(spec)
	if err != nil {
		return sources.Snapshot{}, errors.Join(err, os.RemoveAll(cache))
	}
	snap, err := source.Next(ctx, "")
	if kind != open.Remote {
		return snap, errors.Join(err, os.RemoveAll(cache))
	}
	// A snapshot of a remote repository is served from the cache: it stays
	// until the process ends.
	context.AfterFunc(ctx, func() { _ = os.RemoveAll(cache) })
	return snap, err
}

// renderedObject is one object of `render -o json`.
type renderedObject struct {
	Ref    state.Ref  `json:"ref"`
	OS     state.OS   `json:"os,omitempty"`
	Origin string     `json:"origin,omitempty"`
	Object state.Body `json:"object"`
}

func (c *cli) renderCommand() *cobra.Command {
	var t tree
	var os string
	cmd := &cobra.Command{
		Use: "render [REPO|DIR]", Short: "the objects that a path gives, per OS", Args: args(cobra.MaximumNArgs(1)),
		Long:    "Render prints what would be applied, as YAML: what an object says for one OS stands below a comment that names the OS.",
		Example: "  tandem render examples/shop --os windows",
		RunE: func(cmd *cobra.Command, args []string) error {
			if os != "" && os != "linux" && os != "windows" {
				return usageError("--os %s: want linux or windows", os)
			}
			r, err := t.render(cmd.Context(), whereOf(args), c.quiet())
			if err != nil {
				return err
			}
			if len(r.result.Problems) > 0 {
				return c.problems(r.result.Problems)
			}
			return c.printRendering(r, state.OS(os))
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&os, "os", "", "`OS` to show: linux or windows; both by default")
	return cmd
}

func whereOf(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

// quiet is the logger of commands whose errors are told by themselves.
func (c *cli) quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.errs, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (c *cli) printRendering(r *rendering, os state.OS) error {
	m := r.result.Manifest
	_, _ = fmt.Fprintf(c.errs, "%s: %d objects%s\n", r.label(), len(m.Objects), howRead(m))
	for _, w := range m.Warnings {
		_, _ = fmt.Fprintf(c.errs, "warning: %v\n", w)
	}
	objects := []renderedObject{}
	for _, o := range m.Objects {
		for i := range o.Variants {
			v := &o.Variants[i]
			if os == state.AnyOS || v.OS == state.AnyOS || v.OS == os {
				objects = append(objects, renderedObject{Ref: o.Ref, OS: v.OS, Origin: v.Origin.String(), Object: v.Body})
			}
		}
	}
	if c.output != "" && c.output != "wide" && c.output != "yaml" {
		return c.encode(objects)
	}
	for i := range objects {
		raw, err := bodyYAML(objects[i].Object)
		if err != nil {
			return fmt.Errorf("print %s: %w", objects[i].Ref, err)
		}
		head := "---\n"
		if objects[i].OS != state.AnyOS {
			head += "# " + string(objects[i].OS) + "\n"
		}
		if _, err := fmt.Fprintf(c.out, "%s%s", head, raw); err != nil {
			return err
		}
	}
	return nil
}

// bodyYAML leaves out what nobody wrote: the status and an empty creation time.
func bodyYAML(b state.Body) ([]byte, error) {
	raw, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, err
	}
	prune(tree)
	delete(tree, "status")
	return yaml.Marshal(tree)
}

func prune(v any) {
	switch v := v.(type) {
	case map[string]any:
		if at, ok := v["creationTimestamp"]; ok && at == nil {
			delete(v, "creationTimestamp")
		}
		for _, e := range v {
			prune(e)
		}
	case []any:
		for _, e := range v {
			prune(e)
		}
	}
}

// howRead says which directories stood for which OS.
func howRead(m *state.Manifest) string {
	if len(m.Pairs) == 0 {
		return ""
	}
	return ", linux and windows (" + strings.Join(m.Pairs, ", ") + ")"
}
