package helm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	commonutil "helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
)

// A File is a file of a chart; its name is relative to the chart's directory.
type File struct {
	Name string
	Data []byte
}

// Options are what a release is called, and what it sets.
type Options struct {
	Release   string
	Namespace string
	Values    []File // later ones win, as with `helm template --values`

	KubeVersion string   // what Capabilities tell; empty: KubeVersion
	APIVersions []string // told besides Helm's own
	CRDs        bool     // give what lies in crds/ as well
}

// A Document is what one template became: YAML, maybe of several documents.
type Document struct {
	File string // where the template lies, relative to the chart's directory
	YAML []byte
}

// An Error is a mistake in a chart or its values.
type Error struct {
	File      string // relative to the chart's directory, or the name of a values file; "" where it is not known
	Line, Col int    // 0 where not known
	Cause     string
	Remedy    string
}

func (e *Error) Error() string { return e.File + ": " + e.Cause }

// MaxOutputBytes is what all templates of a chart together may become.
const MaxOutputBytes = 64 << 20

// Render renders a chart. Warnings name what `helm install` would do beyond the
// templates, and this does not. Every error is an *Error.
func Render(ctx context.Context, files []File, options Options) (docs []Document, warnings []Error, err error) {
	if err := chartutil.ValidateReleaseName(options.Release); err != nil {
		return nil, nil, &Error{Cause: fmt.Sprintf("%q is no name of a release: %v", options.Release, err), Remedy: "give a releaseName of lower-case letters, digits and -, 53 at most"}
	}
	c, err := load(files)
	if err != nil {
		return nil, nil, err
	}
	values, err := merged(options.Values)
	if err != nil {
		return nil, nil, err
	}
	names := sourcesOf(c, files)
	if err := chartutil.ProcessDependencies(c, values); err != nil {
		return nil, nil, &Error{File: "Chart.yaml", Cause: "its dependencies can't be processed: " + oneLine(err), Remedy: "correct the conditions, tags and import-values of its dependencies"}
	}
	told, err := capabilities(c, options)
	if err != nil {
		return nil, nil, err
	}
	release := common.ReleaseOptions{Name: options.Release, Namespace: options.Namespace, Revision: 1, IsInstall: true}
	top, err := commonutil.ToRenderValuesWithSchemaValidation(c, values, release, told, true)
	if err != nil {
		return nil, nil, &Error{File: "values.yaml", Cause: "values can't be merged: " + oneLine(err), Remedy: "compare the values with the chart's values.yaml"}
	}
	if err := validate(c, top["Values"]); err != nil {
		return nil, nil, err
	}
	rendered, err := engine.Engine{CustomTemplateFuncs: functions(ctx)}.RenderWithContext(ctx, c, top)
	if err != nil {
		return nil, nil, failure(err, names)
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		text := rendered[name]
		if path.Base(name) == "NOTES.txt" || strings.TrimSpace(text) == "" {
			continue
		}
		if size += len(text); size > MaxOutputBytes {
			return nil, nil, &Error{Cause: fmt.Sprintf("renders more than %d bytes", MaxOutputBytes), Remedy: "split the chart"}
		}
		docs = append(docs, Document{File: names(name), YAML: []byte(text)})
	}
	for _, crd := range c.CRDObjects() {
		if options.CRDs {
			docs = append(docs, Document{File: names(crd.Filename), YAML: crd.File.Data})
			continue
		}
		warnings = append(warnings, Error{File: names(crd.Filename), Cause: "a CustomResourceDefinition of the chart's crds/ is left out", Remedy: "nothing here reads it; remove what depends on it"})
	}
	return docs, warnings, nil
}

// KubeVersion is the version of Kubernetes that charts are told of: the one that
// `helm template` tells without a cluster, and that our kinds are of. Helm finds it
// in the program that it is part of; here it changes when somebody changes it.
const KubeVersion = "v1.37.0"

// capabilities are what a chart is told of Kubernetes. A chart that wants another
// one is refused, as Helm refuses it.
func capabilities(c *chart.Chart, options Options) (*common.Capabilities, error) {
	known := common.DefaultCapabilities.Copy()
	version, err := common.ParseKubeVersion(cmp.Or(options.KubeVersion, KubeVersion))
	if err != nil {
		return nil, &Error{Cause: fmt.Sprintf("%q is no version of Kubernetes", options.KubeVersion), Remedy: "write it as v1.34.0"}
	}
	known.KubeVersion = *version
	known.APIVersions = append(known.APIVersions, options.APIVersions...)
	if want := c.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, known.KubeVersion.String()) {
		return nil, &Error{File: "Chart.yaml", Cause: fmt.Sprintf("wants Kubernetes %s, and is told of %s", want, known.KubeVersion.Version), Remedy: "use a version of the chart that goes with it"}
	}
	return known, nil
}

