package worker

import (
	"sync"
	"weak"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// bodyCache finds bodies that something still holds, by what they say: most of
// a render is as it was in the one before, and need be neither sent nor decoded.
type bodyCache struct {
	mu      sync.Mutex
	objects map[bodyKey]weak.Pointer[state.Object]
	swept   int // how many were left by the last sweep
}

// bodyKey is a variant. Its digest is over all it says, secret values by a
// keyed token.
type bodyKey struct {
	ref    state.Ref
	digest state.Digest
}

func newBodyCache() *bodyCache {
	return &bodyCache{objects: map[bodyKey]weak.Pointer[state.Object]{}}
}

// find is nil where nobody holds such a body any more.
func (c *bodyCache) find(ref state.Ref, digest state.Digest) state.Body {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.objects[bodyKey{ref, digest}].Value()
	if o == nil {
		return nil
	}
	for i := range o.Variants {
		if o.Variants[i].Digest == digest {
			return o.Variants[i].Body
		}
	}
	return nil
}

// keep remembers objects for as long as others hold them.
func (c *bodyCache) keep(objects []*state.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range objects {
		for i := range o.Variants {
			c.objects[bodyKey{o.Ref, o.Variants[i].Digest}] = weak.Make(o)
		}
	}
	const few = 1024
	if len(c.objects) < 2*c.swept+few {
		return
	}
	for key, object := range c.objects {
		if object.Value() == nil {
			delete(c.objects, key)
		}
	}
	c.swept = len(c.objects)
}
