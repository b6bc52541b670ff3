package state

// Living finds what a state is made of among the blobs, without reading them:
// with its Snapshot it makes a copy. A manifest found so has only the objects
// that the state still has.
func Living(s *State) Blobs {
	l := &living{Blobs: s.blobs, manifests: map[Digest]*Manifest{}, templates: map[Digest]*Template{}}
	for _, o := range s.Objects {
		m := l.manifests[o.Manifest]
		if m == nil {
			m = &Manifest{App: o.App, Digest: o.Manifest}
			l.manifests[o.Manifest] = m
		}
		m.Objects = append(m.Objects, o.Object)
	}
	keep := func(t *Template) {
		if t != nil {
			l.templates[t.Digest] = t
		}
	}
	for _, w := range s.Workloads {
		if w.Parent != nil && !l.has(w.Parent.Manifest, w.Parent.CronJob) {
			// It was begun by an older text of its CronJob.
			delete(l.manifests, w.Parent.Manifest)
		}
		for _, v := range w.Variants {
			keep(v.Update)
			keep(v.Current)
			for _, h := range v.History {
				keep(h.Template)
			}
		}
		for _, p := range w.Pods {
			keep(p.Template)
		}
	}
	return l
}

type living struct {
	Blobs
	manifests map[Digest]*Manifest
	templates map[Digest]*Template
}

func (l *living) has(manifest Digest, ref Ref) bool {
	m := l.manifests[manifest]
	return m != nil && m.Find(ref) != nil
}

// Manifest implements Blobs.
func (l *living) Manifest(d Digest) (*Manifest, error) {
	if m := l.manifests[d]; m != nil {
		return m, nil
	}
	return l.Blobs.Manifest(d)
}

// Template implements Blobs.
func (l *living) Template(d Digest) (*Template, error) {
	if t := l.templates[d]; t != nil {
		return t, nil
	}
	return l.Blobs.Template(d)
}

// Template finds a template that a record names, also one that no workload has
// any more.
func (s *State) Template(d Digest) (*Template, error) { return s.blobs.Template(d) }
