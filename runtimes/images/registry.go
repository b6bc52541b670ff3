package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A registry asks the registry that an image's name names.
type registry struct {
	options  []remote.Option
	keychain authn.Keychain // the machine's own
	keys     Credentials    // of pull Secrets: they come first
	opened   *opened
}

// opened remembers, for one look-up, what opened a repository.
type opened struct {
	mu sync.Mutex
	by map[string]key
}

// A key is one way to be let in. The zero key is nobody's.
type key struct {
	auth *authn.AuthConfig // nil: anonymous
	pull bool              // of a pull Secret: others have to show that they have it too
}

func newRegistry(o Options) registry {
	keychain := o.Keychain
	if keychain == nil {
		keychain = authn.DefaultKeychain
	}
	through := &carrier{RoundTripper: o.Transport, stall: o.Stall, after: map[string]time.Time{}}
	if through.RoundTripper == nil {
		through.RoundTripper = remote.DefaultTransport
	}
	if through.stall == 0 {
		through.stall = DefaultStall
	}
	return registry{
		options:  []remote.Option{remote.WithTransport(through), remote.WithUserAgent("tandem")},
		keychain: keychain,
	}
}

// ways are what is tried for a repository, in order: credentials of pull
// Secrets, the machine's own, and nobody's only where there are none, as the
// kubelet does.
func (r registry) ways(ctx context.Context, repo name.Repository) ([]key, error) {
	r.opened.mu.Lock()
	known, ok := r.opened.by[repo.Name()]
	r.opened.mu.Unlock()
	if ok {
		return []key{known}, nil
	}
	var out []key
	for _, e := range r.keys.match(repo) {
		out = append(out, key{auth: &e.auth, pull: true})
	}
	own, err := authn.Resolve(ctx, r.keychain, repo)
	if err == nil && own != authn.Anonymous {
		var auth *authn.AuthConfig
		if auth, err = authn.Authorization(ctx, own); err == nil && *auth != (authn.AuthConfig{}) {
			out = append(out, key{auth: auth})
		}
	}
	switch {
	case len(out) > 0: // one of them may do
		return out, nil
	case err != nil:
		return nil, &coded{state.LookupUnavailable, fmt.Errorf("read this machine's credentials for %s (docker's configuration or its helper): %w", repo.RegistryStr(), err)}
	default:
		return []key{{}}, nil
	}
}

// open does something with a repository, in each way until one opens it.
func (r registry) open(ctx context.Context, repo name.Repository, do func(...remote.Option) error) error {
	ways, err := r.ways(ctx, repo)
	if err != nil {
		return err
	}
	var worst error
	for _, k := range ways {
		auth := authn.Anonymous
		if k.auth != nil {
			auth = authn.FromConfig(*k.auth)
		}
		options := append([]remote.Option{remote.WithContext(ctx), remote.WithAuth(auth)}, r.options...)
		err := do(options...)
		if err == nil {
			r.opened.mu.Lock()
			r.opened.by[repo.Name()] = k
			r.opened.mu.Unlock()
			return nil
		}
		err = classify(hide(err, k.auth))
		if c, ok := errors.AsType[*coded](err); worst == nil || ok && c.code == state.LookupDenied {
			worst = err
		}
		if _, ok := errors.AsType[*transport.Error](err); !ok {
			break // nobody answered: other credentials change nothing
		}
	}
	return r.explain(worst, repo)
}

// explain tells a refusal with what is known of the pull Secrets.
func (r registry) explain(err error, repo name.Repository) error {
	c, ok := errors.AsType[*coded](err)
	if !ok || c.code != state.LookupDenied {
		return err
	}
	notes := r.keys.Notes()
	if len(r.keys.entries) > 0 && len(r.keys.match(repo)) == 0 {
		notes = append(notes, fmt.Sprintf("the pull Secrets have credentials for %s, none for %s", strings.Join(r.keys.places(), ", "), repo.Name()))
	}
	if len(notes) == 0 {
		return err
	}
	return &coded{c.code, fmt.Errorf("%w (%s)", c.err, strings.Join(notes, "; "))}
}

// find implements place.
func (r registry) find(ctx context.Context, n imageName) (document, error) {
	return r.fetch(ctx, n.ref)
}

// document implements place.
func (r registry) document(ctx context.Context, n imageName, d state.Digest) (document, error) {
	return r.fetch(ctx, n.ref.Context().Digest(d.String()))
}

func (r registry) fetch(ctx context.Context, ref name.Reference) (document, error) {
	var got *remote.Descriptor
	err := r.open(ctx, ref.Context(), func(o ...remote.Option) (err error) {
		got, err = remote.Get(ref, o...)
		return err
	})
	if err != nil {
		return document{}, err
	}
	digest, err := parseDigest(got.Digest.String())
	if err != nil {
		return document{}, malformed("%s: %w", ref, err)
	}
	return checkDocument(got.Manifest, string(got.MediaType), digest, ref.Name())
}

// blob implements place. Layers are large, so nothing is asked before the
// reader is used.
func (r registry) blob(ctx context.Context, n imageName, d descriptor) (io.ReadCloser, error) {
	digest, err := parseDigest(d.Digest)
	if err != nil {
		return nil, malformed("read a descriptor: %w", err)
	}
	var body io.ReadCloser
	err = r.open(ctx, n.ref.Context(), func(o ...remote.Option) error {
		layer, err := remote.Layer(n.ref.Context().Digest(d.Digest), o...)
		if err != nil {
			return err
		}
		body, err = layer.Compressed()
		return err
	})
	if err != nil {
		return nil, err
	}
	return verify(body, digest, d.Size, "blob "+d.Digest+" from "+n.ref.Context().RegistryStr()), nil
}

// opener implements grantor.
func (r registry) opener(n imageName) key {
	r.opened.mu.Lock()
	defer r.opened.mu.Unlock()
	return r.opened.by[n.ref.Context().Name()]
}
