package overlay

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// merger makes one list of objects of both operating systems' renders. b is nil
// where there is one render.
type merger struct {
	*run
	a, b  *half
	pairs []string // directories
}

func (m *merger) objects() []*state.Object {
	refs := slices.Clone(m.a.order)
	if m.b != nil {
		refs = append(refs, m.b.order...)
	}
	slices.SortFunc(refs, state.Ref.Compare)
	refs = slices.Compact(refs)
	differ := map[string]*difference{}
	shared := 0
	var out []*state.Object
	for _, ref := range refs {
		a := m.a.objects[ref]
		var b *decoded
		if m.b != nil {
			b = m.b.objects[ref]
		}
		switch {
		case m.b == nil:
			out = append(out, one(a, workloadOS(a.body)))
		case b == nil:
			out = append(out, one(a, m.onlyIn(a, m.a.os)))
		case a == nil:
			out = append(out, one(b, m.onlyIn(b, m.b.os)))
		case a.digest == b.digest:
			shared++
			out = append(out, one(a, workloadOS(a.body)))
		default:
			shared++
			if o := m.variants(a, b, differ); o != nil {
				out = append(out, o)
			}
		}
	}
	if m.b != nil && shared == 0 && len(m.a.order) > 0 && len(m.b.order) > 0 {
		m.warnings = append(m.warnings, state.Problem{
			At: m.otherFile(), Cause: "the renders of linux and windows share no object: there will be two of everything", Remedy: "give objects the same name in both (no nameSuffix in a variant)",
		})
	}
	m.reportDifferences(differ)
	return out
}

func (m *merger) apps() []state.Application {
	apps := slices.Clone(m.a.apps)
	if m.b != nil {
		apps = append(apps, m.b.apps...)
	}
	slices.SortStableFunc(apps, func(a, b state.Application) int { return strings.Compare(string(a.Name), string(b.Name)) })
	var out []state.Application
	for _, app := range apps {
		if n := len(out); n > 0 && out[n-1].Name == app.Name {
			if out[n-1].At != app.At {
				m.problems = append(m.problems, state.Problem{
					Object: state.Ref{Kind: "Application", Name: string(app.Name)}, At: app.At, Cause: fmt.Sprintf("is there twice; the first is at %s", out[n-1].At), Remedy: "remove one of them",
				})
			}
			continue
		}
		out = append(out, app)
	}
	m.circles(out)
	return out
}

// circles finds Applications that depend on themselves through others: they
// would wait for each other for ever.
func (m *merger) circles(apps []state.Application) {
	deps := map[state.AppName][]state.AppName{}
	for i := range apps {
		deps[apps[i].Name] = apps[i].DependsOn
	}
	told := map[string]bool{}
	for i := range apps {
		way := wayBack(deps, apps[i].Name)
		members := strings.Split(way, " → ")[1:]
		slices.Sort(members)
		if circle := strings.Join(members, " "); way != "" && !told[circle] {
			told[circle] = true
			m.problems = append(m.problems, state.Problem{
				Object: state.Ref{Kind: "Application", Name: string(apps[i].Name)}, Field: "spec.dependsOn", At: apps[i].At,
				Cause: "depends on itself: " + way, Remedy: "take one of them out of the other's dependsOn",
			})
		}
	}
}

// wayBack is the shortest way by which a name leads to itself: "a → b → a"; ""
// where none does.
func wayBack(deps map[state.AppName][]state.AppName, name state.AppName) string {
	from := map[state.AppName]state.AppName{}
	next := []state.AppName{name}
	for len(next) > 0 {
		at := next[0]
		next = next[1:]
		for _, d := range deps[at] {
			if d == name {
				way := string(name)
				for ; at != name; at = from[at] {
					way = string(at) + " → " + way
				}
				return string(name) + " → " + way
			}
			if _, seen := from[d]; !seen {
				from[d] = at
				next = append(next, d)
			}
		}
	}
	return ""
}

func one(d *decoded, os state.OS) *state.Object {
	return &state.Object{Ref: d.ref, Variants: []state.Variant{{OS: os, Body: d.body, Digest: d.digest, Origin: d.at}}}
}

func podTemplate(b state.Body) *corev1.PodTemplateSpec {
	switch o := b.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	}
	return nil
}

