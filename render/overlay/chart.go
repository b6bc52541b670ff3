package overlay

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/ignore"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/helm"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// chartFile marks a directory as a Helm chart.
const chartFile = "Chart.yaml"

// chart renders the Helm chart at the path. Everything it reads goes through the
// view, so that values files below linux/ and windows/ are pairs like others.
func (w *walker) chart(app state.Application) []object {
	here := state.Origin{Path: w.real(path.Join(w.root, chartFile)), Revision: w.revision}
	files := w.chartFiles(w.root)
	var values []helm.File
	for _, name := range app.Helm.ValueFiles {
		file, ok := join(w.root, name)
		if !ok {
			w.fail(app.At, "spec.helm.valueFiles", fmt.Sprintf("%q leads out of the tree", name), "give a path inside the repository")
			continue
		}
		if raw, ok := w.load(file, app.At); ok {
			values = append(values, helm.File{Name: w.real(file), Data: raw})
		}
	}
	if len(w.problems) > 0 || w.stopped {
		return nil
	}
	options := helm.Options{Release: app.Helm.Release, Namespace: app.Namespace, Values: values}
	if options.Release == "" {
		options.Release = string(app.Name)
	}
	if options.Namespace == "" {
		options.Namespace = "default"
	}
	docs, warnings, err := helm.Render(w.ctx, files, options)
	for _, warning := range warnings {
		w.warnings = append(w.warnings, w.chartProblem(&warning, w.root, here))
	}
	if mistake, ok := errors.AsType[*helm.Error](err); ok {
		w.problems = append(w.problems, w.chartProblem(mistake, w.root, here))
		return nil
	}
	if err != nil {
		w.fail(here, "", "the chart can't be rendered: "+err.Error(), "try it with  helm template")
		return nil
	}
	var out []object
	for _, doc := range docs {
		out = append(out, w.templated(doc)...)
	}
	if len(out) > MaxObjects {
		w.fail(here, "", fmt.Sprintf("renders %d objects, more than %d", len(out), MaxObjects), "split it into several Applications")
		return nil
	}
	return out
}

// chartProblem places a mistake of the chart in the tree.
func (w *walker) chartProblem(e *helm.Error, dir string, here state.Origin) state.Problem {
	at := here
	switch {
	case e.File == "":
	case w.files[e.File]: // a values file has its own path
		at.Path = w.real(e.File)
	default:
		at.Path = w.real(path.Join(dir, e.File))
	}
	at.Line, at.Col = int32(e.Line), int32(e.Col) //nolint:gosec // lines of a file of at most MaxFileBytes
	return state.Problem{At: at, Cause: e.Cause, Remedy: e.Remedy}
}

// templated parses what one template became. Its lines are those of the output,
// so the place of an object is the template's file alone.
func (w *walker) templated(doc helm.Document) []object {
	at := w.at(path.Join(w.root, doc.File))
	parsed, problems := manifest.Parse(at, doc.YAML)
	for _, p := range problems {
		p.At.Line, p.At.Col = 0, 0
		w.problems = append(w.problems, p)
	}
	var out []object
	for _, v := range parsed {
		if w.hook(v, at) {
			out = append(out, object{value: v, at: at, place: func(manifest.Path, *manifest.Value) state.Origin { return at }})
		}
	}
	return out
}

