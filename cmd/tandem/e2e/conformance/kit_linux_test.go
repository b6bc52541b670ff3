package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// A check is one case of Kubernetes's conformance suite, or of its node tests,
// under its name there.
type check struct {
	name string
	run  func(k *kit)
}

// A kit is what a check works with: an Application and a namespace of its own.
type kit struct {
	*testing.T

	c     *cluster
	ns    string
	files int
}

func (k *kit) dir() string { return filepath.Join(k.c.root, "checks", k.ns) }

// apply commits objects, written as YAML. Each call adds a file.
func (k *kit) apply(objects ...string) {
	k.Helper()
	k.files++
	k.write(fmt.Sprintf("%d.yaml", k.files), strings.Join(objects, "\n---\n"))
}

// write puts a file into the Application's directory, whole.
func (k *kit) write(name, text string) {
	k.Helper()
	path := filepath.Join(k.dir(), name)
	if err := os.MkdirAll(k.dir(), 0o755); err != nil {
		k.Fatal(err)
	}
	// Beside the root first, so that nobody reads half of it.
	next := filepath.Join(k.c.dir, k.ns+"-"+name)
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		k.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		k.Fatal(err)
	}
}

// pod writes a Pod of one container; change makes it what the check needs.
func (k *kit) pod(name string, change func(p *corev1.Pod, c *corev1.Container)) string {
	k.Helper()
	one := int64(1)
	p := &corev1.Pod{}
	p.APIVersion, p.Kind, p.Name = "v1", "Pod", name
	p.Labels = map[string]string{"app": name}
	p.Spec.TerminationGracePeriodSeconds = &one
	p.Spec.Containers = []corev1.Container{{Name: "main", Image: box, Command: []string{"/bin/sh", "-c", idle}}}
	if change != nil {
		change(p, &p.Spec.Containers[0])
	}
	return k.yaml(p)
}

// idle keeps a shell alive until it is asked to end.
const idle = "trap exit TERM; while :; do sleep 3600 & wait; done"

// sh makes a container run a script.
func sh(c *corev1.Container, script string) { c.Command = []string{"/bin/sh", "-c", script} }

func (k *kit) yaml(object any) string {
	k.Helper()
	raw, err := json.Marshal(object)
	if err == nil {
		var tree map[string]any
		if err = json.Unmarshal(raw, &tree); err == nil {
			delete(tree, "status")
			if raw, err = yaml.Marshal(prune(tree)); err == nil {
				return string(raw)
			}
		}
	}
	k.Fatal(err)
	return ""
}

// prune drops what Go's types write though nobody said it.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, x := range v {
			if x == nil {
				delete(v, key)
				continue
			}
			x = prune(x)
			if m, ok := x.(map[string]any); ok && len(m) == 0 && (key == "resources" || key == "strategy" || key == "updateStrategy") {
				delete(v, key)
			}
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return v
}

// until waits for a pod to be as it should; is says how it is instead.
func (k *kit) until(name, what string, is func(p *corev1.Pod) bool) *corev1.Pod {
	k.Helper()
	return k.untilIn(patience, name, what, is)
}

func (k *kit) untilIn(limit time.Duration, name, what string, is func(p *corev1.Pod) bool) *corev1.Pod {
	k.Helper()
	end := time.After(limit)
	a := k.c.api
	for {
		a.mu.Lock()
		p, news := a.pods[k.ns+"/"+name], a.news
		a.mu.Unlock()
		if p != nil && is(p) {
			return p
		}
		select {
		case <-news:
		case <-end:
			k.Fatalf("pod %s: not %s after %s:\n%s\n%s", name, what, limit, show(p), k.application())
		}
	}
}

// gone waits until a pod isn't there.
func (k *kit) gone(name string) {
	k.Helper()
	end := time.After(patience)
	a := k.c.api
	for {
		a.mu.Lock()
		p, news := a.pods[k.ns+"/"+name], a.news
		a.mu.Unlock()
		if p == nil {
			return
		}
		select {
		case <-news:
		case <-end:
			k.Fatalf("pod %s is still there:\n%s", name, show(p))
		}
	}
}

// list waits until the pods with a label are as they should, sorted by name.
func (k *kit) list(app, what string, are func(pods []*corev1.Pod) bool) []*corev1.Pod {
	k.Helper()
	end := time.After(patience)
	a := k.c.api
	for {
		var pods []*corev1.Pod
		a.mu.Lock()
		for _, p := range a.pods {
			if p.Namespace == k.ns && p.Labels["app"] == app {
				pods = append(pods, p)
			}
		}
		news := a.news
		a.mu.Unlock()
		slices.SortFunc(pods, func(x, y *corev1.Pod) int { return strings.Compare(x.Name, y.Name) })
		if are(pods) {
			return pods
		}
		select {
		case <-news:
		case <-end:
			var texts []string
			for _, p := range pods {
				texts = append(texts, show(p))
			}
			k.Fatalf("pods of %s: not %s:\n%s\n%s", app, what, strings.Join(texts, "\n"), k.application())
		}
	}
}

