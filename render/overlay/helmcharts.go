package overlay

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/kio"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/kustomize/kyaml/yaml/merge2"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/helm"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// chartsDir is a directory that only kustomize sees, beside a kustomization with
// helmCharts: a component with what the charts render to. Kustomize takes charts
// in after resources and generators and before components, so it is the first
// component.
const chartsDir = ".tandem-helm-charts"

// unnamedRelease is what `helm template` calls a release without a name.
const unnamedRelease = "release-name"

func (k *kustomization) chartsFile() string {
	return path.Join(k.dir, chartsDir, kustomizationNames()[0])
}

// helmCharts renders the charts that a kustomization names, as kustomize does
// with the helm command. A chart lies in the tree; nothing is fetched.
func (k *kustomization) helmCharts() {
	list := k.value.Find("helmCharts")
	if list == nil || len(list.Items) == 0 {
		return
	}
	if k.tells {
		k.failAt(list, "helmCharts", "beside buildMetadata, which would tell where each object of a chart comes from", "leave originAnnotations and transformerAnnotations out of buildMetadata")
		return
	}
	before := len(k.problems)
	var all bytes.Buffer
	for _, item := range list.Items {
		k.helmChart(item, &all)
		if all.Len() > MaxOutputBytes {
			k.failAt(item, "helmCharts", fmt.Sprintf("renders more than %d bytes", MaxOutputBytes), "split it into several Applications")
			return
		}
		if k.stopped {
			return
		}
	}
	if len(k.problems) > before {
		return
	}
	objects := path.Join(k.dir, chartsDir, "charts.yaml")
	if was, ok := k.made[objects]; ok && !bytes.Equal(was, all.Bytes()) {
		k.failAt(list, "helmCharts", "is read twice, for different namespaces: "+k.real(k.dir)+" is named by several kustomizations", "write namespace into the entries of helmCharts")
		return
	}
	component := "apiVersion: " + types.ComponentVersion + "\nkind: " + types.ComponentKind + "\n"
	if all.Len() > 0 {
		component += "resources: [charts.yaml]\n"
	}
	k.made[k.chartsFile()], k.made[objects] = []byte(component), all.Bytes()
	k.overrides[k.file] = k.withCharts().JSON()
}

// withCharts is the kustomization with the component of the charts' objects in the
// place of helmCharts.
func (k *kustomization) withCharts() *manifest.Value {
	out := *k.value
	component := &manifest.Value{Kind: manifest.String, Text: chartsDir}
	into := &manifest.Value{Kind: manifest.List, Items: []*manifest.Value{component}}
	var fields []manifest.Field
	for _, f := range out.Fields {
		switch f.Key {
		case "helmCharts", "helmGlobals":
		case "components":
			into.Items = append(into.Items, f.Value.Items...)
		default:
			fields = append(fields, f)
		}
	}
	fields = append(fields, manifest.Field{Key: "components", Value: into})
	out.Fields = fields
	return &out
}

// chartDirOf is where kustomize looks for a chart, and would put it.
func (k *kustomization) chartDirOf(item *manifest.Value) (home, dir string, ok bool) {
	placed := *item
	name := item.Find("name")
	if name == nil || name.Text == "" || strings.HasPrefix(name.Text, "-") {
		k.failAt(item, "helmCharts", "a chart without a name", "write  name:  with the chart's directory below "+types.HelmDefaultHome+"/")
		return "", "", false
	}
	placed.Text = cmp.Or(k.value.Find("helmGlobals").Str("chartHome"), types.HelmDefaultHome)
	if v := k.value.Find("helmGlobals").Find("chartHome"); v != nil {
		placed.Line, placed.Col = v.Line, v.Col
	}
	if item.Str("version") != "" && item.Str("repo") != "" {
		placed.Text = path.Join(placed.Text, item.Str("name")+"-"+item.Str("version"))
	}
	if home, ok = k.local("helmGlobals.chartHome", &placed); !ok {
		return "", "", false
	}
	placed.Text, placed.Line, placed.Col = path.Join(placed.Text, name.Text), name.Line, name.Col
	dir, ok = k.local("helmCharts", &placed)
	if !ok || !k.inside("helmCharts", name, dir) {
		return "", "", false
	}
	if k.isDir(dir) {
		return home, dir, true
	}
	pull := "helm pull --untar --untardir " + k.real(home)
	switch repo := item.Str("repo"); {
	case strings.HasPrefix(repo, "oci://"):
		pull += " " + strings.TrimSuffix(repo, "/") + "/" + name.Text
	case repo != "":
		pull += " --repo " + repo + " " + name.Text
	default:
		pull += " CHART"
	}
	if version := item.Str("version"); version != "" {
		pull += " --version " + version
	}
	k.failAt(name, "helmCharts", fmt.Sprintf("the chart %s is not in %s: a render fetches nothing", name.Text, k.real(home)), "vendor it and commit it:  "+pull)
	return "", "", false
}

