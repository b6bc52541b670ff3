package platform

import (
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The images of Microsoft's compatibility table, and the hosts, as versions.
func servers() []string {
	return []string{"10.0.14393.5000", "10.0.17763.5000", "10.0.20348.5000", "10.0.25398.500", "10.0.26100.500"}
}

// TestWindowsMatrix is the whole host × image × isolation table: a letter an
// image (2016, 2019, 2022, 23H2, 2025), p where it runs by process isolation, h
// where only by Hyper-V, - where not at all. The image's revision differs from
// the host's.
func TestWindowsMatrix(t *testing.T) {
	tests := []struct {
		host, version, want string
	}{
		{"Server 2016", "10.0.14393.4000", "h----"}, // its revision must match, see below
		{"Server 2019", "10.0.17763.4000", "hp---"},
		{"Server 2022", "10.0.20348.4000", "hhp--"},
		{"Server 23H2", "10.0.25398.400", "hhpp-"},
		{"Server 2025", "10.0.26100.400", "hhppp"},
		{"Windows 10 22H2", "10.0.19045.4000", "hh---"},
		{"Windows 11", "10.0.22000.400", "hhp--"},
		{"Windows 11 22H2", "10.0.22621.400", "hhp--"},
		{"Windows 11 24H2", "10.0.26100.400", "hhppp"},
		{"Windows 11 25H2", "10.0.26200.400", "hhhhp"}, // hcsshim's rule; containerd would say hhppp
		{"without a version", "", "-----"},
	}
	for _, tt := range tests {
		t.Run(tt.host, func(t *testing.T) {
			got := ""
			for _, image := range servers() {
				img := state.Image{Name: "i", Platforms: []state.Platform{{OS: state.Windows, Arch: "amd64", OSVersion: image}}}
				facts := state.NodeFacts{OS: state.Windows, Arch: "amd64", OSVersion: tt.version}
				_, process := Of(img, facts, state.Process)
				_, hyperv := Of(img, facts, state.HyperV)
				switch {
				case process && !hyperv:
					t.Errorf("image %s runs by process isolation but not by Hyper-V", image)
				case process:
					got += "p"
				case hyperv:
					got += "h"
				default:
					got += "-"
				}
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRunsBuild(t *testing.T) {
	tests := []struct {
		name, host, image string
		iso               state.Isolation
		want              bool
	}{
		{"2016, same revision", "10.0.14393.4000", "10.0.14393.4000", state.Process, true},
		{"2016, other revision", "10.0.14393.4000", "10.0.14393.4001", state.Process, false},
		{"2016, other revision, Hyper-V", "10.0.14393.4000", "10.0.14393.4001", state.HyperV, true},
		{"2016, image without revision", "10.0.14393.4000", "10.0.14393", state.Process, true},
		{"2022, newer revision in the image", "10.0.20348.1", "10.0.20348.9999", state.Process, true},
		{"version 1903 on itself", "10.0.18362.1", "10.0.18362.2", state.Process, true},
		{"version 1909 on 1903", "10.0.18362.1", "10.0.18363.1", state.Process, false},
		{"other major", "11.0.20348.1", "10.0.20348.1", state.Process, false},
		{"other minor, Hyper-V", "10.1.20348.1", "10.0.20348.1", state.HyperV, false},
		{"older than containers, Hyper-V", "10.0.20348.1", "10.0.10586.1", state.HyperV, false},
	}
	for _, tt := range tests {
		host, ok1 := Parse(tt.host)
		image, ok2 := Parse(tt.image)
		if !ok1 || !ok2 {
			t.Fatalf("%s: not versions", tt.name)
		}
		if got := runs(host, image, tt.iso); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestOf(t *testing.T) {
	index := func(versions ...string) state.Image {
		img := state.Image{Name: "i", Platforms: []state.Platform{{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte("linux"))}}}
		for _, v := range versions {
			img.Platforms = append(img.Platforms, state.Platform{OS: state.Windows, Arch: "amd64", OSVersion: v, Digest: state.DigestOf([]byte(v))})
		}
		return img
	}
	tests := []struct {
		name string
		img  state.Image
		host string
		iso  state.Isolation
		want string // version; "!" none
	}{
		{"numbers, not strings", index("10.0.20348.587", "10.0.20348.1000", "10.0.20348.6"), "10.0.20348.1", state.Process, "10.0.20348.1000"},
		{"highest build that runs", index("10.0.17763.1", "10.0.20348.1", "10.0.26100.1"), "10.0.25398.1", state.Process, "10.0.20348.1"},
		{"a version beats none", index("", "10.0.20348.1"), "10.0.20348.1", state.Process, "10.0.20348.1"},
		{"none matches anything", index("10.0.26100.1", ""), "10.0.17763.1", state.Process, ""},
		{"none matches a host without version", index(""), "", state.Process, ""},
		{"only newer builds", index("10.0.26100.1"), "10.0.20348.1", state.HyperV, "!"},
		{"2016 takes its own revision", index("10.0.14393.9", "10.0.14393.5", "10.0.14393.7"), "10.0.14393.7", state.Process, "10.0.14393.7"},
		{"Hyper-V takes the guest's highest", index("10.0.17763.5", "10.0.20348.1"), "10.0.26100.1", state.HyperV, "10.0.20348.1"},
		{"not a version", index("ltsc2022", "10.0.x.1", "10.0", "10.0.-5.1"), "10.0.20348.1", state.Process, "!"},
		{"no Windows at all", index(), "10.0.20348.1", state.Process, "!"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, ok := Of(tt.img, state.NodeFacts{OS: state.Windows, Arch: "amd64", OSVersion: tt.host}, tt.iso)
			switch {
			case ok != (tt.want != "!"):
				t.Fatalf("found %v (%s)", ok, p.OSVersion)
			case ok && (p.OSVersion != tt.want || p.OS != state.Windows || p.Digest != state.DigestOf([]byte(tt.want))):
				t.Errorf("got %q, want %q", p.OSVersion, tt.want)
			}
		})
	}
	if p, ok := Of(index("10.0.20348.1"), state.NodeFacts{OS: state.Linux, Arch: "amd64"}, state.NoIsolation); !ok || p.Digest != state.DigestOf([]byte("linux")) {
		t.Errorf("linux: %v %v", p, ok)
	}
}