// show is what matters of a pod in a failure.
func show(p *corev1.Pod) string {
	if p == nil {
		return "there is no such pod"
	}
	raw, err := yaml.Marshal(map[string]any{"name": p.Name, "node": p.Spec.NodeName, "status": p.Status, "deleted": p.DeletionTimestamp})
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// application is what the controller says of the check's Application.
func (k *kit) application() string {
	text, err := k.c.api.text(context.WithoutCancel(k.Context()), "/apis/tandem.dev/v1/applications/"+k.ns, nil)
	if err != nil {
		return err.Error()
	}
	raw, err := yaml.JSONToYAML([]byte(text))
	if err != nil {
		return text
	}
	return string(raw)
}

func ready(p *corev1.Pod) bool { return condition(p, corev1.PodReady) && p.DeletionTimestamp == nil }

func condition(p *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func phase(want corev1.PodPhase) func(p *corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == want }
}

// ready waits until a pod is ready.
func (k *kit) ready(name string) *corev1.Pod {
	k.Helper()
	return k.until(name, "ready", ready)
}

// ends waits until a pod has ended, and returns its log.
func (k *kit) ends(name string, how corev1.PodPhase) string {
	k.Helper()
	k.until(name, string(how), phase(how))
	return k.logs(name, nil)
}

func status(p *corev1.Pod, container string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == container {
				return &list[i]
			}
		}
	}
	return &corev1.ContainerStatus{}
}

func (k *kit) logs(pod string, q url.Values) string {
	k.Helper()
	text, err := k.c.api.text(k.Context(), "/api/v1/namespaces/"+k.ns+"/pods/"+pod+"/log", q)
	if err != nil {
		k.Fatal(err)
	}
	return text
}

// says waits until a pod's log is as wanted: output may come after readiness.
func (k *kit) says(pod, want string, q url.Values) {
	k.Helper()
	end := time.After(patience)
	for {
		got, err := k.c.api.text(k.Context(), "/api/v1/namespaces/"+k.ns+"/pods/"+pod+"/log", q)
		if err == nil && got == want {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond): // between two questions
		case <-end:
			k.Fatalf("log of %s: got %q (%v), want %q", pod, got, err, want)
		}
	}
}

// exec runs a script in a pod; it must succeed.
func (k *kit) exec(pod, script string) string {
	k.Helper()
	out, code, err := k.c.api.exec(k.Context(), k.ns, pod, "", nil, "/bin/sh", "-c", script)
	if err != nil || code != 0 {
		k.Fatalf("in %s: %s: exit code %d, %v\n%s", pod, script, code, err, out)
	}
	return strings.TrimSpace(out)
}

// eventually runs a script in a pod until it prints what is wanted.
func (k *kit) eventually(pod, script string, want func(out string) bool) string {
	k.Helper()
	end := time.After(patience)
	var last string
	for {
		out, code, err := k.c.api.exec(k.Context(), k.ns, pod, "", nil, "/bin/sh", "-c", script)
		last = fmt.Sprintf("%s (exit code %d, %v)", out, code, err)
		if err == nil && code == 0 && want(strings.TrimSpace(out)) {
			return strings.TrimSpace(out)
		}
		select {
		case <-time.After(100 * time.Millisecond): // between two questions
		case <-end:
			k.Fatalf("in %s: %s: last %s", pod, script, last)
		}
	}
}

func is(want string) func(string) bool { return func(out string) bool { return out == want } }

// equal compares what was found with what was wanted.
func (k *kit) equal(what, got, want string) {
	k.Helper()
	if got != want {
		k.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// contains wants each text in what was found.
func (k *kit) contains(what, got string, want ...string) {
	k.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			k.Errorf("%s: got\n%s\nwant in it: %q", what, got, w)
		}
	}
}

// eventuallyHeld waits until the Application says that it is held because of
// something.
func (k *kit) eventuallyHeld(why string) {
	k.Helper()
	end := time.After(patience)
	for {
		text := k.application()
		if strings.Contains(text, why) {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond): // between two questions
		case <-end:
			k.Fatalf("not held because of %q:\n%s", why, text)
		}
	}
}