// helmChart renders one entry.
func (k *kustomization) helmChart(item *manifest.Value, out *bytes.Buffer) {
	if v := item.Find("nameTemplate"); v != nil {
		k.failAt(v, "helmCharts.nameTemplate", "not supported: Helm would run a template for the release's name", "write the name as releaseName")
		return
	}
	before := len(k.problems)
	_, dir, ok := k.chartDirOf(item)
	if !ok {
		return
	}
	values := k.chartValues(item, dir)
	files := k.chartFiles(dir)
	if len(k.problems) > before || k.stopped {
		return
	}
	options := helm.Options{
		Release:   cmp.Or(item.Str("releaseName"), unnamedRelease),
		Namespace: cmp.Or(item.Str("namespace"), k.namespace, "default"),
		Values:    values, KubeVersion: item.Str("kubeVersion"), CRDs: item.Find("includeCRDs").Is(true),
	}
	if list := item.Find("apiVersions"); list != nil {
		for _, v := range list.Items {
			options.APIVersions = append(options.APIVersions, v.Text)
		}
	}
	here := k.mark(k.file, item)
	docs, warnings, err := helm.Render(k.ctx, files, options)
	for _, warning := range warnings {
		k.warnings = append(k.warnings, k.chartProblem(&warning, dir, here))
	}
	if mistake, ok := errors.AsType[*helm.Error](err); ok {
		k.problems = append(k.problems, k.chartProblem(mistake, dir, here))
		return
	}
	if err != nil {
		k.fail(here, "helmCharts", "the chart can't be rendered: "+err.Error(), "try it with  helm template")
		return
	}
	for _, doc := range docs {
		k.chartDocument(item, dir, doc, out)
	}
}

// chartDocument takes in what one template became.
func (k *kustomization) chartDocument(item *manifest.Value, dir string, doc helm.Document, out *bytes.Buffer) {
	at := k.at(path.Join(dir, doc.File))
	parsed, problems := manifest.Parse(at, doc.YAML)
	for _, p := range problems {
		p.At.Line, p.At.Col = 0, 0 // lines of the output
		k.problems = append(k.problems, p)
	}
	if len(problems) > 0 {
		return
	}
	for _, v := range parsed {
		_, ref := manifest.Identify(v)
		k.index.add(source{kind: ref.Kind, namespace: ref.Namespace, name: ref.Name, value: v, at: at, rendered: true})
		k.secretValues(v)
	}
	nodes, err := nodesOf(doc.YAML)
	if err != nil {
		k.fail(k.index.seenFrom(at), "", "is no YAML that kustomize reads: "+k.redact(clip(err.Error())), "correct the template")
		return
	}
	for _, n := range nodes {
		if n.IsNilOrEmpty() || !k.chartHook(item, n, at) {
			continue
		}
		// So kustomize marks them: its own namespace isn't given to them.
		err := n.PipeE(kyaml.SetAnnotation(konfig.HelmGeneratedAnnotation, "true"))
		text := ""
		if err == nil {
			text, err = n.String()
		}
		if err != nil {
			k.fail(k.index.seenFrom(at), "", "is no object: "+k.redact(clip(err.Error())), "correct the template")
			return
		}
		out.WriteString("---\n" + text)
	}
}

// nodesOf is how kustomize reads a text.
func nodesOf(text []byte) (nodes []*kyaml.RNode, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("kustomize panicked: %v", r)
		}
	}()
	return (&kio.ByteReader{Reader: bytes.NewReader(text), OmitReaderAnnotations: true}).Read()
}

