package act

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

type mapShelf map[state.Digest][]byte

func (m mapShelf) Put(d state.Digest, raw []byte) error { m[d] = raw; return nil }

func (m mapShelf) Open(d state.Digest) ([]byte, error) {
	if raw, ok := m[d]; ok {
		return raw, nil
	}
	return nil, errors.New("it is not there")
}

type noCodec struct{}

func (noCodec) Encode(m *state.Manifest) ([]byte, error) { return m.Digest[:], nil }

func (noCodec) Decode(raw []byte) (*state.Manifest, error) {
	return &state.Manifest{Digest: state.Digest(raw)}, nil
}

// What isn't stored yet stays findable however much comes after it; what is
// stored leaves memory and can be read again.
func TestLibraryIsBounded(t *testing.T) {
	l := NewLibrary(mapShelf{}, noCodec{})
	digest := func(i int) state.Digest { return state.DigestOf(fmt.Append(nil, i)) }
	fresh := reconciler.Blob{Digest: digest(-1), Manifest: &state.Manifest{Digest: digest(-1)}}
	l.remember(fresh)
	for i := range 3 * maxInMemory {
		b := reconciler.Blob{Digest: digest(i), Manifest: &state.Manifest{Digest: digest(i)}}
		l.remember(b)
		if err := l.store(b); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.manifests); n > maxInMemory+1 {
		t.Errorf("%d manifests are in memory, want at most %d", n, maxInMemory)
	}
	if m, err := l.Manifest(digest(-1)); err != nil || m != fresh.Manifest {
		t.Errorf("the one that isn't stored yet: %v, %v", m, err)
	}
	if m, err := l.Manifest(digest(0)); err != nil || m.Digest != digest(0) {
		t.Errorf("the oldest: %v, %v", m, err)
	}
}
