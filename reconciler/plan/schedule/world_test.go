package schedule

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A world is a state that a test builds node by node and pod by pod.
type world struct {
	*state.State
	seq state.Seq
}

func newWorld() *world { return &world{State: state.New(nil)} }

// anyImage runs on both operating systems; what is named big is: 600 MB for
// Linux, 1.28 GB for Windows.
func anyImage(name string) state.Image {
	im := state.Image{Name: name, Index: state.DigestOf([]byte(name)), Platforms: []state.Platform{
		{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte(name + "linux"))},
		{OS: state.Windows, Arch: "amd64", OSVersion: "10.0.20348.587", Digest: state.DigestOf([]byte(name + "windows"))},
	}}
	if strings.Contains(name, "big") {
		im.Platforms[0].Size, im.Platforms[1].Size = 600<<20, 1280<<20
	}
	return im
}

func runs(image string) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) { t.Spec.Containers[0].Image = image }
}

func (w *world) node(name string, change ...func(*state.Node)) *state.Node {
	n := &state.Node{
		Name: state.NodeName(name), Index: w.NodeCount, Ready: true, Pods: map[state.UID]*state.Pod{},
		Facts: state.NodeFacts{OS: state.Linux, Arch: "amd64", Allocatable: state.Resources{MilliCPU: 4000, Memory: 8 << 30, Ephemeral: 50 << 30, Pods: 110}},
	}
	w.NodeCount++
	for _, f := range change {
		f(n)
	}
	w.Nodes[n.Name] = n
	return n
}

func windows(version string, isolations ...state.Isolation) func(*state.Node) {
	return func(n *state.Node) {
		n.Facts.OS, n.Facts.OSVersion, n.Facts.Isolations = state.Windows, version, isolations
	}
}

func labelled(pairs ...string) func(*state.Node) {
	return func(n *state.Node) {
		if n.Facts.Labels == nil {
			n.Facts.Labels = map[string]string{}
		}
		for i := 0; i < len(pairs); i += 2 {
			n.Facts.Labels[pairs[i]] = pairs[i+1]
		}
	}
}

func tainted(key, value, effect string) func(*state.Node) {
	return func(n *state.Node) {
		n.Facts.Taints = append(n.Facts.Taints, state.Taint{Key: key, Value: value, Effect: effect})
	}
}

func sized(cpu, memory int64) func(*state.Node) {
	return func(n *state.Node) { n.Facts.Allocatable.MilliCPU, n.Facts.Allocatable.Memory = cpu, memory }
}

func cordoned(n *state.Node)  { n.Cordoned = true }
func lost(n *state.Node)      { n.Ready = false }
func simulated(n *state.Node) { n.Facts.Simulated = true }

func zone(z string) func(*state.Node) { return labelled(corev1.LabelTopologyZone, z) }

// workload makes a Deployment of one variant whose pods carry app=<name>.
func (w *world) workload(name string, os state.OS, change ...func(*corev1.PodTemplateSpec)) Request {
	return w.workloadIn("default", "Deployment", name, os, change...)
}

func (w *world) workloadIn(namespace, kind, name string, os state.OS, change ...func(*corev1.PodTemplateSpec)) Request {
	spec := &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "shop.example/web:1"}}},
	}
	ask("100m", "128Mi")(spec)
	for _, f := range change {
		f(spec)
	}
	images := make([]state.Image, 0, 1)
	for _, n := range state.ImageNames(&spec.Spec) {
		images = append(images, anyImage(n))
	}
	t, _ := state.NewTemplate(os, spec, images)
	return w.requestOf(state.Ref{Kind: kind, Namespace: namespace, Name: name}, t)
}

func (w *world) requestOf(ref state.Ref, t *state.Template) Request {
	wl := w.Workloads[ref]
	if wl == nil {
		wl = &state.Workload{Ref: ref, Holds: map[string]*state.Hold{}}
		w.Enroll(wl)
	}
	v := &state.WorkloadVariant{OS: t.OS, Spec: &t.Spec, Update: t}
	wl.Variants = append(wl.Variants, v)
	return Request{Workload: wl, Variant: v, Template: t, Count: 1}
}

func ask(cpu, memory string) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		list := corev1.ResourceList{}
		if cpu != "" {
			list[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			list[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		t.Spec.Containers[0].Resources.Requests = list
	}
}

// put makes a pod of the request run on a node.
func (w *world) put(req Request, n *state.Node, iso state.Isolation) *state.Pod {
	w.seq++
	name := fmt.Sprintf("%s-%d", req.Workload.Ref.Name, w.seq)
	p := &state.Pod{
		Key: state.PodKey{Namespace: req.Workload.Ref.Namespace, Name: name}, UID: state.NewUID(state.Digest{}, w.seq, "", name),
		Workload: req.Workload.Ref, OS: req.Template.OS, Ordinal: -1, Template: req.Template, Node: n.Name, Isolation: iso, PlacedSeq: w.seq,
	}
	w.Pods[p.UID], n.Pods[p.UID] = p, p
	req.Workload.Pods = append(req.Workload.Pods, p)
	if req.Template.Spec.Spec.Affinity != nil {
		req.Workload.Affine++
		w.Affine[req.Workload.Ref] = req.Workload
	}
	n.Used = n.Used.Add(state.Charge(req.Template.Requests, iso))
	return p
}

// placeOne places pods one by one, as if each were a batch of its own.
func (w *world) placeOne(req Request) []Spot {
	var out []Spot
	one := req
	one.Count = 1
	for range req.Count {
		a := Place(w.State, one)
		if len(a.Spots) == 0 {
			break
		}
		w.put(one, a.Spots[0].Node, a.Spots[0].Isolation)
		out = append(out, a.Spots[0])
	}
	return out
}

func names(spots []Spot) string {
	var out []string
	for _, s := range spots {
		out = append(out, string(s.Node.Name))
	}
	return strings.Join(out, " ")
}

// reasonOf is a node's reason in an answer; NodeFits where it has none.
func (w *world) reasonOf(a Answer, name string) state.NodeReason {
	for _, g := range a.Groups {
		if slices.Contains(Members(g), w.Nodes[state.NodeName(name)].Index) {
			return g.Reason
		}
	}
	return state.NodeFits
}

func wantReason(t *testing.T, w *world, a Answer, node string, want state.NodeReason) {
	t.Helper()
	if got := w.reasonOf(a, node); got != want {
		t.Errorf("%s: reason %d, want %d", node, got, want)
	}
}
