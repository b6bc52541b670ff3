package kubeapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// maxRing is how many changes of one resource a watch can be behind before it
// must list again.
const maxRing = 8192

// A cache holds the objects of one resource as they were at the watermark when
// somebody last asked, and the changes that it saw. It is filled by those who
// ask: where nobody does, it costs nothing.
type cache struct {
	api      *api
	resource *resource

	mu      sync.Mutex
	seq     state.Seq // the watermark that entries are of
	floor   state.Seq // changes after it are in ring
	entries map[key]*entry
	ring    []change
}

// An entry is an object, built when it last changed.
type entry struct {
	key    key
	uid    string
	finger finger
	object object
	seen   state.Seq // the scan that last met it

	once sync.Once
	raw  []byte
}

// JSON is the object's encoding, made once for all who watch.
func (e *entry) JSON() []byte {
	e.once.Do(func() {
		raw, err := json.Marshal(e.object)
		if err != nil {
			panic(fmt.Sprintf("%T does not marshal: %v", e.object, err))
		}
		e.raw = raw
	})
	return e.raw
}

// A change is one step of one object: before is nil where it was made, now is
// nil where it went.
type change struct {
	seq         state.Seq
	before, now *entry
}

func newCache(a *api, r *resource) *cache {
	return &cache{api: a, resource: r, entries: map[key]*entry{}}
}

// A scan compares the state with the cache's entries. It runs within View.
type scan struct {
	state *state.State
	cache *cache
	first bool
}

// same says that an object is there and has not changed since it was built.
func (s *scan) same(k key, uid string, f finger) bool {
	e := s.cache.entries[k]
	if e == nil || e.finger != f || e.uid != uid {
		return false
	}
	e.seen = s.state.Seq
	return true
}

// put takes a new or changed object.
func (s *scan) put(k key, uid string, f finger, o object) {
	c := s.cache
	r := c.resource
	o.SetResourceVersion(strconv.FormatUint(uint64(s.state.Seq), 10))
	o.GetObjectKind().SetGroupVersionKind(groupVersionKind(r))
	e := &entry{key: k, uid: uid, finger: f, object: o, seen: s.state.Seq}
	old := c.entries[k]
	c.entries[k] = e
	if s.first {
		return
	}
	if old != nil && old.uid != uid {
		c.push(change{seq: s.state.Seq, before: old})
		old = nil
	}
	c.push(change{seq: s.state.Seq, before: old, now: e})
}

func (c *cache) push(ch change) {
	c.ring = append(c.ring, ch)
	if len(c.ring) > 2*maxRing {
		// Only whole records are dropped, so that a client has all of one or none.
		cut := len(c.ring) - maxRing
		c.floor = c.ring[cut-1].seq
		for cut < len(c.ring) && c.ring[cut].seq == c.floor {
			cut++
		}
		c.ring = slices.Clone(c.ring[cut:])
	}
}

// sync brings the cache to the watermark.
func (c *cache) sync() {
	if c.resource.before != nil {
		c.resource.before()
	}
	c.api.Controller.View(func(s *state.State) {
		if s.Seq == c.seq {
			return
		}
		sc := &scan{state: s, cache: c, first: c.seq == 0}
		c.resource.scan(sc)
		for k, e := range c.entries {
			if e.seen != s.Seq {
				delete(c.entries, k)
				c.push(change{seq: s.Seq, before: e})
			}
		}
		if sc.first {
			c.floor = s.Seq
		}
		c.seq = s.Seq
	})
}

// all are the entries now, sorted, and the position they are of.
func (c *cache) all() ([]*entry, state.Seq) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sync()
	es := make([]*entry, 0, len(c.entries))
	for _, e := range c.entries {
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b *entry) int {
		if n := strings.Compare(a.key.namespace, b.key.namespace); n != 0 {
			return n
		}
		return strings.Compare(a.key.name, b.key.name)
	})
	return es, c.seq
}

// find is one entry now, or nil.
func (c *cache) find(k key) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sync()
	return c.entries[k]
}

// since are the changes after a position, and the position that they lead to.
// It fails where the position is older or newer than what is known.
func (c *cache) since(after state.Seq) ([]change, state.Seq, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sync()
	if after < c.floor || after > c.seq {
		return nil, 0, expired(after, c.floor, c.seq)
	}
	i, _ := slices.BinarySearchFunc(c.ring, after+1, func(ch change, s state.Seq) int {
		if ch.seq < s {
			return -1
		}
		return 1
	})
	return slices.Clone(c.ring[i:]), c.seq, nil
}

// meta is the metadata that Tandem gives to an object which was written in Git.
func meta(s *state.State, o *state.Owned) metav1.ObjectMeta {
	body := o.Object.First()
	ref := o.Object.Ref
	m := metav1.ObjectMeta{
		Name: ref.Name, Namespace: ref.Namespace, Labels: body.GetLabels(),
		UID: uidOf(s, ref, o.Created), CreationTimestamp: metav1.NewTime(o.Created.Time()), Generation: int64(o.Changed),
		Annotations: map[string]string{"tandem.dev/application": string(o.App)},
	}
	for k, v := range body.GetAnnotations() {
		if k != "kubectl.kubernetes.io/last-applied-configuration" {
			m.Annotations[k] = v
		}
	}
	if at := o.Object.Variants[0].Origin; at.Path != "" {
		at.Revision, at.Via = "", ""
		m.Annotations["tandem.dev/origin"] = at.String()
	}
	if app := s.Apps[o.App]; app != nil && app.Revision != "" {
		m.Annotations["tandem.dev/revision"] = string(app.Revision)
	}
	if o.Retired {
		m.Annotations["tandem.dev/retired"] = "left the text; a pod still needs it"
	}
	if o.Kept {
		m.Annotations["tandem.dev/kept"] = "left the text; not pruned"
	}
	return m
}