// chartHook says whether an object is kept. Kustomize makes ordinary objects of
// hooks and tests: of data that is done, of work it is refused.
func (k *kustomization) chartHook(item *manifest.Value, n *kyaml.RNode, at state.Origin) bool {
	hooks := n.GetAnnotations()["helm.sh/hook"]
	if hooks == "" {
		return true
	}
	ref := state.Ref{Kind: n.GetKind(), Namespace: n.GetNamespace(), Name: n.GetName()}
	if unknownHook(hooks) {
		k.warnings = append(k.warnings, leftOut(ref, k.index.seenFrom(at), hooks))
		return false
	}
	isTest := false
	for event := range strings.SplitSeq(hooks, ",") {
		event = strings.TrimSpace(event)
		isTest = isTest || event == "test" || event == "test-success"
	}
	if item.Find("skipHooks").Is(true) || isTest && item.Find("skipTests").Is(true) {
		return false
	}
	if kind := ref.Kind; kind == "Job" || kind == "Pod" {
		k.problems = append(k.problems, state.Problem{
			Object: ref, Field: "metadata.annotations[helm.sh/hook]", At: k.index.seenFrom(at),
			Cause:  "a " + kind + " that Helm would run as a hook (" + hooks + "), and that kustomize makes an ordinary one",
			Remedy: "write  skipTests: true  or  skipHooks: true  into the entry of helmCharts, or switch the hook off in the chart's values",
		})
		return false
	}
	return true
}

// chartValues are the values of one entry, as kustomize hands them to Helm.
func (k *kustomization) chartValues(item *manifest.Value, dir string) []helm.File {
	read := func(field string, v *manifest.Value) []helm.File {
		p, ok := k.local(field, v)
		if !ok || !k.inside(field, v, p) {
			return nil
		}
		raw, ok := k.load(p, k.mark(k.file, v))
		if !ok {
			return nil
		}
		return []helm.File{{Name: k.real(p), Data: raw}}
	}
	how := cmp.Or(item.Str("valuesMerge"), "override")
	inline := item.Find("valuesInline")
	var out []helm.File
	if inline.Empty() || how != "replace" {
		if v := item.Find("valuesFile"); v != nil && v.Text != "" {
			out = read("helmCharts.valuesFile", v)
		} else if raw, ok := k.load(path.Join(dir, "values.yaml"), k.mark(k.file, item)); ok {
			out = []helm.File{{Name: k.real(path.Join(dir, "values.yaml")), Data: raw}}
		}
	}
	if !inline.Empty() {
		merged, err := mergeValues(out, inline, how)
		if err != nil {
			k.failAt(inline, "helmCharts.valuesInline", clip(err.Error()), "compare it with the chart's values.yaml")
			return nil
		}
		out = []helm.File{{Name: k.real(k.file), Data: merged}}
	}
	if list := item.Find("additionalValuesFiles"); list != nil {
		for _, v := range list.Items {
			out = append(out, read("helmCharts.additionalValuesFiles", v)...)
		}
	}
	return out
}

// mergeValues merges values of a kustomization with those of a file, by
// kustomize's own code.
func mergeValues(file []helm.File, inline *manifest.Value, how string) (merged []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("kustomize panicked: %v", r)
		}
	}()
	var values map[string]any
	if err := json.Unmarshal(inline.JSON(), &values); err != nil {
		return nil, fmt.Errorf("is no map of values: %w", err)
	}
	if how == "replace" {
		return json.Marshal(values)
	}
	ours, err := kyaml.FromMap(values)
	if err != nil {
		return nil, err
	}
	var text string
	for _, f := range file {
		text = string(f.Data)
	}
	theirs, err := kyaml.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the values file can't be read: %w", err)
	}
	var result *kyaml.RNode
	switch how {
	case "override":
		result, err = merge2.Merge(ours, theirs, kyaml.MergeOptions{})
	case "merge":
		result, err = merge2.Merge(theirs, ours, kyaml.MergeOptions{})
	default:
		return nil, fmt.Errorf("valuesMerge is %q: want merge, override or replace", how)
	}
	if err != nil {
		return nil, err
	}
	all, err := result.Map()
	if err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// clip keeps a message of a library on one line, and short.
func clip(msg string) string {
	msg = strings.Join(strings.Fields(msg), " ")
	if len(msg) > 300 {
		return strings.ToValidUTF8(msg[:300], "") + "…"
	}
	return msg
}
