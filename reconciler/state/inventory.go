package state

import (
	"fmt"
	"maps"
	"slices"
)

// An Inventory is what one application has, so that what is asked about one
// doesn't go through those of all. Its order says nothing.
type Inventory struct {
	Objects   []*Owned
	Workloads []*Workload // with the Jobs that its CronJobs began
}

// places are where an Owned or a Workload lies in the indexes, so that it can be
// taken out without a search.
type places struct{ app, namespace, retired int }

// indexes are parts of a State found by something else than their name. They are
// made of it alone: Check says whether they are what going through all would give.
type indexes struct {
	inventories map[AppName]*Inventory
	namespaces  map[string][]*Workload
	retired     []*Owned
	images      map[AppName][]ImageKey
	users       map[Ref]map[*Node]int // how many pods of a node name a ConfigMap or Secret, or are under a ServiceAccount
	givers      map[Ref]map[Ref]int   // the ServiceAccounts that give a Secret
}

func newIndexes() indexes {
	return indexes{
		inventories: map[AppName]*Inventory{}, namespaces: map[string][]*Workload{}, images: map[AppName][]ImageKey{}, users: map[Ref]map[*Node]int{},
		givers: map[Ref]map[Ref]int{},
	}
}

// Inventory is what an application has. It must not be kept.
func (s *State) Inventory(app AppName) Inventory {
	if i := s.inventories[app]; i != nil {
		return *i
	}
	return Inventory{}
}

// WorkloadsIn are those of a namespace, in no order. The slice must not be kept.
func (s *State) WorkloadsIn(namespace string) []*Workload { return s.namespaces[namespace] }

// Retired are the objects that left the text and that a pod may still need, in
// no order. The slice must not be kept.
func (s *State) Retired() []*Owned { return s.retired }

// Users are the nodes of which pods use a ConfigMap, Secret or ServiceAccount, in
// no order.
func (s *State) Users(config Ref) []NodeName {
	var out []NodeName
	for n := range s.nodesOf(config) {
		out = append(out, n.Name)
	}
	return out
}

// nodesOf are the same.
func (s *State) nodesOf(config Ref) map[*Node]int {
	if len(s.givers[config]) == 0 {
		return s.users[config]
	}
	out := maps.Clone(s.users[config])
	if out == nil {
		out = map[*Node]int{}
	}
	for account := range s.givers[config] {
		maps.Copy(out, s.users[account])
	}
	return out
}

// gives counts a ServiceAccount (1), or no longer (-1), among those that give its
// pull Secrets to pods.
func (s *State) gives(o *Object, by int) {
	for _, name := range AccountSecrets(o, AnyOS) {
		secret := Ref{Kind: "Secret", Namespace: o.Ref.Namespace, Name: name}
		if s.givers[secret] == nil {
			s.givers[secret] = map[Ref]int{}
		}
		if s.givers[secret][o.Ref] += by; s.givers[secret][o.Ref] == 0 {
			delete(s.givers[secret], o.Ref)
		}
		if len(s.givers[secret]) == 0 {
			delete(s.givers, secret)
		}
	}
}

func (s *State) inventory(app AppName) *Inventory {
	i := s.inventories[app]
	if i == nil {
		i = &Inventory{}
		s.inventories[app] = i
	}
	return i
}

// tidy drops an inventory that has nothing any more.
func (s *State) tidy(app AppName) {
	if i := s.inventories[app]; len(i.Objects) == 0 && len(i.Workloads) == 0 {
		delete(s.inventories, app)
	}
}

// take removes what lies at a place, by putting the last there; place says where
// that keeps its own.
func take[T any](list []T, at int, place func(T) *int) []T {
	last := len(list) - 1
	list[at] = list[last]
	*place(list[at]) = at
	var none T
	list[last] = none
	return list[:last]
}