func workloadOS(b state.Body) state.OS {
	if t := state.TemplateOf(b); t != nil {
		return manifest.TemplateOS(&t.Spec)
	}
	return state.AnyOS
}

// onlyIn is the OS of an object that one render alone has.
func (m *merger) onlyIn(d *decoded, os state.OS) state.OS {
	said := workloadOS(d.body)
	if said != state.AnyOS && said != os {
		m.problems = append(m.problems, state.Problem{
			Object: d.ref, At: d.at, Cause: fmt.Sprintf("only the %s render has it, but it says that its OS is %s", os, said), Remedy: "move it out of " + string(os) + "/, or correct spec.template.spec.os",
		})
	}
	return os
}

// variants makes one workload of two, or says why it can't.
func (m *merger) variants(a, b *decoded, differ map[string]*difference) *state.Object {
	paths := differences(a.body, b.body)
	once := slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return saidPerVariant(a.ref.Kind, p) })
	if podTemplate(a.body) == nil {
		once = paths
	}
	if len(once) > 0 {
		var leaves []string
		for _, p := range once {
			leaves = append(leaves, leaf(p))
		}
		slices.Sort(leaves)
		key := strings.Join(slices.Compact(leaves), " ")
		if differ[key] == nil {
			differ[key] = &difference{}
		}
		differ[key].add(a.ref, once)
		return nil
	}
	osA, osB := podOSName(a.body), podOSName(b.body)
	for _, s := range []struct {
		h   *half
		own state.OS
	}{{m.a, osA}, {m.b, osB}} {
		if s.own == s.h.os {
			continue
		}
		says := "does not say its OS"
		if s.own != state.AnyOS {
			says = "says that its OS is " + string(s.own)
		}
		m.problems = append(m.problems, state.Problem{
			Object: a.ref, At: m.file(s.h.os), Cause: fmt.Sprintf("differs between linux and windows, but %s %s", s.h.os, says),
			Remedy: fmt.Sprintf("add to the patch  spec: {template: {spec: {os: {name: %s}}}}", s.h.os),
		})
	}
	if osA != m.a.os || osB != m.b.os {
		return nil
	}
	m.ordinals(a, b)
	variants := []state.Variant{
		{OS: osA, Body: a.body, Digest: a.digest, Origin: a.at},
		{OS: osB, Body: b.body, Digest: b.digest, Origin: b.at},
	}
	slices.SortFunc(variants, func(x, y state.Variant) int { return strings.Compare(string(x.OS), string(y.OS)) })
	return &state.Object{Ref: a.ref, Variants: variants}
}

func podOSName(b state.Body) state.OS {
	if t := podTemplate(b); t.Spec.OS != nil {
		return state.OS(t.Spec.OS.Name)
	}
	return state.AnyOS
}

// ordinals refuses StatefulSet variants whose ordinals overlap: they share one
// order and one identity.
func (m *merger) ordinals(a, b *decoded) {
	sa, ok := a.body.(*appsv1.StatefulSet)
	sb, okB := b.body.(*appsv1.StatefulSet)
	if !ok || !okB {
		return
	}
	startA, endA := ordinalRange(sa)
	startB, endB := ordinalRange(sb)
	if startA < endB && startB < endA {
		m.problems = append(m.problems, state.Problem{
			Object: a.ref, Field: "spec.ordinals.start", At: m.otherFile(),
			Cause:  fmt.Sprintf("ordinals overlap: %s has %d to %d, %s has %d to %d", m.a.os, startA, endA-1, m.b.os, startB, endB-1),
			Remedy: fmt.Sprintf("set spec.ordinals.start of the %s variant to %d or more", m.b.os, endA),
		})
	}
}

func ordinalRange(s *appsv1.StatefulSet) (start, end int32) {
	if s.Spec.Ordinals != nil {
		start = s.Spec.Ordinals.Start
	}
	return start, start + *s.Spec.Replicas
}

// saidPerVariant lists what each variant of a workload may say for itself.
func saidPerVariant(kind, path string) bool {
	return path == "spec.replicas" || strings.HasPrefix(path, "spec.template.") || (kind == "StatefulSet" && strings.HasPrefix(path, "spec.ordinals"))
}