// hook says whether an object is kept. Helm runs hooks at a moment of an install;
// here there is no such moment, only what should be. So data that hooks bring
// is kept as an ordinary object, tests are left out, and work is refused.
func (w *walker) hook(v *manifest.Value, at state.Origin) bool {
	hooks := v.Find("metadata").Find("annotations").Str("helm.sh/hook")
	if hooks == "" {
		return true
	}
	_, ref := manifest.Identify(v)
	if unknownHook(hooks) {
		w.warnings = append(w.warnings, leftOut(ref, at, hooks))
		return false
	}
	runs := ref.Kind == "Job" || ref.Kind == "Pod"
	switch test := strings.HasPrefix(hooks, "test") && !strings.Contains(hooks, "-install") && !strings.Contains(hooks, "-upgrade"); {
	case test:
		w.warnings = append(w.warnings, state.Problem{Object: ref, At: at, Cause: "is a test of the chart and is left out", Remedy: "run it by hand, or as a Job gate of a Pipeline"})
		return false
	case runs:
		w.problems = append(w.problems, state.Problem{
			Object: ref, Field: "metadata.annotations[helm.sh/hook]", At: at, Cause: "a " + ref.Kind + " that Helm would run as a hook (" + hooks + "): there is no install or upgrade to run it at",
			Remedy: "switch the hook off in the chart's values, or remove the annotation so that it is an ordinary " + ref.Kind,
		})
		return false
	case strings.Contains(hooks, "install") || strings.Contains(hooks, "upgrade"):
		w.warnings = append(w.warnings, state.Problem{Object: ref, At: at, Cause: "is a hook of the chart (" + hooks + ") and is kept as an ordinary object", Remedy: "nothing, if it may stay for as long as the chart does"})
		return true
	}
	w.warnings = append(w.warnings, state.Problem{Object: ref, At: at, Cause: "is a hook of the chart for a deletion or a rollback (" + hooks + ") and is left out", Remedy: "nothing, if it need not run"})
	return false
}

// unknownHook says whether Helm doesn't know an event of a hook: then it leaves the
// object out.
func unknownHook(hooks string) bool {
	known := []string{"pre-install", "post-install", "pre-delete", "post-delete", "pre-upgrade", "post-upgrade", "pre-rollback", "post-rollback", "test", "test-success"}
	for event := range strings.SplitSeq(hooks, ",") {
		if !slices.Contains(known, strings.ToLower(strings.TrimSpace(event))) {
			return true
		}
	}
	return false
}

func leftOut(ref state.Ref, at state.Origin, hooks string) state.Problem {
	return state.Problem{Object: ref, At: at, Cause: "is a hook that Helm doesn't know (" + hooks + "), and is left out as by Helm", Remedy: "remove the annotation helm.sh/hook, or the object"}
}

// chartFiles reads a chart's directory, without what .helmignore names.
func (w *walker) chartFiles(chart string) []helm.File {
	rules := ignore.Empty()
	if file := path.Join(chart, ".helmignore"); w.isFile(file) {
		raw, ok := w.load(file, w.at(chart))
		if !ok {
			return nil
		}
		parsed, err := ignore.Parse(strings.NewReader(string(raw)))
		if err != nil {
			w.fail(w.at(file), "", "can't be read: "+err.Error(), "write one pattern a line; ** is not known")
			return nil
		}
		rules = parsed
	}
	rules.AddDefaults()
	var out []helm.File
	w.chartDir(chart, "", rules, 0, &out)
	return out
}

func (w *walker) chartDir(chart, dir string, rules *ignore.Rules, depth int, out *[]helm.File) {
	if w.visited++; w.visited > MaxDirectories || depth > MaxNesting {
		if !w.stopped {
			w.fail(w.at(chart), "", fmt.Sprintf("has more than %d directories, or nests them deeper than %d", MaxDirectories, MaxNesting), "name what isn't part of the chart in .helmignore")
		}
		w.stopped = true
		return
	}
	entries, err := w.list(path.Join(chart, dir))
	if err != nil {
		w.fail(w.at(path.Join(chart, dir)), "", "can't be read: "+err.Error(), "commit an ordinary directory inside the repository")
		return
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		info, err := w.stat(path.Join(chart, name))
		if err != nil {
			w.fail(w.at(path.Join(chart, name)), "", "can't be read: "+err.Error(), "commit an ordinary file inside the repository")
			continue
		}
		switch {
		case w.stopped:
			return
		case rules.Ignore(name, info):
		case info.IsDir():
			w.chartDir(chart, name, rules, depth+1, out)
		default:
			if raw, ok := w.load(path.Join(chart, name), w.at(chart)); ok {
				*out = append(*out, helm.File{Name: name, Data: raw})
			}
		}
	}
}
