package schedule

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func imagesOf(t *state.Template, os state.OS, images ...state.Image) *state.Template {
	out, _ := state.NewTemplate(os, &t.Spec, images)
	return out
}

func windowsImage(versions ...string) state.Image {
	img := state.Image{Name: "shop.example/web:1"}
	for _, v := range versions {
		img.Platforms = append(img.Platforms, state.Platform{OS: state.Windows, Arch: "amd64", OSVersion: v})
	}
	return img
}

// TestExplain: the words for every reason, and what would help.
func TestExplain(t *testing.T) {
	tests := []struct {
		name   string
		setup  func(*world) Request // the node asked about is n
		want   string
		remedy string
	}{
		{"not ready", func(w *world) Request {
			w.node("n", lost)
			return w.workload("web", state.Linux)
		}, "not ready", "n is ready again; 1 more linux node"},
		{"cordoned", func(w *world) Request {
			w.node("n", cordoned)
			return w.workload("web", state.Linux)
		}, "cordoned", "n is uncordoned; 1 more linux node"},
		{"other OS", func(w *world) Request {
			w.node("n")
			return w.workload("web", state.Windows)
		}, "OS linux, pod is windows", "1 more windows node, build ≥ 20348"},
		{"other architecture", func(w *world) Request {
			w.node("n", func(n *state.Node) { n.Facts.Arch = "arm64" })
			return w.workload("web", state.Linux)
		}, "architecture arm64; image shop.example/web:1 has linux/amd64, windows/amd64 10.0.20348.587", "image shop.example/web:1 for linux/arm64; 1 more linux node"},
		{"no image", func(w *world) Request {
			w.node("n")
			req := w.workload("web", state.AnyOS)
			return w.requestOf(req.Workload.Ref, imagesOf(req.Template, state.AnyOS, windowsImage("10.0.20348.1")))
		}, "image shop.example/web:1 has nothing for linux/amd64; it has windows/amd64 10.0.20348.1", "image shop.example/web:1 for linux/amd64; 1 more node"},
		{"older host", func(w *world) Request {
			w.node("n", windows("10.0.17763.100"))
			return w.workload("web", state.Windows)
		}, "runs build 17763 (Server 2019); image shop.example/web:1 needs 20348 (Server 2022) (process) or a host ≥ 20348 (Hyper-V)", "image shop.example/web:1 for Windows build 17763 (Server 2019); 1 more windows node, build ≥ 20348"},
		{"newer host without Hyper-V", func(w *world) Request {
			w.node("n", windows("10.0.26100.1", state.Process))
			req := w.workload("web", state.Windows)
			return w.requestOf(req.Workload.Ref, imagesOf(req.Template, state.Windows, windowsImage("10.0.17763.1")))
		}, "runs build 26100 (Server 2025); image shop.example/web:1 needs 17763 (Server 2019) (process), or Hyper-V on this node", "image shop.example/web:1 for Windows build 26100 (Server 2025); 1 more windows node, build ≥ 17763"},
		{"2016's revision", func(w *world) Request {
			w.node("n", windows("10.0.14393.5", state.Process))
			req := w.workload("web", state.Windows)
			return w.requestOf(req.Workload.Ref, imagesOf(req.Template, state.Windows, windowsImage("10.0.14393.7")))
		}, "runs build 14393.5 (Server 2016), which needs the image's revision to be the same; image shop.example/web:1 has 7", "image shop.example/web:1 for Windows build 14393 (Server 2016); 1 more windows node, build ≥ 14393"},
		{"image unknown", func(w *world) Request {
			w.node("n")
			req := w.workload("web", state.Linux)
			return w.requestOf(req.Workload.Ref, imagesOf(req.Template, state.Linux, state.Image{Name: "shop.example/web:1", Assumed: true, Failure: state.LookupUnavailable}))
		}, "image shop.example/web:1 could not be looked up: registry does not answer", "image shop.example/web:1 can be looked up"},
		{"image of schema 1", func(w *world) Request {
			w.node("n")
			req := w.workload("web", state.Linux)
			return w.requestOf(req.Workload.Ref, imagesOf(req.Template, state.Linux, state.Image{Name: "shop.example/web:1", Assumed: true, Failure: state.LookupOld}))
		}, "image shop.example/web:1 could not be looked up: a Docker image of schema 1, which is read no longer", "image shop.example/web:1 is built and pushed again with a tool of today"},
		{"taint", func(w *world) Request {
			w.node("n", tainted("gpu", "yes", "NoSchedule"))
			return w.workload("web", state.Linux)
		}, "taint gpu=yes:NoSchedule is not tolerated", "a toleration of gpu=yes:NoSchedule (n); 1 more linux node"},
		{"selector", func(w *world) Request {
			w.node("n", labelled("disk", "hdd"))
			return w.workload("web", state.Linux, selects("disk", "ssd"))
		}, "label disk is hdd, nodeSelector wants ssd", "n has the label disk=ssd; 1 more linux node with disk=ssd"},
		{"selector, no label", func(w *world) Request {
			w.node("n")
			return w.workload("web", state.Linux, selects("disk", "ssd"))
		}, "has no label disk, nodeSelector wants ssd", "n has the label disk=ssd; 1 more linux node with disk=ssd"},
		{"affinity", func(w *world) Request {
			w.node("n")
			return w.workload("web", state.Linux, requires(expr("disk", corev1.NodeSelectorOpIn, "ssd", "nvme"), expr("gen", corev1.NodeSelectorOpGt, "3")))
		}, "required node affinity wants disk In (ssd, nvme), or gen Gt 3", "n matches required node affinity; 1 more linux node"},
		{"other name", func(w *world) Request {
			w.node("n")
			return w.workload("web", state.Linux, func(t *corev1.PodTemplateSpec) { t.Spec.NodeName = "m" })
		}, "spec.nodeName is m", "spec.nodeName is left out"},
		{"memory", func(w *world) Request {
			n := w.node("n", sized(4000, 1144<<20))
			web := w.workload("web", state.Linux, ask("100m", "256Mi"))
			w.put(w.workload("agent-metrics", state.Linux, ask("", "512Mi")), n, "")
			w.put(web, n, "")
			w.put(web, n, "")
			return web
		}, "memory: 256Mi asked, 120Mi free (agent-metrics 512Mi, web 2×256Mi)", "n frees memory 136Mi; memory ≤ 120Mi; 1 more linux node"},
		{"every resource that is short", func(w *world) Request {
			n := w.node("n", sized(1000, 1<<30))
			w.put(w.workload("other", state.Linux, ask("800m", "900Mi")), n, "")
			return w.workload("web", state.Linux, ask("500m", "512Mi"))
		}, "cpu: 500m asked, 200m free (other 800m); memory: 512Mi asked, 124Mi free (other 900Mi)", "1 more linux node"},
		{"more memory than there is", func(w *world) Request {
			w.node("n", sized(4000, 1<<30))
			return w.workload("web", state.Linux, ask("", "2Gi"))
		}, "memory: 2Gi asked, node has 1Gi in all", "memory ≤ 1Gi; 1 more linux node"},
		{"cpu", func(w *world) Request {
			w.put(w.workload("other", state.Linux, ask("3500m", "")), w.node("n"), "")
			return w.workload("web", state.Linux, ask("1500m", ""))
		}, "cpu: 1.5 asked, 500m free (other 3.5)", "n frees cpu 1; cpu ≤ 500m; 1 more linux node"},
		{"cpu with a guest's", func(w *world) Request {
			n := w.node("n", windows("10.0.26100.1", state.HyperV))
			w.put(w.workload("other", state.Windows, ask("100m", "")), n, state.HyperV)
			return w.workload("web", state.Windows, ask("100m", ""))
		}, "cpu: 2.1 asked with 2 for its Hyper-V guest, 1.9 free (other 2.1)", "n frees cpu 200m; 1 more windows node, build ≥ 20348"},
		{"pods", func(w *world) Request {
			w.put(w.workload("other", state.Linux), w.node("n", func(n *state.Node) { n.Facts.Allocatable.Pods = 1 }), "")
			return w.workload("web", state.Linux)
		}, "pods: 1 of 1 taken", "n frees a pod; 1 more linux node"},
		{"port", func(w *world) Request {
			w.put(w.workload("other", state.Linux, port("", "TCP", 80)), w.node("n"), "")
			return w.workload("web", state.Linux, port("10.0.0.1", "", 80))
		}, "host port 80/TCP is taken by default/other-1", "host port 80/TCP of n is given up by default/other-1; 1 more linux node"},
		{"spread", func(w *world) Request {
			n := w.node("n", zone("a"))
			w.node("z", zone("b"), sized(0, 0))
			req := w.workload("web", state.Linux, spreads(corev1.LabelTopologyZone, 1, true))
			w.put(req, n, "")
			return req
		}, "topology spread: topology.kubernetes.io/zone=a has 1 such pods, the lowest has 0, maxSkew is 1", "a higher maxSkew, or whenUnsatisfiable: ScheduleAnyway; 1 more linux node"},
		{"spread, no label", func(w *world) Request {
			w.node("n")
			return w.workload("web", state.Linux, spreads("rack", 1, true))
		}, "topology spread: has no label rack", "n has the label rack; 1 more linux node"},
		{"affinity, no label", func(w *world) Request {
			w.node("n")
			return w.workload("web", state.Linux, near("rack", "db"))
		}, "required pod affinity: has no label rack", "n has the label rack; 1 more linux node"},
		{"a field of Linux, where the image chooses the OS", func(w *world) Request {
			w.node("n", windows("10.0.20348.1", state.Process))
			return w.workload("web", state.AnyOS, func(t *corev1.PodTemplateSpec) {
				user := int64(1000)
				t.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user}
			})
		}, "OS windows can't honour spec.securityContext.runAsUser", "spec.securityContext.runAsUser is left out; 1 more linux node"},
		{"a field of Windows, where the image chooses the OS", func(w *world) Request {
			w.node("n")
			return w.workload("web", state.AnyOS, func(t *corev1.PodTemplateSpec) {
				name := "ContainerUser"
				t.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{RunAsUserName: &name}}
			})
		}, "OS linux can't honour spec.containers[0].securityContext.windowsOptions", "spec.containers[0].securityContext.windowsOptions is left out; 1 more windows node, build ≥ 20348"},
		{"the older names of labels", func(w *world) Request {
			w.node("n")
			return w.workload("web", state.AnyOS, func(t *corev1.PodTemplateSpec) {
				t.Spec.NodeSelector = map[string]string{state.LabelOSBeta: "linux", state.LabelArchBeta: "arm64"}
			})
		}, "label beta.kubernetes.io/arch is amd64, nodeSelector wants arm64", "1 more node with beta.kubernetes.io/arch=arm64, beta.kubernetes.io/os=linux"},
		{"affinity to pods", func(w *world) Request {
			w.node("n", zone("a"))
			return w.workload("web", state.Linux, near(corev1.LabelTopologyZone, "db"))
		}, "required pod affinity: no pod with app=db in topology.kubernetes.io/zone=a", "a pod that required pod affinity names runs there first; 1 more linux node"},
		{"anti-affinity", func(w *world) Request {
			n := w.node("n")
			w.put(w.workload("db", state.Linux), n, "")
			return w.workload("web", state.Linux, apart(corev1.LabelHostname, "db"))
		}, "pod anti-affinity: 1 pods with app=db in kubernetes.io/hostname=n", "preferred instead of required pod anti-affinity; 1 more linux node"},
		{"anti-affinity of others", func(w *world) Request {
			w.put(w.workload("db", state.Linux, apart(corev1.LabelHostname, "web")), w.node("n"), "")
			return w.workload("web", state.Linux)
		}, "a pod in kubernetes.io/hostname=n keeps such pods away by its anti-affinity", "1 more linux node"},
		{"volume", func(w *world) Request {
			w.node("n")
			req := w.workload("db", state.Linux)
			req.Node = "elsewhere"
			return req
		}, "its data is on another node", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			req := tt.setup(w)
			req.Workload.Variants = []*state.WorkloadVariant{req.Variant}
			a := Place(w.State, req)
			reason := w.reasonOf(a, "n")
			if reason == state.NodeFits {
				t.Fatalf("it fits: %s", names(a.Spots))
			}
			if got := Explain(w.State, req.Template, w.Nodes["n"], reason); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			var groups []state.ReasonGroup
			for _, g := range a.Groups {
				if g.Reason == reason {
					groups = append(groups, g)
				}
			}
			if got := strings.Join(Remedy(w.State, req.Template, groups), "; "); got != tt.remedy {
				t.Errorf("fits if %s\nwant    %s", got, tt.remedy)
			}
		})
	}
}

// Reasons of the past are said in words also when the state has moved on.
func TestExplainWhenThingsChanged(t *testing.T) {
	w := newWorld()
	n := w.node("n")
	req := w.workload("web", state.Linux)
	for r := state.NodeFits; r <= state.NodeUnfenced+1; r++ {
		if got := Explain(w.State, req.Template, n, r); got == "" {
			t.Errorf("reason %d has no words", r)
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 1: "1", 1023: "1023", 1024: "1Ki", 120 << 20: "120Mi", 1 << 30: "1Gi", 1536 << 20: "1536Mi", 12<<30 + 5: "12Gi", 123456789: "117Mi", 1 << 20: "1Mi"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