// load makes a chart, its dependencies in the order of their names.
func load(files []File) (*chart.Chart, error) {
	in := make([]*archive.BufferedFile, 0, len(files))
	for _, f := range files {
		in = append(in, &archive.BufferedFile{Name: f.Name, ModTime: time.Time{}, Data: f.Data})
	}
	c, err := loader.LoadFiles(in)
	if err != nil {
		return nil, &Error{File: "Chart.yaml", Cause: "the chart can't be loaded: " + oneLine(err), Remedy: "try it with  helm lint"}
	}
	if err := known(c); err != nil {
		return nil, err
	}
	if err := missing(c); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"", "application"}, c.Metadata.Type) {
		return nil, &Error{File: "Chart.yaml", Cause: "a chart of type " + c.Metadata.Type + " can't be rendered by itself", Remedy: "name a chart that depends on it"}
	}
	ordered(c)
	return c, nil
}

// known refuses charts of a form that Helm doesn't install, also as dependencies.
func known(c *chart.Chart) error {
	if v := c.Metadata.APIVersion; v != chart.APIVersionV1 && v != chart.APIVersionV2 {
		return &Error{File: "Chart.yaml", Cause: fmt.Sprintf("%s is a chart of apiVersion %s", c.ChartFullPath(), v), Remedy: "want v1 or v2"}
	}
	for _, d := range c.Dependencies() {
		if err := known(d); err != nil {
			return err
		}
	}
	return nil
}

func ordered(c *chart.Chart) {
	deps := slices.Clone(c.Dependencies())
	slices.SortFunc(deps, func(a, b *chart.Chart) int {
		if n := strings.Compare(a.Name(), b.Name()); n != 0 {
			return n
		}
		return strings.Compare(a.Metadata.Version, b.Metadata.Version)
	})
	c.SetDependencies(deps...)
	for _, d := range deps {
		ordered(d)
	}
}

// missing finds a dependency that Chart.yaml names and charts/ lacks: fetching
// it is the business of whoever commits the chart.
func missing(c *chart.Chart) error {
	for _, want := range c.Metadata.Dependencies {
		has := slices.ContainsFunc(c.Dependencies(), func(have *chart.Chart) bool {
			return have.Name() == want.Name && chartutil.IsCompatibleRange(want.Version, have.Metadata.Version)
		})
		if !has {
			return &Error{File: "Chart.yaml", Cause: fmt.Sprintf("depends on %s %s, which is not in charts/: a render fetches nothing", want.Name, want.Version), Remedy: "run  helm dependency build  and commit charts/"}
		}
	}
	return nil
}

// merged reads values files over one another.
func merged(files []File) (map[string]any, error) {
	out := map[string]any{}
	for _, f := range files {
		v, err := loader.LoadValues(bytes.NewReader(f.Data))
		if err != nil {
			return nil, &Error{File: f.Name, Cause: "is no map of values: " + oneLine(err), Remedy: "write  key: value"}
		}
		out = loader.MergeMaps(out, v)
	}
	return out, nil
}

// sourcesOf maps the engine's names of templates ("shop/charts/db/templates/x.yaml")
// to files of the chart. A dependency in an archive is its archive.
func sourcesOf(c *chart.Chart, files []File) func(string) string {
	known := make(map[string]bool, len(files))
	for _, f := range files {
		known[f.Name] = true
	}
	return func(name string) string {
		rest := strings.TrimPrefix(name, c.Name()+"/")
		if known[rest] {
			return rest
		}
		if sub, ok := strings.CutPrefix(rest, "charts/"); ok {
			sub, _, _ = strings.Cut(sub, "/")
			for _, f := range files {
				if base, ok := strings.CutPrefix(f.Name, "charts/"); ok && strings.HasPrefix(base, sub) {
					dir, _, isDir := strings.Cut(base, "/")
					if isDir {
						return path.Join("charts", dir)
					}
					return f.Name
				}
			}
		}
		return "Chart.yaml"
	}
}

var (
	location = regexp.MustCompile(`\(?([^\s():]+/templates/[^\s():]+):(\d+)(?::(\d+))?\)?`)
	wrapped  = regexp.MustCompile(`(?s)HELM_ERR_START(.*?)HELM_ERR_END`)
)

// failure says where a template failed, and why, in one line.
func failure(err error, names func(string) string) error {
	e := &Error{File: "Chart.yaml", Remedy: "correct the template, or the values it is given; try it with  helm template"}
	if refused, ok := errors.AsType[*refusedError](err); ok {
		e.Remedy = refused.remedy
	}
	msg := strings.TrimSpace(err.Error())
	if all := location.FindAllStringSubmatch(msg, -1); len(all) > 0 {
		m := all[len(all)-1]
		e.File = names(m[1])
		e.Line, _ = strconv.Atoi(m[2])
		e.Col, _ = strconv.Atoi(m[3])
	}
	if m := wrapped.FindStringSubmatch(msg); m != nil {
		msg = m[1]
	}
	lines := strings.FieldsFunc(msg, func(r rune) bool { return r == '\n' })
	cause := strings.TrimSpace(lines[len(lines)-1])
	for _, cut := range []string{"error calling ", "execution error at "} {
		if i := strings.LastIndex(cause, cut); i >= 0 {
			cause = cause[i+len(cut):]
		}
	}
	cause = strings.TrimSpace(location.ReplaceAllString(cause, ""))
	e.Cause = "a template fails: " + clip(strings.TrimPrefix(cause, ": "))
	return e
}

func oneLine(err error) string { return clip(strings.Join(strings.Fields(err.Error()), " ")) }

func clip(s string) string {
	if len(s) > 300 {
		return strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}