func ownedInApp(o *Owned) *int       { return &o.places.app }
func ownedRetired(o *Owned) *int     { return &o.places.retired }
func workloadInApp(w *Workload) *int { return &w.places.app }
func workloadIn(w *Workload) *int    { return &w.places.namespace }

// enter puts an object into its application's inventory.
func (s *State) enter(o *Owned) {
	i := s.inventory(o.App)
	o.places.app = len(i.Objects)
	i.Objects = append(i.Objects, o)
}

// leave takes an object out of its application's inventory.
func (s *State) leave(o *Owned) {
	i := s.inventories[o.App]
	i.Objects = take(i.Objects, o.places.app, ownedInApp)
	s.tidy(o.App)
}

// retire notes whether an object left the text and a pod may still need it.
func (s *State) retire(o *Owned, on bool) {
	switch {
	case o.Retired == on:
	case on:
		o.places.retired = len(s.retired)
		s.retired = append(s.retired, o)
	default:
		s.retired = take(s.retired, o.places.retired, ownedRetired)
	}
	o.Retired = on
}

// Enroll puts a workload into the state. But for tests that make a state by hand,
// only Apply does.
func (s *State) Enroll(w *Workload) {
	s.Workloads[w.Ref] = w
	s.join(w)
}

// leans counts a pod (1), or no longer (-1), among those that say which pods they
// want near or far, where it does.
func (s *State) leans(w *Workload, t *Template, by int) {
	if w.Affine += by * t.affine(); w.Affine != 0 {
		s.Affine[w.Ref] = w
	} else {
		delete(s.Affine, w.Ref)
	}
}

// join puts a workload where it is found.
func (s *State) join(w *Workload) {
	i := s.inventory(w.App)
	w.places.app = len(i.Workloads)
	i.Workloads = append(i.Workloads, w)
	list := s.namespaces[w.Ref.Namespace]
	w.places.namespace = len(list)
	s.namespaces[w.Ref.Namespace] = append(list, w)
	if w.Ref.Kind == "DaemonSet" {
		s.Daemons[w.Ref] = w
	}
	if w.Affine != 0 {
		s.Affine[w.Ref] = w
	}
}

// part takes a workload away from where it is found.
func (s *State) part(w *Workload) {
	i := s.inventories[w.App]
	i.Workloads = take(i.Workloads, w.places.app, workloadInApp)
	s.tidy(w.App)
	if list := take(s.namespaces[w.Ref.Namespace], w.places.namespace, workloadIn); len(list) > 0 {
		s.namespaces[w.Ref.Namespace] = list
	} else {
		delete(s.namespaces, w.Ref.Namespace)
	}
	delete(s.Daemons, w.Ref)
	delete(s.Affine, w.Ref)
}

// resolve notes what an image name means.
func (s *State) resolve(k ImageKey, im *Image) {
	if s.Images[k] == nil {
		s.images[k.App] = append(s.images[k.App], k)
	}
	s.Images[k] = im
}

func (s *State) forgetImages(a *App, manifest Digest) {
	app := a.Spec.Name
	kept := slices.DeleteFunc(s.images[app], func(k ImageKey) bool {
		if k.Manifest == manifest {
			delete(s.Images, k)
		}
		return k.Manifest == manifest
	})
	if s.images[app] = kept; len(kept) == 0 {
		delete(s.images, app)
	}
}

// uses counts a pod (1), or no longer (-1), among those that name what it names.
func (s *State) uses(p *Pod, n *Node, by int) {
	configs := p.Template.Configs
	if p.Template.Account != "" {
		configs = append(slices.Clone(configs), Config{Kind: AccountKind, Name: p.Template.Account})
	}
	for _, c := range configs {
		ref := Ref{Kind: c.Kind, Namespace: p.Key.Namespace, Name: c.Name}
		nodes := s.users[ref]
		if nodes == nil {
			nodes = map[*Node]int{}
			s.users[ref] = nodes
		}
		if nodes[n] += by; nodes[n] == 0 {
			delete(nodes, n)
		}
		if len(nodes) == 0 {
			delete(s.users, ref)
		}
	}
}

