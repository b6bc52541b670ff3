package agent

import (
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// templateCache keeps the stored forms of templates that streams carry. It
// holds what the assignments of the moment need: when it has grown past
// templatesMost it starts anew.
type templateCache struct {
	mu  sync.Mutex
	raw map[state.Digest][]byte
}

const templatesMost = 4096

func (c *templateCache) bytes(t *state.Template) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if raw, ok := c.raw[t.Digest]; ok {
		return raw
	}
	if c.raw == nil || len(c.raw) > templatesMost {
		c.raw = map[state.Digest][]byte{}
	}
	_, raw := state.NewTemplate(t.OS, &t.Spec, t.Images)
	c.raw[t.Digest] = raw
	return raw
}
