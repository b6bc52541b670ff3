package schedule

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

type podChange = func(*corev1.PodTemplateSpec)

func selects(pairs ...string) podChange {
	return func(t *corev1.PodTemplateSpec) {
		t.Spec.NodeSelector = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			t.Spec.NodeSelector[pairs[i]] = pairs[i+1]
		}
	}
}

func requires(terms ...corev1.NodeSelectorTerm) podChange {
	return func(t *corev1.PodTemplateSpec) {
		t.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}
	}
}

func expr(key string, op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}}
}

func byName(op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: op, Values: values}}}
}

func tolerate(ts ...corev1.Toleration) podChange {
	return func(t *corev1.PodTemplateSpec) { t.Spec.Tolerations = ts }
}

func port(ip string, protocol corev1.Protocol, number int32) podChange {
	return func(t *corev1.PodTemplateSpec) {
		c := &t.Spec.Containers[0]
		c.Ports = append(c.Ports, corev1.ContainerPort{HostIP: ip, Protocol: protocol, HostPort: number, ContainerPort: 80})
	}
}

// TestFilter asks one node about one pod. Cases that Kubernetes's e2e suite has
// (SchedulerPredicates) bear its words.
func TestFilter(t *testing.T) {
	type nodes = []func(*state.Node)
	type pods = []podChange
	tests := []struct {
		name   string
		os     state.OS
		node   nodes
		pod    pods
		beside pods // a pod that runs on the node already
		want   state.NodeReason
		static bool
	}{
		{name: "plain", want: state.NodeFits},
		{name: "not ready", node: nodes{lost}, want: state.NodeNotReady, static: true},
		{name: "cordoned", node: nodes{cordoned}, want: state.NodeIsCordoned, static: true},
		{name: "cordon tolerated by its taint", node: nodes{cordoned}, pod: pods{tolerate(corev1.Toleration{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists})}},
		{name: "other OS", os: state.Windows, want: state.NodeOtherOS, static: true},
		{name: "spec.os.name", pod: pods{func(t *corev1.PodTemplateSpec) { t.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }}, want: state.NodeOtherOS, static: true},
		{name: "other architecture", node: nodes{func(n *state.Node) { n.Facts.Arch = "arm64" }}, want: state.NodeOtherArch, static: true},
		{name: "older Windows build", os: state.Windows, node: nodes{windows("10.0.17763.1")}, want: state.NodeOtherBuild, static: true},
		{name: "any OS, image for both", node: nodes{windows("10.0.20348.1")}},
		{name: "spec.nodeName of another", pod: pods{func(t *corev1.PodTemplateSpec) { t.Spec.NodeName = "n2" }}, want: state.NodeOtherName, static: true},
		{name: "spec.nodeName", pod: pods{func(t *corev1.PodTemplateSpec) { t.Spec.NodeName = "n1" }}},

		{name: "validates that NodeSelector is respected if not matching", pod: pods{selects("disk", "ssd")}, want: state.NodeSelectorMismatch, static: true},
		{name: "validates that NodeSelector is respected if matching", node: nodes{labelled("disk", "ssd")}, pod: pods{selects("disk", "ssd", "kubernetes.io/os", "linux", "kubernetes.io/arch", "amd64", "kubernetes.io/hostname", "n1")}},
		{name: "node.kubernetes.io/windows-build", node: nodes{windows("10.0.20348.2113")}, pod: pods{selects("node.kubernetes.io/windows-build", "10.0.20348")}},
		{name: "validates that required NodeAffinity setting is respected if matching", node: nodes{labelled("disk", "ssd")}, pod: pods{requires(expr("disk", corev1.NodeSelectorOpIn, "nvme", "ssd"))}},
		{name: "NodeAffinity In", pod: pods{requires(expr("disk", corev1.NodeSelectorOpIn, "ssd"))}, want: state.NodeAffinityMismatch, static: true},
		{name: "NodeAffinity NotIn, no label", pod: pods{requires(expr("disk", corev1.NodeSelectorOpNotIn, "ssd"))}},
		{name: "NodeAffinity NotIn", node: nodes{labelled("disk", "ssd")}, pod: pods{requires(expr("disk", corev1.NodeSelectorOpNotIn, "ssd"))}, want: state.NodeAffinityMismatch, static: true},
		{name: "NodeAffinity Exists", pod: pods{requires(expr("disk", corev1.NodeSelectorOpExists))}, want: state.NodeAffinityMismatch, static: true},
		{name: "NodeAffinity DoesNotExist", node: nodes{labelled("disk", "")}, pod: pods{requires(expr("disk", corev1.NodeSelectorOpDoesNotExist))}, want: state.NodeAffinityMismatch, static: true},
		{name: "NodeAffinity Gt", node: nodes{labelled("gen", "10")}, pod: pods{requires(expr("gen", corev1.NodeSelectorOpGt, "9"))}},
		{name: "NodeAffinity Gt, equal", node: nodes{labelled("gen", "9")}, pod: pods{requires(expr("gen", corev1.NodeSelectorOpGt, "9"))}, want: state.NodeAffinityMismatch, static: true},
		{name: "NodeAffinity Lt", node: nodes{labelled("gen", "-10")}, pod: pods{requires(expr("gen", corev1.NodeSelectorOpLt, "9"))}},
		{name: "NodeAffinity Lt, no number", node: nodes{labelled("gen", "x")}, pod: pods{requires(expr("gen", corev1.NodeSelectorOpLt, "9"))}, want: state.NodeAffinityMismatch, static: true},
		{name: "NodeAffinity terms are ORed", pod: pods{requires(expr("disk", corev1.NodeSelectorOpExists), byName(corev1.NodeSelectorOpIn, "n1"))}},
		{name: "NodeAffinity matchFields", pod: pods{requires(byName(corev1.NodeSelectorOpNotIn, "n1"))}, want: state.NodeAffinityMismatch, static: true},
		{name: "NodeAffinity empty term matches nothing", pod: pods{requires(corev1.NodeSelectorTerm{})}, want: state.NodeAffinityMismatch, static: true},

		{name: "validates that taints-tolerations is respected if not matching", node: nodes{tainted("k", "v", "NoSchedule")}, want: state.NodeTainted, static: true},
		{name: "validates that taints-tolerations is respected if matching", node: nodes{tainted("k", "v", "NoSchedule")}, pod: pods{tolerate(corev1.Toleration{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule})}},
		{name: "NoExecute", node: nodes{tainted("k", "v", "NoExecute")}, want: state.NodeTainted, static: true},
		{name: "PreferNoSchedule refuses nothing", node: nodes{tainted("k", "v", "PreferNoSchedule")}},
		{name: "toleration of another value", node: nodes{tainted("k", "v", "NoSchedule")}, pod: pods{tolerate(corev1.Toleration{Key: "k", Value: "w"})}, want: state.NodeTainted, static: true},
		{name: "toleration of another effect", node: nodes{tainted("k", "v", "NoSchedule")}, pod: pods{tolerate(corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})}, want: state.NodeTainted, static: true},
		{name: "toleration of everything", node: nodes{tainted("k", "v", "NoSchedule")}, pod: pods{tolerate(corev1.Toleration{Operator: corev1.TolerationOpExists})}},
		{name: "empty key tolerates only with Exists", node: nodes{tainted("k", "", "NoSchedule")}, pod: pods{tolerate(corev1.Toleration{})}, want: state.NodeTainted, static: true},
		{name: "numeric toleration", node: nodes{tainted("k", "5", "NoSchedule")}, pod: pods{tolerate(corev1.Toleration{Key: "k", Operator: corev1.TolerationOpGt, Value: "4"})}},
		{name: "numeric toleration, too low", node: nodes{tainted("k", "5", "NoSchedule")}, pod: pods{tolerate(corev1.Toleration{Key: "k", Operator: corev1.TolerationOpLt, Value: "5"})}, want: state.NodeTainted, static: true},

		{name: "validates resource limits of pods that are allowed to run: cpu", pod: pods{ask("5", "")}, want: state.NodeShortCPU, static: true},
		{name: "cpu exactly", pod: pods{ask("4", "")}},
		{name: "cpu taken", pod: pods{ask("3", "")}, beside: pods{ask("1100m", "")}, want: state.NodeShortCPU},
		{name: "memory", pod: pods{ask("", "9Gi")}, want: state.NodeShortMemory, static: true},
		{name: "memory taken", pod: pods{ask("", "4Gi")}, beside: pods{ask("", "5Gi")}, want: state.NodeShortMemory},
		{name: "what isn't asked for is never short", node: nodes{sized(0, 0)}, pod: pods{ask("", "")}},
		{name: "pods", node: nodes{func(n *state.Node) { n.Facts.Allocatable.Pods = 1 }}, beside: pods{}, want: state.NodeShortPods},
		{name: "no pods at all", node: nodes{func(n *state.Node) { n.Facts.Allocatable.Pods = 0 }}, want: state.NodeShortPods, static: true},
		{name: "Hyper-V's overhead doesn't fit", os: state.Windows, node: nodes{windows("10.0.26100.1", state.HyperV), sized(2050, 8<<30)}, want: state.NodeShortCPU, static: true},
		{name: "Hyper-V's overhead fits", os: state.Windows, node: nodes{windows("10.0.26100.1", state.HyperV), sized(2100, (1024+128)<<20)}},

		{name: "validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP", pod: pods{port("127.0.0.1", "TCP", 80)}, beside: pods{port("", "", 80)}, want: state.NodePortTaken},
		{name: "validates that there is no conflict between pods with same hostPort but different hostIP and protocol: IP", pod: pods{port("127.0.0.1", "TCP", 80)}, beside: pods{port("127.0.0.2", "TCP", 80)}},
		{name: "validates that there is no conflict between pods with same hostPort but different hostIP and protocol: protocol", pod: pods{port("", "UDP", 80)}, beside: pods{port("", "TCP", 80)}},
		{name: "hostNetwork takes the container's port", pod: pods{port("", "TCP", 80)}, beside: pods{func(t *corev1.PodTemplateSpec) {
			t.Spec.HostNetwork = true
			t.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80}}
		}}, want: state.NodePortTaken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			n := w.node("n1", tt.node...)
			if tt.beside != nil {
				w.put(w.workload("beside", state.AnyOS, tt.beside...), n, state.NoIsolation)
			}
			req := w.workload("web", tt.os, tt.pod...)
			a := Place(w.State, req)
			wantReason(t, w, Place(w.State, Request{Workload: req.Workload, Template: req.Template}), "n1", tt.want)
			if placed := len(a.Spots) == 1; placed != (tt.want == state.NodeFits) {
				t.Errorf("placed: %v", placed)
			}
			if a.Static != tt.static {
				t.Errorf("static: %v, want %v", a.Static, tt.static)
			}
			if got, _ := Fits(w.State, req.Template, n); got != tt.want {
				t.Errorf("Fits: reason %d, want %d", got, tt.want)
			}
		})
	}
}

