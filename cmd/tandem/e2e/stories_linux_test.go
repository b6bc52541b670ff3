package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// toldIn is where the machine's stories lie, and UPSTREAM.md with Kubernetes's names.
const toldIn = "../../../reconciler/testdata"

// A scene is a command of a story, what it is given, and what it printed.
type scene struct{ command, given, said string }

// scenes reads a story.
func scenes(t *testing.T, name string) (out []scene) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(toldIn, name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	var s scene
	part := 0
	flush := func() {
		if s.command != "" {
			out = append(out, s)
		}
		s, part = scene{}, 0
	}
	for line := range strings.Lines(string(text)) {
		switch bare := strings.TrimSuffix(line, "\n"); {
		case part == 0 && (bare == "" || strings.HasPrefix(bare, "#")):
		case part == 0:
			s.command, part = bare, 1
		case part == 1 && bare == "----":
			part = 2
		case part == 1:
			s.given += line
		case bare == "":
			flush()
		default:
			s.said += line
		}
	}
	flush()
	return out
}

// listed reads testdata/stories.txt: which stories are played here, and why the
// others aren't.
func listed(t *testing.T) (played []string, left map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "stories.txt"))
	if err != nil {
		t.Fatal(err)
	}
	left = map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, why, _ := strings.Cut(lines.Text(), " ")
		switch {
		case name == "" || name == "#":
		case why == "played":
			played = append(played, name)
		default:
			left[name] = strings.TrimPrefix(why, "left: ")
		}
	}
	return played, left
}

// TestStoriesAreListed: each of Kubernetes's cases has a story that is played on
// real containers, or a reason why it isn't.
func TestStoriesAreListed(t *testing.T) {
	played, left := listed(t)
	list, err := os.ReadFile(filepath.Join(toldIn, "UPSTREAM.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range regexp.MustCompile("(?m)^- .+: `(.+)`$").FindAllStringSubmatch(string(list), -1) {
		all = append(all, m[1])
	}
	scheduling, _ := filepath.Glob(filepath.Join(toldIn, "e2e_scheduling_*.txt"))
	for _, file := range scheduling {
		all = append(all, strings.TrimSuffix(filepath.Base(file), ".txt"))
	}
	for _, story := range all {
		if !slices.Contains(played, story) && left[story] == "" {
			t.Errorf("%s is neither played on real containers nor left out for a reason: add it to testdata/stories.txt", story)
		}
	}
	for story := range left {
		if slices.Contains(played, story) || !slices.Contains(all, story) {
			t.Errorf("%s is left out, but is played too, or is none of the cases", story)
		}
	}
	for _, story := range played {
		checks, quiet := 0, false
		for _, s := range scenes(t, story) {
			switch verb, _, _ := strings.Cut(s.command, " "); verb {
			case "pods":
				if quiet {
					checks++
				}
			case "settle":
				quiet = true
			case "commit":
				quiet = false
			case "node", "agents", "history", "objects", "count", "holds":
			default:
				t.Errorf("%s: real containers know no %q", story, s.command)
			}
		}
		if checks == 0 {
			t.Errorf("%s shows no pods of a moment that lasts, so nothing is compared", story)
		}
	}
}

var imageNames = regexp.MustCompile(`image: "?([a-z-]+:\d+)"?`)

// A player plays one story in a namespace of its own.
type player struct {
	*run
	name    string
	commits int
}

// TestStoriesOnContainerd plays the machine's stories with real containers: each
// is an Application of one root, all at once on one node. Wherever a story shows
// its pods after it has settled, the same are there with the same images.
func TestStoriesOnContainerd(t *testing.T) {
	r := newBusy(t, "sets")
	played, _ := listed(t)
	played = played[:min(len(played), hosttest.Soak(6, len(played)))]
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	shell, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var root strings.Builder
	for _, story := range played {
		for _, s := range scenes(t, story) {
			for _, m := range imageNames.FindAllStringSubmatch(s.given, -1) {
				seen[m[1]] = true
			}
		}
		p := &player{run: r, name: space(story)}
		fmt.Fprintf(&root, "---\napiVersion: tandem.dev/v1\nkind: Application\nmetadata: {name: %s}\nspec: {path: stories/%s, namespace: %s, prune: {maxDeletes: 1000}}\n", p.name, p.name, p.name)
		p.commit("")
	}
	for name := range seen {
		v := images.Variant{
			OS: state.Linux, Arch: "amd64", Files: []images.File{{Path: "bin/busybox", Mode: 0o755, Data: shell}},
			Entrypoint: []string{"/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do /bin/busybox sleep 1 & wait $!; done"},
		}
		if _, err := images.Write(r.images, images.Spec{Name: name, Variants: []images.Variant{v}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "root.yaml"), []byte(root.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.up()
	t.Run("played", func(t *testing.T) {
		for _, story := range played {
			t.Run(story, func(t *testing.T) {
				t.Parallel()
				mine := *r
				mine.t = t
				(&player{run: &mine, name: space(story)}).play(scenes(t, story))
			})
		}
	})
}

// space is a story's namespace.
func space(story string) string {
	name := strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(story, "e2e_"), "integration_"), "_", "-")
	return strings.TrimRight(name[:min(len(name), 60)], "-")
}

// commit writes a story's objects, and one that says which commit they are of.
func (p *player) commit(objects string) {
	p.t.Helper()
	p.commits++
	dir := filepath.Join(p.dir, "stories", p.name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		p.t.Fatal(err)
	}
	marker := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: story}\ndata: {commit: %q}\n---\n", strconv.Itoa(p.commits))
	next := filepath.Join(p.dir, "."+p.name)
	if err := os.WriteFile(next, []byte(marker+objects), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "all.yaml")); err != nil { // at once, as a commit is
		p.t.Fatal(err)
	}
}

