package images

import (
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// An imageName is a name that was read: what people wrote and what it means.
type imageName struct {
	written string
	ref     name.Reference
	digest  state.Digest // zero where the name has none
}

// parseName reads a name as docker and Kubernetes do: no registry means Docker
// Hub, no tag means latest.
func parseName(s string) (imageName, error) {
	ref, err := name.ParseReference(s)
	if err != nil {
		return imageName{}, malformed("read the name: %w", err)
	}
	n := imageName{written: s, ref: ref}
	if d, ok := ref.(name.Digest); ok {
		if n.digest, err = parseDigest(d.DigestStr()); err != nil {
			return imageName{}, malformed("read the name: %w", err)
		}
	}
	return n, nil
}

// matches says whether other, a name from a layout, is the same image.
func (n imageName) matches(other string) bool {
	if other == n.written {
		return true
	}
	ref, err := name.ParseReference(other)
	return err == nil && ref.Name() == n.ref.Name()
}

func parseDigest(s string) (state.Digest, error) {
	var d state.Digest
	if s == "" {
		return d, fmt.Errorf("digest is missing")
	}
	err := d.UnmarshalText([]byte(s))
	return d, err
}