func TestRequestNode(t *testing.T) {
	w := newWorld()
	w.node("a")
	w.node("b")
	req := w.workload("db", state.Linux)
	req.Node = "b"
	a := Place(w.State, req)
	if names(a.Spots) != "b" {
		t.Errorf("placed on %s", names(a.Spots))
	}
	wantReason(t, w, a, "a", state.NodeVolumeElsewhere)
	w.Nodes["b"].Ready = false
	if a := Place(w.State, req); len(a.Spots) != 0 || !a.Static {
		t.Errorf("placed %q, static %v; the only node with its data is lost", names(a.Spots), a.Static)
	}
}

// Images that couldn't be looked up are taken to exist on simulated nodes, for
// the OS that the text names.
func TestAssumedImage(t *testing.T) {
	tests := []struct {
		name     string
		os       state.OS
		selector map[string]string
		want     map[string]state.NodeReason
	}{
		{"linux", state.Linux, nil, map[string]state.NodeReason{"real": state.NodeImageUnknown, "sim-l": state.NodeFits, "sim-w": state.NodeOtherOS}},
		{"windows", state.Windows, nil, map[string]state.NodeReason{"real": state.NodeOtherOS, "sim-l": state.NodeOtherOS, "sim-w": state.NodeFits}},
		{"none named", state.AnyOS, nil, map[string]state.NodeReason{"real": state.NodeImageUnknown, "sim-l": state.NodeFits, "sim-w": state.NodeImageUnknown}},
		{"named by selector", state.AnyOS, map[string]string{"kubernetes.io/os": "windows"}, map[string]state.NodeReason{"real": state.NodeImageUnknown, "sim-l": state.NodeImageUnknown, "sim-w": state.NodeFits}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.node("real")
			w.node("sim-l", simulated)
			w.node("sim-w", simulated, windows("10.0.17763.1"))
			spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeSelector: tt.selector, Containers: []corev1.Container{{Image: "x"}}}}
			tmpl, _ := state.NewTemplate(tt.os, &spec, []state.Image{{Name: "x", Assumed: true}})
			req := w.requestOf(state.Ref{Kind: "Deployment", Namespace: "d", Name: "x"}, tmpl)
			req.Count = 0
			a := Place(w.State, req)
			for n, want := range tt.want {
				wantReason(t, w, a, n, want)
			}
		})
	}
}

// An image that nobody looked up fits nowhere; all containers must fit.
func TestEveryImageMustFit(t *testing.T) {
	w := newWorld()
	n := w.node("n1", windows("10.0.20348.1"))
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Image: "setup"}}, Containers: []corev1.Container{{Image: "main"}},
	}}
	linuxOnly := state.Image{Name: "setup", Platforms: []state.Platform{{OS: state.Linux, Arch: "amd64"}}}
	for _, tt := range []struct {
		images []state.Image
		want   state.NodeReason
	}{
		{[]state.Image{anyImage("main"), anyImage("setup")}, state.NodeFits},
		{[]state.Image{anyImage("main"), linuxOnly}, state.NodeNoImage},
		{[]state.Image{anyImage("main")}, state.NodeImageUnknown},
	} {
		tmpl, _ := state.NewTemplate(state.AnyOS, &spec, tt.images)
		if got, _ := new(Machines).Runs(tmpl, n); got != tt.want {
			t.Errorf("%d images: reason %d, want %d", len(tt.images), got, tt.want)
		}
	}
}
