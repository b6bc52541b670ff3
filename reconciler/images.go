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

// lookups are the names that were asked for, by application.
type lookups struct {
	of    map[state.AppName]map[state.ImageKey]*lookup
	stale map[state.AppName]bool // applications of which names may have come or gone
	due   alarms[state.ImageKey]
}

func newLookups() lookups {
	return lookups{of: map[state.AppName]map[state.ImageKey]*lookup{}, stale: map[state.AppName]bool{}}
}

// drop forgets that a name was asked for.
func (l *lookups) drop(k state.ImageKey) {
	l.due.set(k, 0)
	delete(l.of[k.App], k)
	if len(l.of[k.App]) == 0 {
		delete(l.of, k.App)
	}
}

// add notes that a name is asked for.
func (l *lookups) add(k state.ImageKey, one *lookup) {
	if l.of[k.App] == nil {
		l.of[k.App] = map[state.ImageKey]*lookup{}
	}
	l.of[k.App][k] = one
	l.due.set(k, one.next)
}

// lookUps asks what the image names of every application's manifest mean: once
// a manifest and application, again only while there is no answer.
func (m *Machine) lookUps() {
	for _, k := range m.lookups.due.due(m.now.Mono) {
		m.lookups.stale[k.App] = true
	}
	for _, app := range sorted(m.lookups.stale) {
		m.lookUpsOf(app)
	}
	clear(m.lookups.stale)
}

// lookUpsOf asks for the names of one application.
func (m *Machine) lookUpsOf(name state.AppName) {
	wanted := map[state.ImageKey]bool{}
	if app := m.fold.Apps[name]; app != nil {
		for _, w := range m.fold.Inventory(name).Workloads {
			for _, v := range w.Variants {
				if w.Deleting {
					continue
				}
				for _, image := range state.ImageNames(&v.Spec.Spec) {
					wanted[state.ImageKey{App: name, Manifest: app.Manifest, Name: image}] = true
				}
			}
		}
	}
	for k := range m.lookups.of[name] {
		if !wanted[k] {
			m.lookups.drop(k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(wanted), compareKeys) {
		m.lookUp(k)
	}
}

// lookUp asks for a name, where that is due.
func (m *Machine) lookUp(k state.ImageKey) {
	l, known := m.lookups.of[k.App][k], m.fold.Images[k]
	switch {
	case known != nil && !known.Assumed:
		m.lookups.drop(k)
		return
	case l == nil && known == nil:
		l = &lookup{}
	case l == nil:
		// Known to have failed before a restart.
		m.lookups.add(k, &lookup{tries: 1, next: m.now.Mono + lookupFirst})
		return
	case l.next > m.now.Mono:
		return
	}
	l.tries++
	l.next = m.now.Mono + min(lookupFirst<<min(l.tries-1, 10), lookupLast)
	m.lookups.add(k, l)
	m.out.Effects = append(m.out.Effects, &state.LookUp{App: k.App, Manifest: k.Manifest, Image: k.Name, Secrets: m.fold.ImageSecrets(k.App, k.Name)})
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
