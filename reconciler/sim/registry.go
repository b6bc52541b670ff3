package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// hub is the registry. An image is an index for both OSes, unless a line of the
// story says otherwise of its repository.
type hub struct {
	w    *world
	down time.Duration     // it doesn't answer, or says later, until then
	odd  map[string]string // workload: what its images are
	tag  map[string]int    // workload: how often its tags were moved
}

// hostBuild is what Windows nodes run, and what images are built for. Each has an
// older revision too, whose text sorts after it.
const (
	hostBuild = "10.0.20348.2113"
	oldBuild  = "10.0.20348.587"
)

// image is what a name means now.
func (h *hub) image(name string) state.Image {
	platform := func(os state.OS, version string) state.Platform {
		digest := state.DigestOf(fmt.Appendf(nil, "%s/%s%s/%d", name, os, version, h.tag[repository(name)]))
		return state.Platform{OS: os, Arch: "amd64", OSVersion: version, Digest: digest}
	}
	im := state.Image{Name: name, Index: state.DigestOf(fmt.Appendf(nil, "%s/%d", name, h.tag[repository(name)]))}
	linux, windows := platform(state.Linux, ""), platform(state.Windows, hostBuild)
	im.Platforms = []state.Platform{linux, windows, platform(state.Windows, oldBuild)}
	switch h.odd[repository(name)] {
	case "no-os-version":
		im.Platforms = []state.Platform{linux, platform(state.Windows, "")}
	case "newer-build":
		im.Platforms = []state.Platform{linux, platform(state.Windows, "10.0.26100.1742")}
	case "linux-only":
		im.Platforms = []state.Platform{linux}
	case "wrong-media-type":
		return state.Image{Name: name, Assumed: true, Failure: state.LookupMalformed}
	}
	return im
}

// repository is the workload that an image is of: "sim.example/app1:3" is app1's.
func repository(name string) string {
	_, rest, _ := strings.Cut(name, "/")
	repo, _, _ := strings.Cut(rest, ":")
	return repo
}

// answer is what a look-up finds.
func (h *hub) answer(name string) state.Image {
	if h.w.now < h.down || h.w.chance("lookup-fails") {
		return state.Image{Name: name, Assumed: true, Failure: state.LookupUnavailable}
	}
	return h.image(name)
}