// Check says where an index isn't what going through all would give; for tests
// and the simulation.
func (s *State) Check() error {
	want := New(s.blobs)
	apps := map[AppName]int{}
	for _, o := range s.Objects {
		apps[o.App]++
		if i := s.inventories[o.App]; i == nil || o.places.app >= len(i.Objects) || i.Objects[o.places.app] != o {
			return fmt.Errorf("%s is not in the inventory of %q", o.Object.Ref, o.App)
		}
		if o.Retired && (o.places.retired >= len(s.retired) || s.retired[o.places.retired] != o) {
			return fmt.Errorf("%s is not among what is retired", o.Object.Ref)
		}
		want.retire(&Owned{}, o.Retired)
		want.gives(o.Object, 1)
	}
	for _, w := range s.Workloads {
		apps[w.App]++
		if i := s.inventories[w.App]; i == nil || w.places.app >= len(i.Workloads) || i.Workloads[w.places.app] != w {
			return fmt.Errorf("%s is not in the inventory of %q", w.Ref, w.App)
		}
		list := s.namespaces[w.Ref.Namespace]
		if w.places.namespace >= len(list) || list[w.places.namespace] != w {
			return fmt.Errorf("%s is not in the index of its namespace", w.Ref)
		}
		want.namespaces[w.Ref.Namespace] = append(want.namespaces[w.Ref.Namespace], w)
		if w.Ref.Kind == "DaemonSet" {
			want.Daemons[w.Ref] = w
		}
		leaning := 0
		for _, p := range w.Pods {
			leaning += p.Template.affine()
		}
		if leaning != w.Affine || (s.Affine[w.Ref] == w) != (leaning > 0) {
			return fmt.Errorf("%s is not indexed by its %d pods that want others near or far", w.Ref, leaning)
		}
	}
	for ref := range s.Affine {
		if s.Workloads[ref] == nil {
			return fmt.Errorf("%s is indexed by its affinity, and is gone", ref)
		}
	}
	for _, n := range s.Nodes {
		want.watch(n)
		for _, p := range n.Pods {
			want.uses(p, n, 1)
		}
	}
	for k, im := range s.Images {
		want.resolve(k, im)
	}
	for app, i := range s.inventories {
		if len(i.Objects)+len(i.Workloads) != apps[app] {
			return fmt.Errorf("the inventory of %q has %d objects and workloads, there are %d", app, len(i.Objects)+len(i.Workloads), apps[app])
		}
	}
	switch {
	case len(s.retired) != len(want.retired):
		return fmt.Errorf("%d objects are indexed as retired, %d are", len(s.retired), len(want.retired))
	case !maps.EqualFunc(s.namespaces, want.namespaces, func(a, b []*Workload) bool { return len(a) == len(b) }):
		return fmt.Errorf("the index of namespaces has others than there are")
	case !maps.Equal(s.Daemons, want.Daemons):
		return fmt.Errorf("the index of DaemonSets has others than there are")
	case !maps.Equal(s.Restless, want.Restless):
		return fmt.Errorf("%d nodes are indexed as restless, %d are", len(s.Restless), len(want.Restless))
	case !maps.EqualFunc(s.users, want.users, maps.Equal[map[*Node]int, map[*Node]int]):
		return fmt.Errorf("the index of who names a ConfigMap or Secret is wrong")
	case !maps.EqualFunc(s.givers, want.givers, maps.Equal[map[Ref]int, map[Ref]int]):
		return fmt.Errorf("the index of ServiceAccounts that give a Secret is wrong")
	case !maps.EqualFunc(s.images, want.images, func(a, b []ImageKey) bool { return len(a) == len(b) }):
		return fmt.Errorf("the index of images is wrong")
	}
	return nil
}