// difference is one cause for which objects differ.
type difference struct {
	refs  []state.Ref
	paths []string
}

func (d *difference) add(ref state.Ref, paths []string) {
	d.refs = append(d.refs, ref)
	for _, p := range paths {
		if !slices.Contains(d.paths, p) {
			d.paths = append(d.paths, p)
		}
	}
}

func (m *merger) reportDifferences(differ map[string]*difference) {
	for _, key := range slices.Sorted(maps.Keys(differ)) {
		d := differ[key]
		slices.Sort(d.paths)
		var names []string
		for _, ref := range d.refs {
			names = append(names, ref.String())
		}
		object, who := d.refs[0], ""
		if len(names) > 1 {
			object, who = state.Ref{}, list(names)+" "
		}
		verb := "differs"
		if len(names) > 1 {
			verb = "differ"
		}
		shown := d.paths
		if len(shown) > 5 {
			shown = append(slices.Clone(shown[:5]), "…")
		}
		m.problems = append(m.problems, state.Problem{
			Object: object, At: m.otherFile(),
			Cause:  fmt.Sprintf("%s%s between linux and windows in %s, which is said once for both", who, verb, strings.Join(shown, ", ")),
			Remedy: "say it outside linux/ and windows/; what differs by OS goes on the template (a patch), or under a name of its own",
		})
	}
}

func list(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// file is where an OS's side is written: the kustomization of the last pair.
func (m *merger) file(os state.OS) state.Origin {
	at := state.Origin{Path: m.path, Revision: m.snap.Revision}
	for _, dir := range m.pairs {
		for _, name := range kustomizationNames() {
			p := path.Join(dir, string(os), name)
			if info, err := m.snap.FS.Stat(p); err == nil && !info.IsDir() {
				at.Path = p
				return at
			}
		}
	}
	return at
}

func (m *merger) otherFile() state.Origin { return m.file(m.b.os) }

// differences are the paths in which two bodies differ, sorted.
func differences(a, b state.Body) []string {
	var va, vb any
	for _, s := range []struct {
		body state.Body
		into *any
	}{{a, &va}, {b, &vb}} {
		raw, err := json.Marshal(s.body)
		if err == nil {
			err = json.Unmarshal(raw, s.into)
		}
		if err != nil {
			return []string{"its JSON"}
		}
	}
	var out []string
	diff("", va, vb, &out)
	slices.Sort(out)
	return out
}

func diff(at string, a, b any, out *[]string) {
	ma, okA := a.(map[string]any)
	mb, okB := b.(map[string]any)
	if okA && okB {
		keys := slices.Sorted(maps.Keys(ma))
		for k := range mb {
			if _, ok := ma[k]; !ok {
				keys = append(keys, k)
			}
		}
		for _, k := range keys {
			p := k
			switch {
			case at != "" && k != "matchLabels" && (strings.ContainsAny(k, "./") || labelMap(at)):
				p = at + "[" + k + "]"
			case at != "":
				p = at + "." + k
			}
			diff(p, ma[k], mb[k], out)
		}
		return
	}
	ra, errA := json.Marshal(a)
	rb, errB := json.Marshal(b)
	if errA != nil || errB != nil || string(ra) != string(rb) {
		*out = append(*out, leaves(at, a, b)...)
	}
}

// leaves names the keys below a mapping that one side alone has.
func leaves(at string, a, b any) []string {
	m, ok := a.(map[string]any)
	if a == nil {
		m, ok = b.(map[string]any)
	}
	if !ok || (a != nil && b != nil) || !labelMap(at) {
		return []string{at}
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, at+"["+k+"]")
	}
	return out
}

// labelMap says whether a path's keys are people's own.
func labelMap(at string) bool {
	for _, end := range []string{"labels", "annotations", "matchLabels", "selector", "data", "binaryData"} {
		if at == end || strings.HasSuffix(at, "."+end) {
			return true
		}
	}
	return false
}

// leaf is the last key of a path: what one cause changes in many objects.
func leaf(p string) string {
	if i := strings.LastIndex(p, "["); i >= 0 {
		return p[i:]
	}
	return p[strings.LastIndex(p, ".")+1:]
}