func (p *player) play(story []scene) {
	p.commits = 1
	quiet := false // pods that are shown before a story settles are of a moment that passes
	for _, s := range story {
		switch verb, _, _ := strings.Cut(s.command, " "); {
		case verb == "commit":
			p.commit(s.given)
			quiet = false
		case verb == "settle":
			p.until(p.unsettled)
			quiet = true
		case verb == "pods" && quiet:
			p.until(func() string { return p.differs(s.said) })
		}
	}
}

// unsettled says what is still to come of the last commit.
func (p *player) unsettled() string {
	var marker corev1.ConfigMap
	if err := p.get("/api/v1/namespaces/"+p.name+"/configmaps/story", &marker); err != nil {
		return err.Error()
	}
	if want := strconv.Itoa(p.commits); marker.Data["commit"] != want {
		return fmt.Sprintf("commit %s is applied, want %s", marker.Data["commit"], want)
	}
	var sets appsv1.StatefulSetList
	var deployments appsv1.DeploymentList
	for path, into := range map[string]any{"statefulsets": &sets, "deployments": &deployments} {
		if err := p.get("/apis/apps/v1/namespaces/"+p.name+"/"+path, into); err != nil {
			return err.Error()
		}
	}
	for i := range sets.Items {
		s := &sets.Items[i]
		if s.Status.Replicas != *s.Spec.Replicas || s.Status.ReadyReplicas != *s.Spec.Replicas || s.Status.CurrentRevision != s.Status.UpdateRevision && s.Spec.UpdateStrategy.RollingUpdate != nil && *s.Spec.UpdateStrategy.RollingUpdate.Partition == 0 {
			return fmt.Sprintf("stateful set %s: %+v", s.Name, s.Status)
		}
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		if d.Status.Replicas != *d.Spec.Replicas || d.Status.AvailableReplicas != *d.Spec.Replicas || d.Status.UpdatedReplicas != *d.Spec.Replicas {
			return fmt.Sprintf("deployment %s: %+v", d.Name, d.Status)
		}
	}
	return ""
}

// differs compares the pods that are there with those that a story shows. Only an
// identity has the same name in both.
func (p *player) differs(said string) string {
	var want []string
	for line := range strings.Lines(said) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue // "ok": there are none
		}
		name, _, _ := strings.Cut(f[0], "~")
		want = append(want, strings.Join([]string{name, f[2], f[3]}, " "))
	}
	var pods corev1.PodList
	if err := p.get("/api/v1/namespaces/"+p.name+"/pods", &pods); err != nil {
		return err.Error()
	}
	var got []string
	for i := range pods.Items {
		pod := &pods.Items[i]
		name := pod.Name
		if owner := pod.OwnerReferences; len(owner) == 1 && owner[0].Kind == "ReplicaSet" {
			name = name[:strings.LastIndex(strings.TrimRight(name[:strings.LastIndex(name, "-")], "-"), "-")+1]
		} else if len(owner) == 1 && owner[0].Kind != "StatefulSet" {
			name = name[:strings.LastIndex(name, "-")+1]
		}
		ready := "unready"
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				ready = "ready"
			}
		}
		got = append(got, strings.Join([]string{name, pod.Spec.Containers[0].Image, ready}, " "))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Sprintf("pods\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	return ""
}
