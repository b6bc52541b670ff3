package overlay

import (
	"path"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// patch is an entry of patches, or of patchesStrategicMerge: a file or YAML in
// place.
func (k *kustomization) patch(field string, item *manifest.Value) {
	add := func(doc *manifest.Value, at state.Origin, line int32, inline bool) {
		_, ref := manifest.Identify(doc)
		k.index.add(source{kind: ref.Kind, namespace: ref.Namespace, name: ref.Name, value: doc, at: at, line: line, inline: inline, patch: true})
		k.secretValues(doc)
	}
	text, file := item.Find("patch"), item.Find("path")
	if item.Kind == manifest.String {
		text, file = item, nil
		if !strings.ContainsAny(item.Text, "\n{") {
			text, file = nil, item
		}
	}
	if file != nil && file.Text != "" {
		k.yaml(field, file, func(doc *manifest.Value, at state.Origin) { add(doc, at, 0, false) })
	}
	if text == nil {
		return
	}
	docs, problems := manifest.Parse(k.mark(k.file, nil), []byte(text.Text))
	for _, p := range problems {
		p.At.Line, p.At.Col = k.inlineLine(text, p.At.Line), 0
		k.problems = append(k.problems, p)
	}
	if !text.Literal {
		return // its lines are not lines of the file
	}
	for _, doc := range docs {
		add(doc, k.at(k.file), text.Line, true)
	}
}

// inlineLine is the file's line of a line inside a string; 0 where a string's
// lines are not the file's.
func (k *kustomization) inlineLine(text *manifest.Value, line int32) int32 {
	switch {
	case !text.Literal:
		return text.Line
	case line == 0:
		return 0
	}
	return text.Line + line
}

// generator is an entry of configMapGenerator or secretGenerator.
func (k *kustomization) generator(field string, item *manifest.Value) {
	kind := "ConfigMap"
	if field == "secretGenerator" {
		kind = "Secret"
		if lits := item.Find("literals"); lits != nil {
			for _, l := range lits.Items {
				_, value, _ := strings.Cut(l.Text, "=")
				k.secrets = append(k.secrets, l.Text, value, strings.Trim(value, `"'`))
			}
		}
	}
	if lits := item.Find("literals"); lits != nil {
		for _, l := range lits.Items {
			if !strings.Contains(l.Text, "=") {
				k.failAt(l, field, "a literal is not KEY=VALUE", "write  literals: [KEY=VALUE]")
			}
		}
	}
	k.index.add(source{
		kind: kind, namespace: item.Str("namespace"), name: item.Str("name"), value: item, at: k.at(k.file),
		patch: item.Str("behavior") == "merge" || item.Str("behavior") == "replace",
	})
	for _, key := range []string{"files", "envs", "env"} {
		v := item.Find(key)
		if v == nil {
			continue
		}
		for _, entry := range slices.Concat([]*manifest.Value{v}, v.Items) {
			if entry.Kind == manifest.String {
				k.opaque(field, entry, kind == "Secret")
			}
		}
	}
}

// opaque is a file whose content is not looked at; "key=path" names the key.
func (k *kustomization) opaque(field string, v *manifest.Value, secret bool) {
	named := *v
	if key, p, ok := strings.Cut(v.Text, "="); ok && !strings.Contains(key, "/") {
		named.Text = p
	}
	p, ok := k.local(field, &named)
	if !ok || !k.inside(field, v, p) {
		return
	}
	raw, ok := k.load(p, k.mark(k.file, v))
	if _, hidden := k.overrides[p]; hidden || ok && sopsOther(raw) {
		k.failAt(v, field, k.real(p)+" is encrypted, and a generator's files can't be", "encrypt a Secret's own manifest, and name it under resources")
		return
	}
	if ok && secret {
		for line := range strings.Lines(string(raw)) {
			line = strings.TrimSpace(line)
			_, value, _ := strings.Cut(line, "=")
			k.secrets = append(k.secrets, line, value)
		}
	}
}

// secretValues remembers the values of a Secret, so that no message of
// kustomize can quote them.
func (k *kustomization) secretValues(doc *manifest.Value) {
	if doc.Str("kind") != "Secret" {
		return
	}
	for _, key := range []string{"data", "stringData"} {
		if m := doc.Find(key); m != nil {
			for _, f := range m.Fields {
				k.secrets = append(k.secrets, f.Value.Text)
			}
		}
	}
}

// plugin is an entry of generators, transformers or validators: YAML in place,
// a file, or a kustomization. Only kustomize's builtin ones run.
func (k *kustomization) plugin(field string, v *manifest.Value) {
	if strings.ContainsAny(v.Text, "\n{") {
		docs, problems := manifest.Parse(k.mark(k.file, nil), []byte(v.Text))
		for _, p := range problems {
			p.At.Line, p.At.Col = k.inlineLine(v, p.At.Line), 0
			k.problems = append(k.problems, p)
		}
		for _, doc := range docs {
			k.pluginConfig(field, doc, k.mark(k.file, v))
		}
		return
	}
	p, ok := k.local(field, v)
	switch {
	case !ok:
	case k.isDir(p):
		k.base(field, v, p, false)
	default:
		k.yaml(field, v, func(doc *manifest.Value, at state.Origin) {
			at.Line = doc.Line
			k.pluginConfig(field, doc, k.index.seenFrom(at))
		})
	}
}

// builtinPlugins are kustomize's own, without those that run other programs.
func builtinPlugins() []string {
	return []string{
		"AnnotationsTransformer", "ConfigMapGenerator", "HashTransformer", "IAMPolicyGenerator", "ImageTagTransformer", "LabelTransformer", "NamespaceTransformer",
		"PatchJson6902Transformer", "PatchStrategicMergeTransformer", "PatchTransformer", "PrefixTransformer", "PrefixSuffixTransformer",
		"ReplacementTransformer", "ReplicaCountTransformer", "SecretGenerator", "SuffixTransformer", "ValueAddTransformer", "SortOrderTransformer",
	}
}

func (k *kustomization) pluginConfig(field string, doc *manifest.Value, at state.Origin) {
	kind := doc.Str("kind")
	annotations := doc.Find("metadata").Find("annotations")
	if annotations.Find("config.kubernetes.io/function") != nil || annotations.Find("config.k8s.io/function") != nil {
		k.fail(at, field, "a function would run a container or a program", "use what kustomize has built in, or commit the function's output")
		return
	}
	if doc.Str("apiVersion") == "builtin" && kind == "HelmChartInflationGenerator" {
		k.fail(at, field, "a generator for a Helm chart would run helm", "name the chart under helmCharts")
		return
	}
	if doc.Str("apiVersion") != "builtin" || !slices.Contains(builtinPlugins(), kind) {
		k.fail(at, field, "plugin "+doc.Str("apiVersion")+" "+kind+" would run a program", "use what kustomize has built in, or commit the plugin's output")
		return
	}
	k.pluginPaths(field, doc, at, kind == "SecretGenerator")
}

// pluginPaths visits every path that a builtin plugin's configuration names.
func (k *kustomization) pluginPaths(field string, v *manifest.Value, at state.Origin, secret bool) {
	for _, f := range v.Fields {
		switch strings.ToLower(f.Key) { // as kustomize decodes it
		case "path", "paths", "files", "envs", "env":
			for _, entry := range slices.Concat([]*manifest.Value{f.Value}, f.Value.Items) {
				if entry.Kind == manifest.String && !strings.ContainsAny(entry.Text, "\n{") && !jsonPointer(entry.Text) {
					placed := *entry
					placed.Line, placed.Col = at.Line, 0
					k.opaque(field, &placed, secret)
				}
			}
		case "fieldspecs", "target", "targets", "source":
			// path is a field of an object there
		default:
			k.pluginPaths(field, f.Value, at, secret)
		}
	}
	for _, item := range v.Items {
		k.pluginPaths(field, item, at, secret)
	}
}

func jsonPointer(s string) bool { return strings.HasPrefix(s, "/") && path.Ext(s) == "" }

// deprecated are fields that kustomize would rather not have, and what is to be
// used in their place. They mean what kustomize makes of them.
func deprecated() map[string]string {
	return map[string]string{
		"bases": "resources", "imageTags": "images", "commonLabels": "labels", "patchesStrategicMerge": "patches", "patchesJson6902": "patches", "vars": "replacements",
	}
}

// warnDeprecated names the deprecated fields: kustomize's own words about them go
// nowhere.
func (k *kustomization) warnDeprecated() {
	for i := range k.value.Fields {
		f := &k.value.Fields[i]
		if instead := deprecated()[f.Key]; instead != "" {
			k.warnings = append(k.warnings, state.Problem{
				At: k.mark(k.file, &manifest.Value{Line: f.Line, Col: f.Col}), Field: f.Key, Cause: "is deprecated in kustomize", Remedy: "use " + instead + " (kustomize edit fix)",
			})
		}
	}
}
