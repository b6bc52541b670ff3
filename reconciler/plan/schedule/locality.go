package schedule

import (
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
)

// Where images are is known from the pods: a node has an image if a pod that it
// still has is made from it. So the score needs no report, and replays.
//
// Kubernetes (ImageLocality) multiplies by the share of nodes that have the
// image, over nodes of every OS, which makes it weakest where pulls take
// minutes. Here the bytes that one node needn't fetch count, of the manifest
// that this node would run.
const (
	localityFloor = 23 << 20   // less isn't worth a score (Kubernetes: minThreshold)
	localityTop   = 1000 << 20 // per image; more scores no more (Kubernetes: maxContainerThreshold)
	weightImages  = 1          // ImageLocality
)

// locality is which nodes have which images of the batch's pods.
type locality struct {
	names []string       // of those images whose size is known and worth it
	have  []map[int]bool // by node, of names; nil: none
}

// locate finds the nodes that have images of the batch.
func (b *batch) locate() {
	l := &locality{}
	for i := range b.class.images {
		img := &b.class.images[i]
		if slices.ContainsFunc(img.Platforms, func(p state.Platform) bool { return p.Size >= localityFloor }) {
			l.names = append(l.names, img.Name)
		}
	}
	if len(l.names) == 0 {
		return
	}
	b.local = l
	l.have = make([]map[int]bool, len(b.nodes))
	known := map[*state.Template][]int{}
	note := func(t *state.Template, node state.NodeName) {
		shared, ok := known[t]
		if !ok {
			shared = b.shares(t)
			known[t] = shared
		}
		if len(shared) == 0 {
			return
		}
		if at, ok := b.index(node); ok {
			l.note(at, shared)
		}
	}
	for _, w := range b.state.Workloads {
		for _, p := range w.Pods {
			note(p.Template, p.Node)
		}
	}
	for _, p := range b.after {
		note(p.Template, p.Node)
	}
}

func (l *locality) note(node int32, images []int) {
	if l.have[node] == nil {
		l.have[node] = map[int]bool{}
	}
	for _, i := range images {
		l.have[node][i] = true
	}
}

// shares are the batch's images that a template has too: by what the names mean,
// since a tag may have moved.
func (b *batch) shares(t *state.Template) []int {
	var out []int
	for i, name := range b.local.names {
		ours, _ := b.class.template.Image(name)
		if slices.ContainsFunc(t.Images, func(im state.Image) bool { return !im.Assumed && im.Index == ours.Index && !im.Index.IsZero() }) {
			out = append(out, i)
		}
	}
	return out
}

// scoreImages is the share of the bytes that the node needn't fetch.
func (b *batch) scoreImages(node int32) int64 {
	if b.local == nil {
		return 0
	}
	have := b.local.have[node]
	if len(have) == 0 {
		return 0
	}
	c := &b.nodes[node]
	var bytes int64
	for i := range b.local.names {
		if !have[i] {
			continue
		}
		img, _ := b.class.template.Image(b.local.names[i])
		if p, ok := platform.Of(img, c.node.Facts, c.iso); ok && p.Size >= localityFloor {
			bytes += min(p.Size, localityTop)
		}
	}
	return weightImages * share(bytes, int64(len(b.local.names))*localityTop)
}

// localise notes that a pod of the batch brings its images to a node.
func (b *batch) localise(node int32) {
	if b.local == nil || len(b.local.have[node]) == len(b.local.names) {
		return
	}
	for i := range b.local.names {
		b.local.note(node, []int{i})
	}
	c := &b.nodes[node]
	c.fixed = b.class.fixedScore(c.node) + b.scoreImages(node)
}
