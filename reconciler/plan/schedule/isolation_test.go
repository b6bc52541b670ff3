package schedule

import (
	"fmt"
	"slices"
	"strings"
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
		more    func(*corev1.PodSpec)
	}{
		{"process preferred", "10.0.26100.1", []state.Isolation{state.HyperV, state.Process}, "10.0.20348.1", state.NodeFits, state.Process, false, nil},
		{"Hyper-V where process can't", "10.0.26100.1", []state.Isolation{state.Process, state.HyperV}, "10.0.17763.1", state.NodeFits, state.HyperV, false, nil},
		{"not offered", "10.0.26100.1", []state.Isolation{state.Process}, "10.0.17763.1", state.NodeOtherBuild, state.NoIsolation, false, nil},
		{"none said is process", "10.0.26100.1", nil, "10.0.26100.1", state.NodeFits, state.Process, false, nil},
		{"only Hyper-V offered", "10.0.22621.1", []state.Isolation{state.HyperV}, "10.0.20348.1", state.NodeFits, state.HyperV, false, nil},
		{"HostProcess needs process", "10.0.22621.1", []state.Isolation{state.HyperV}, "10.0.20348.1", state.NodeNoIsolation, state.NoIsolation, true, nil},
		{"HostProcess ignores the build", "10.0.20348.1", []state.Isolation{state.Process}, "10.0.17763.1", state.NodeFits, state.Process, true, nil},
		{"unknown isolation", "10.0.20348.1", []state.Isolation{"vm"}, "10.0.20348.1", state.NodeNoIsolation, state.NoIsolation, false, nil},
		{"a guest holds one container", "10.0.26100.1", []state.Isolation{state.Process, state.HyperV}, "10.0.17763.1", state.NodeOtherBuild, state.NoIsolation, false, func(p *corev1.PodSpec) {
			p.Containers = append(p.Containers, corev1.Container{Image: "i"})
		}},
		{"a sidecar is one more", "10.0.22621.1", []state.Isolation{state.HyperV}, "10.0.20348.1", state.NodeNoIsolation, state.NoIsolation, false, func(p *corev1.PodSpec) {
			always := corev1.ContainerRestartPolicyAlways
			p.InitContainers = []corev1.Container{{Image: "i", RestartPolicy: &always}}
		}},
		{"an init container has a guest before", "10.0.26100.1", []state.Isolation{state.Process, state.HyperV}, "10.0.17763.1", state.NodeFits, state.HyperV, false, func(p *corev1.PodSpec) {
			p.InitContainers = []corev1.Container{{Image: "i"}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			n := w.node("n", windows(tt.host, tt.offers...))
			spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "i"}}}}
			if tt.more != nil {
				tt.more(&spec.Spec)
			}
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

// TestWindowsPlacements places each image on a cluster of every host of
// Microsoft's table, each once for each set of isolations that it may offer: 0
// wrong placements. The letters are what a host that offers both does with an image of each
// build, written down here and not asked of the code: p process isolation, h
// Hyper-V, - nothing.
func TestWindowsPlacements(t *testing.T) {
	hosts := []struct{ version, does string }{
		{"10.0.14393.5000", "p----"},
		{"10.0.14393.4000", "h----"}, // the revision counts on 2016 alone
		{"10.0.17763.4000", "hp---"},
		{"10.0.20348.4000", "hhp--"},
		{"10.0.25398.400", "hhpp-"},
		{"10.0.26100.400", "hhppp"},
		{"10.0.19045.4000", "hh---"},
		{"10.0.22000.400", "hhp--"},
		{"10.0.22621.400", "hhp--"},
		{"10.0.26200.400", "hhhhp"},
		{"", "-----"},
	}
	offers := map[string][]state.Isolation{"none": nil, "p": {state.Process}, "h": {state.HyperV}, "both": {state.HyperV, state.Process}}
	// want is how a host with an offer keeps a pod apart; empty: not at all.
	want := func(does byte, offer []state.Isolation) state.Isolation {
		process := len(offer) == 0 || slices.Contains(offer, state.Process)
		switch {
		case does == 'p' && process:
			return state.Process
		case does != '-' && slices.Contains(offer, state.HyperV):
			return state.HyperV
		}
		return state.NoIsolation
	}
	platform := func(version string) state.Platform {
		return state.Platform{OS: state.Windows, Arch: "amd64", OSVersion: version}
	}
	type index struct {
		name      string
		platforms []state.Platform
		does      func(string) byte // of a host's letters
	}
	var indexes []index
	for i, v := range servers() {
		at := func(does string) byte { return does[i] }
		indexes = append(indexes,
			index{v, []state.Platform{platform(v)}, at},
			index{v + " among what isn't a version", []state.Platform{platform("ltsc"), platform(v), platform("10.0"), platform("10.0.x.1"), {OS: state.Linux, Arch: "amd64"}, {OS: state.Windows, Arch: "arm64", OSVersion: v}}, at},
		)
	}
	best := func(does string) byte { // of several builds: process isolation of any before Hyper-V
		for _, c := range []byte("ph") {
			if strings.IndexByte(does, c) >= 0 {
				return c
			}
		}
		return '-'
	}
	all := index{name: "all builds", does: best}
	for _, v := range servers() {
		all.platforms = append(all.platforms, platform(v))
	}
	indexes = append(indexes, all,
		index{"no os.version", []state.Platform{platform("")}, func(string) byte { return 'p' }},
		index{"nothing that is a version", []state.Platform{platform("ltsc2022"), platform("10.0"), platform("-1.0.20348.1")}, func(string) byte { return '-' }},
		index{"no Windows", []state.Platform{{OS: state.Linux, Arch: "amd64"}}, func(string) byte { return '-' }},
		index{"newer than all", []state.Platform{platform("10.0.30000.1")}, func(string) byte { return '-' }},
	)
	cells := 0
	for _, x := range indexes {
		w := newWorld()
		expected := map[state.NodeName]state.Isolation{}
		for i, h := range hosts {
			for name, offer := range offers {
				node := fmt.Sprintf("n%d-%s", i, name)
				w.node(node, windows(h.version, offer...))
				if iso := want(x.does(h.does), offer); iso != state.NoIsolation {
					expected[state.NodeName(node)] = iso
				}
				cells++
			}
		}
		spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		tmpl, _ := state.NewTemplate(state.Windows, &spec, []state.Image{{Name: "i", Platforms: x.platforms}})
		for _, n := range w.Nodes {
			reason, iso := new(Machines).Runs(tmpl, n)
			if iso != expected[n.Name] || (reason == state.NodeFits) != (iso != state.NoIsolation) {
				t.Errorf("image %s on %s of Windows %s: %q (reason %d), want %q", x.name, n.Name, n.Facts.OSVersion, iso, reason, expected[n.Name])
			}
		}
		req := w.workload("web", state.Windows, func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].Image = "i" })
		req.Template, req.Count = tmpl, 200
		placed := map[state.NodeName]bool{}
		for _, spot := range Place(w.State, req).Spots {
			placed[spot.Node.Name] = true
			if iso := expected[spot.Node.Name]; iso == state.NoIsolation || iso != spot.Isolation {
				t.Errorf("image %s was placed on %s of Windows %s, %q, want %q", x.name, spot.Node.Name, spot.Node.Facts.OSVersion, spot.Isolation, iso)
			}
		}
		if len(placed) != len(expected) {
			t.Errorf("image %s was placed on %d nodes, want %d", x.name, len(placed), len(expected))
		}
	}
	t.Logf("%d cells", cells)
}
