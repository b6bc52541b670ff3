package reconciler

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A look-up that failed is tried again, with back-off.
const (
	lookupFirst = 10 * time.Second
	lookupLast  = 5 * time.Minute
)

// lookup is an image name whose meaning was asked for.
type lookup struct {
	tries int
	next  time.Duration // steady time of the next try; 0: none is due
}

// lookUps asks what the image names of every application's manifest mean: once
// a manifest and application, again only while there is no answer.
func (m *Machine) lookUps() {
	if !m.look && (m.nextLook == 0 || m.nextLook > m.now.Mono) {
		return
	}
	m.look, m.nextLook = false, 0
	wanted := map[state.ImageKey]bool{}
	for _, w := range m.fold.Workloads {
		app := m.fold.Apps[w.App]
		if app == nil || w.Deleting {
			continue
		}
		for _, v := range w.Variants {
			for _, name := range state.ImageNames(&v.Spec.Spec) {
				wanted[state.ImageKey{App: w.App, Manifest: app.Manifest, Name: name}] = true
			}
		}
	}
	maps.DeleteFunc(m.lookups, func(k state.ImageKey, _ *lookup) bool { return !wanted[k] })
	var open []state.ImageKey // few of all, once most are known
	for k := range wanted {
		if known := m.fold.Images[k]; known != nil && !known.Assumed {
			delete(m.lookups, k)
			continue
		}
		open = append(open, k)
	}
	slices.SortFunc(open, compareKeys)
	for _, k := range open {
		l, known := m.lookups[k], m.fold.Images[k]
		switch {
		case l == nil && known == nil:
			l = &lookup{}
			m.lookups[k] = l
		case l == nil:
			// Known to have failed before a restart.
			m.lookups[k] = &lookup{tries: 1, next: m.now.Mono + lookupFirst}
			continue
		case l.next == 0 || l.next > m.now.Mono:
			continue
		}
		l.tries++
		l.next = m.now.Mono + min(lookupFirst<<min(l.tries-1, 10), lookupLast)
		m.out.Effects = append(m.out.Effects, &state.LookUp{App: k.App, Manifest: k.Manifest, Image: k.Name})
	}
	for _, l := range m.lookups {
		m.nextLook = soonest(m.nextLook, l.next)
	}
}

func compareKeys(a, b state.ImageKey) int {
	if c := strings.Compare(string(a.App), string(b.App)); c != 0 {
		return c
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(string(a.Manifest[:]), string(b.Manifest[:]))
}

// looked records what a look-up found; a failure only once.
func (m *Machine) looked(e *state.ImageLooked) {
	k := state.ImageKey{App: e.App, Manifest: e.Manifest, Name: e.Image.Name}
	a := m.fold.Apps[e.App]
	if a == nil || a.Manifest != e.Manifest {
		return
	}
	if old := m.fold.Images[k]; old != nil && (!old.Assumed || e.Image.Assumed && old.Failure == e.Image.Failure) {
		return
	}
	m.cause = a.AppliedSeq
	m.emit(e.App, &state.ImageResolved{Manifest: e.Manifest, Image: e.Image})
}
