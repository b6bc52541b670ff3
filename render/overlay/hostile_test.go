package overlay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/rendertest"
)

const (
	configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"
	component = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
)

// TestHostileTrees: what a repository can hold to lead a render astray or to wear
// it out is a problem that says what is wrong, soon.
func TestHostileTrees(t *testing.T) {
	deep := map[string]string{"kustomization.yaml": "resources: [d]\n"}
	for i := range MaxNesting + 1 {
		at := strings.TrimSuffix(strings.Repeat("d/", i+1), "/")
		deep[at+"/kustomization.yaml"] = "resources: [d]\n"
	}
	wide := map[string]string{"kustomization.yaml": "resources:\n", "leaf/kustomization.yaml": "resources: [a.yaml]\n", "leaf/a.yaml": configMap}
	for i := range MaxDirectories {
		wide["kustomization.yaml"] += fmt.Sprintf("- d%d\n", i)
		wide[fmt.Sprintf("d%d/kustomization.yaml", i)] = fmt.Sprintf("resources: [../leaf]\nnamePrefix: n%d-\n", i)
	}
	var many strings.Builder
	for i := range MaxObjects + 1 {
		fmt.Fprintf(&many, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\n", i)
	}
	big := map[string]string{}
	for i := range MaxReadBytes/(3<<20) + 1 {
		big[fmt.Sprintf("%d.yaml", i)] = "# " + strings.Repeat("x", 3<<20) + "\n" + strings.Replace(configMap, "name: c", fmt.Sprintf("name: c%d", i), 1)
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a resource names itself":   {map[string]string{"kustomization.yaml": "resources: [.]\n"}, "cycle"},
		"resources in a circle":     {map[string]string{"kustomization.yaml": "resources: [a]\n", "a/kustomization.yaml": "resources: [../b]\n", "b/kustomization.yaml": "resources: [../a]\n"}, "cycle"},
		"a component names itself":  {map[string]string{"kustomization.yaml": "components: [c]\n", "c/kustomization.yaml": component + "components: [../c]\n"}, "cycle"},
		"components in a circle":    {map[string]string{"kustomization.yaml": "components: [c]\n", "c/kustomization.yaml": component + "components: [../d]\n", "d/kustomization.yaml": component + "components: [../c]\n"}, "cycle"},
		"nested too deep":           {deep, "nests them deeper than 64"},
		"too many kustomizations":   {wide, "more than 2000 kustomizations"},
		"too many objects":          {map[string]string{"kustomization.yaml": "resources: [a.yaml]\n", "a.yaml": many.String()}, "more than"},
		"too many bytes":            {big, "more than 67108864 bytes"},
		"a file above the tree":     {map[string]string{"kustomization.yaml": "resources: [../../etc/passwd]\n"}, "leads out of the tree"},
		"an absolute file":          {map[string]string{"kustomization.yaml": "resources: [/etc/passwd]\n"}, "absolute"},
		"a generator reads outside": {map[string]string{"kustomization.yaml": "configMapGenerator: [{name: c, files: [a=/etc/passwd]}]\n"}, "absolute"},
		"a generator goes up":       {map[string]string{"kustomization.yaml": "configMapGenerator: [{name: c, files: [../../etc/passwd]}]\n"}, "leads out of the tree"},
		"a generator asks the host": {map[string]string{"kustomization.yaml": "configMapGenerator: [{name: c, env: HOME}]\n"}, "HOME"},
		"a patch from outside":      {map[string]string{"kustomization.yaml": "resources: [a.yaml]\npatches: [{path: https://evil.example/p.yaml}]\n", "a.yaml": configMap}, "remote"},
		"a git resource":            {map[string]string{"kustomization.yaml": "resources: [\"git@evil.example:a/b\"]\n"}, "remote"},
		"a git resource by ext":     {map[string]string{"kustomization.yaml": "resources: [\"ext::sh -c touch% /tmp/x\"]\n"}, "remote"},
		"a file URL":                {map[string]string{"kustomization.yaml": "resources: [\"file:///etc\"]\n"}, "remote"},
		"a path of Windows":         {map[string]string{"kustomization.yaml": "resources: ['C:\\Windows\\a.yaml']\n"}, "remote"},
		"a share of Windows":        {map[string]string{"kustomization.yaml": "resources: ['\\\\evil\\share\\a.yaml']\n"}, "no file or directory"},
		"an exec function": {
			map[string]string{"kustomization.yaml": "transformers: [f.yaml]\n", "f.yaml": "apiVersion: x/v1\nkind: F\nmetadata:\n  name: f\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {path: ./f.sh}\n"},
			"function",
		},
		"a container function": {
			map[string]string{"kustomization.yaml": "generators: [f.yaml]\n", "f.yaml": "apiVersion: x/v1\nkind: F\nmetadata:\n  name: f\n  annotations:\n    config.kubernetes.io/function: |\n      container: {image: evil}\n"},
			"function",
		},
		"a replacement of the kind":  {map[string]string{"kustomization.yaml": "resources: [a.yaml]\nreplacements:\n- source: {kind: ConfigMap, fieldPath: data.a}\n  targets: [{select: {kind: ConfigMap}, fieldPaths: [kind]}]\n", "a.yaml": configMap}, "does not run kind b"},
		"a replacement of the name":  {map[string]string{"kustomization.yaml": "resources: [a.yaml]\nreplacements:\n- source: {kind: ConfigMap, fieldPath: data.a}\n  targets: [{select: {kind: ConfigMap}, fieldPaths: [metadata.name]}]\n", "a.yaml": strings.Replace(configMap, "a: b", "a: ../x", 1)}, "metadata.name"},
		"a replacement of the owner": {map[string]string{"kustomization.yaml": "resources: [a.yaml]\nreplacements:\n- source: {kind: ConfigMap, fieldPath: data.a}\n  targets: [{select: {kind: ConfigMap}, fieldPaths: [metadata.generateName], options: {create: true}}]\n", "a.yaml": configMap}, "generateName"},
		"a pointer to Git LFS":       {map[string]string{"a.yaml": lfsPointer}, "Git LFS"},
		"a pointer to LFS, named":    {map[string]string{"kustomization.yaml": "configMapGenerator: [{name: c, files: [a.bin]}]\n", "a.bin": lfsPointer}, "Git LFS"},
		"a host-process container": {
			map[string]string{"a.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  os: {name: windows}\n  securityContext: {windowsOptions: {hostProcess: true}}\n  containers: [{name: c, image: evil.example/x:1}]\n"},
			"hostProcess",
		},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			res := mustRender(t, rendertest.FromFiles(c.files), state.Application{Name: "test"})
			if res.Manifest != nil || !strings.Contains(fmt.Sprint(res.Problems), c.want) {
				t.Errorf("want a problem with %q, got %d problems: %.2000v", c.want, len(res.Problems), res.Problems)
			}
			if took := time.Since(began); took > MaxTime {
				t.Errorf("took %s", took)
			}
		})
	}
}

const lfsPointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"

// TestSurprisingScalars: what one reader of YAML takes for a text and another for
// something else is asked for in quotes, each at its place.
func TestSurprisingScalars(t *testing.T) {
	for _, v := range []string{"on", "off", "yes", "no", "true", "0o7", "010", "0x1f", "1e3", "1_000", "1.0", ".inf"} {
		res := mustRender(t, rendertest.FromFiles(map[string]string{"a.yaml": strings.Replace(configMap, "a: b", "a: "+v, 1)}), state.Application{Name: "test"})
		if len(res.Problems) != 1 || !strings.Contains(res.Problems[0].Cause, "want a string, got "+v) || res.Problems[0].At.Line != 4 {
			t.Errorf("%s: got %v", v, res.Problems)
		}
		res = mustRender(t, rendertest.FromFiles(map[string]string{"a.yaml": strings.Replace(configMap, "a: b", "a: '"+v+"'", 1)}), state.Application{Name: "test"})
		if len(res.Problems) != 0 {
			t.Errorf("'%s': got %v", v, res.Problems)
		}
	}
}

// TestNamesThatDifferByCase: a tree is Git's, not this machine's: files whose names
// differ by case alone are two, on every system.
func TestNamesThatDifferByCase(t *testing.T) {
	res := mustRender(t, rendertest.FromFiles(map[string]string{"a.yaml": configMap, "A.yaml": strings.Replace(configMap, "name: c", "name: d", 1)}), state.Application{Name: "test"})
	if res.Manifest == nil || len(res.Manifest.Objects) != 2 {
		t.Errorf("got %v", res)
	}
}
