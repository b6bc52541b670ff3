package platform

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Build is a Windows version: the build of the kernel and the monthly
// revision (UBR). "10.0.20348.587" is {10, 0, 20348, 587}. A text may end
// early; what it doesn't say is -1 and matches anything.
type Build struct{ Major, Minor, Number, Revision int }

// Parse reads an os.version. It is false for text that isn't a version.
func Parse(text string) (Build, bool) {
	b := Build{-1, -1, -1, -1}
	parts := strings.Split(text, ".")
	if len(parts) < 3 {
		return b, false
	}
	for i, to := range []*int{&b.Major, &b.Minor, &b.Number, &b.Revision} {
		if i == len(parts) {
			break
		}
		n, err := strconv.Atoi(parts[i])
		if err != nil || n < 0 {
			return b, false
		}
		*to = n
	}
	return b, true
}

// Compare orders builds as numbers; a string comparison would put revision 587
// after 1000.
func (b Build) Compare(o Build) int {
	return slices.Compare([]int{b.Major, b.Minor, b.Number, b.Revision}, []int{o.Major, o.Minor, o.Number, o.Revision})
}

// A hostRange says which image builds a range of hosts runs by process
// isolation: those from floor up to the host's own build.
type hostRange struct {
	first, last int  // builds of the host
	floor       int  // oldest image build; 0: only the host's own
	revision    bool // the revision must be the same too
	name        string
}

// processTable is Microsoft's table of Windows container version compatibility,
// as hcsshim's osversion reads it. Builds in no range (Windows 10 19043 and
// later) have no process isolation.
//
// containerd's rule and hcsshim's differ above 26100: hcsshim makes 26100 the
// floor, containerd leaves it at 20348. This is hcsshim's: a wrong yes is a pod
// that HCS refuses with 0xc0370101, a wrong no is a reason that can be read,
// and Hyper-V still runs it.
func processTable() []hostRange {
	return []hostRange{
		{first: 14393, last: 14393, revision: true, name: "Server 2016"},
		{first: 16299, last: 17134, name: "Server, version 1709 or 1803"},
		{first: 17763, last: 17763, name: "Server 2019"},
		{first: 18362, last: 19042, name: "Server, version 1903 to 20H2"},
		{first: 20348, last: 20348, floor: 20348, name: "Server 2022"},
		{first: 22000, last: 22631, floor: 20348, name: "Windows 11"},
		{first: 25398, last: 25398, floor: 20348, name: "Server 23H2"},
		{first: 26100, last: 26100, floor: 20348, name: "Server 2025"},
		{first: 26101, last: 1 << 30, floor: 26100, name: "newer than Server 2025"},
	}
}

// hyperVFloor is the oldest image that runs in a Hyper-V guest: Server 2016, the
// first with containers.
const hyperVFloor = 14393

func hostRangeOf(number int) (hostRange, bool) {
	for _, r := range processTable() {
		if r.first <= number && number <= r.last {
			return r, true
		}
	}
	return hostRange{}, false
}

// OnlyItsRevision says whether hosts of a build run images of their own monthly
// revision alone, and what such a host is called.
func OnlyItsRevision(number int) (name string, only bool) {
	r, ok := hostRangeOf(number)
	return r.name, ok && r.revision
}

// HostProcess says whether a pod's containers are processes of the host itself.
func HostProcess(spec *corev1.PodSpec) bool {
	yes := func(o *corev1.WindowsSecurityContextOptions) bool {
		return o != nil && o.HostProcess != nil && *o.HostProcess
	}
	if spec.SecurityContext != nil && yes(spec.SecurityContext.WindowsOptions) {
		return true
	}
	for i := range spec.Containers {
		if sc := spec.Containers[i].SecurityContext; sc != nil && yes(sc.WindowsOptions) {
			return true
		}
	}
	return false
}

// Name is a build for people: "17763 (Server 2019)".
func Name(number int) string {
	if r, ok := hostRangeOf(number); ok && r.first == r.last {
		return strconv.Itoa(number) + " (" + r.name + ")"
	}
	return strconv.Itoa(number)
}

// runs says whether a host runs an image of a build under an isolation.
func runs(host, image Build, iso state.Isolation) bool {
	if host.Major != image.Major || host.Minor != image.Minor || image.Number > host.Number {
		return false // never a newer image on an older host
	}
	if iso == state.HyperV {
		return image.Number >= hyperVFloor
	}
	r, ok := hostRangeOf(host.Number)
	switch {
	case !ok:
		return false
	case r.floor == 0 && image.Number != host.Number, image.Number < r.floor:
		return false
	case r.revision && image.Revision >= 0 && host.Revision >= 0:
		return image.Revision == host.Revision
	}
	return true
}

// Of is the manifest of an image that a node runs under an isolation: same OS
// and architecture and, on Windows, the numerically highest version that the
// node's build runs. A manifest without os.version runs
// anywhere (the field is optional in OCI) and is taken where none says its
// version. Among equals the first of the index is taken.
func Of(img state.Image, facts state.NodeFacts, iso state.Isolation) (state.Platform, bool) {
	p, reason := Match(&img, &facts, iso, false)
	return p, reason == state.NodeFits
}

// Match is Of with the reason why nothing matches. HostProcess containers ignore
// the version (anyBuild): they have the host's own files.
func Match(img *state.Image, facts *state.NodeFacts, iso state.Isolation, anyBuild bool) (state.Platform, state.NodeReason) {
	var host Build
	if facts.OS == state.Windows {
		host, _ = Parse(facts.OSVersion) // unknown: only images without a version match
	}
	best, bestBuild, found := state.Platform{}, Build{-1, -1, -1, -1}, false
	reason := state.NodeNoImage
	for i := range img.Platforms {
		p := &img.Platforms[i]
		if p.OS != facts.OS {
			continue
		}
		if p.Arch != "" && p.Arch != facts.Arch {
			if reason == state.NodeNoImage {
				reason = state.NodeOtherArch
			}
			continue
		}
		at := Build{-1, -1, -1, -1}
		if facts.OS == state.Windows && p.OSVersion != "" {
			v, ok := Parse(p.OSVersion)
			if !ok || !anyBuild && !runs(host, v, iso) {
				reason = state.NodeOtherBuild
				continue
			}
			at = v
		}
		if !found || at.Compare(bestBuild) > 0 {
			best, bestBuild, found = *p, at, true
		}
	}
	if found {
		return best, state.NodeFits
	}
	return state.Platform{}, reason
}

// Isolations are the ways in which a node keeps pods apart, best first: process
// isolation costs nothing, Hyper-V a guest. A Windows node that names none has
// process isolation; Linux has one way without a name.
func Isolations(facts *state.NodeFacts) []state.Isolation {
	if facts.OS != state.Windows {
		return []state.Isolation{state.NoIsolation}
	}
	if len(facts.Isolations) == 0 {
		return []state.Isolation{state.Process}
	}
	var out []state.Isolation
	for _, iso := range []state.Isolation{state.Process, state.HyperV} {
		if slices.Contains(facts.Isolations, iso) {
			out = append(out, iso)
		}
	}
	return out
}
