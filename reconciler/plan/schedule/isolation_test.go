package schedule

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Hosts of Microsoft's compatibility table, as versions.
func servers() []string {
	return []string{"10.0.14393.5000", "10.0.17763.5000", "10.0.20348.5000", "10.0.25398.500", "10.0.26100.500"}
}

// Process isolation is taken where it can be, Hyper-V where it can't and the
// node offers it; the guest's overhead counts.
func TestIsolationIsChosen(t *testing.T) {
	tests := []struct {
		name    string
		host    string
		offers  []state.Isolation
		image   string
		want    state.NodeReason
		iso     state.Isolation
		hostPro bool
	}{
		{"process preferred", "10.0.26100.1", []state.Isolation{state.HyperV, state.Process}, "10.0.20348.1", state.NodeFits, state.Process, false},
		{"Hyper-V where process can't", "10.0.26100.1", []state.Isolation{state.Process, state.HyperV}, "10.0.17763.1", state.NodeFits, state.HyperV, false},
		{"not offered", "10.0.26100.1", []state.Isolation{state.Process}, "10.0.17763.1", state.NodeOtherBuild, state.NoIsolation, false},
		{"none said is process", "10.0.26100.1", nil, "10.0.26100.1", state.NodeFits, state.Process, false},
		{"only Hyper-V offered", "10.0.22621.1", []state.Isolation{state.HyperV}, "10.0.20348.1", state.NodeFits, state.HyperV, false},
		{"HostProcess needs process", "10.0.22621.1", []state.Isolation{state.HyperV}, "10.0.20348.1", state.NodeNoIsolation, state.NoIsolation, true},
		{"HostProcess ignores the build", "10.0.20348.1", []state.Isolation{state.Process}, "10.0.17763.1", state.NodeFits, state.Process, true},
		{"unknown isolation", "10.0.20348.1", []state.Isolation{"vm"}, "10.0.20348.1", state.NodeNoIsolation, state.NoIsolation, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			n := w.node("n", windows(tt.host, tt.offers...))
			spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "i"}}}}
			if tt.hostPro {
				yes := true
				spec.Spec.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: &yes}}
			}
			tmpl, _ := state.NewTemplate(state.Windows, &spec, []state.Image{{Name: "i", Platforms: []state.Platform{{OS: state.Windows, Arch: "amd64", OSVersion: tt.image}}}})
			reason, iso := new(Machines).Runs(tmpl, n)
			if reason != tt.want || iso != tt.iso {
				t.Errorf("got reason %d, isolation %q", reason, iso)
			}
		})
	}
}

// A four-core node has room for two guests of two processors and nothing else.
func TestHyperVOverheadIsCharged(t *testing.T) {
	w := newWorld()
	w.node("n", windows("10.0.26100.1", state.HyperV))
	req := w.workload("web", state.Windows, ask("", "64Mi"))
	req.Count = 5
	if a := Place(w.State, req); names(a.Spots) != "n n" || a.Spots[0].Isolation != state.HyperV {
		t.Errorf("placed %q", names(a.Spots))
	}
	if spots := w.placeOne(req); names(spots) != "n n" {
		t.Errorf("one by one: placed %q", names(spots))
	}
}
