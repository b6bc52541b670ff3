package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A registry asks the registry that an image's name names.
type registry struct{ options []remote.Option }

func newRegistry(o Options) registry {
	keychain := o.Keychain
	if keychain == nil {
		keychain = authn.DefaultKeychain
	}
	carrier := o.Transport
	if carrier == nil {
		carrier = remote.DefaultTransport
	}
	return registry{[]remote.Option{
		remote.WithAuthFromKeychain(keychain), remote.WithTransport(guarded{carrier}), remote.WithUserAgent("tandem"),
	}}
}

// guarded lets plain HTTP through to this machine only: images are code, and
// the name of a private address proves nothing about who answers.
type guarded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !loopback(r.URL.Hostname()) {
		return nil, &coded{state.LookupUnavailable, fmt.Errorf("registry %s speaks plain HTTP only, which is allowed for localhost alone; give it a certificate", r.URL.Host)}
	}
	answer, err := g.RoundTripper.RoundTrip(r)
	if err == nil && !strings.Contains(r.URL.Path, "/blobs/") {
		answer.Body = &bounded{ReadCloser: answer.Body, left: manifestLimit, where: r.URL.Host + r.URL.Path}
	}
	return answer, err //nolint:wrapcheck // a transport hands on what it carries
}

// bounded is an answer that is read into memory whole, and so has an end.
type bounded struct {
	io.ReadCloser
	left  int
	where string
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, refused(state.LookupTooLarge, "%w", tooLarge(b.where, manifestLimit))
	}
	return n, err //nolint:wrapcheck // a reader hands on its source's error
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func (r registry) with(ctx context.Context) []remote.Option {
	return append([]remote.Option{remote.WithContext(ctx)}, r.options...)
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
	got, err := remote.Get(ref, r.with(ctx)...)
	if err != nil {
		return document{}, classify(err)
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
	layer, err := remote.Layer(n.ref.Context().Digest(d.Digest), r.with(ctx)...)
	if err != nil {
		return nil, classify(err)
	}
	body, err := layer.Compressed()
	if err != nil {
		return nil, classify(err)
	}
	return verify(body, digest, d.Size, "blob "+d.Digest+" from "+n.ref.Context().RegistryStr()), nil
}

// classify turns what a registry said into a code. Registries answer 401 both
// to missing credentials and to repositories that don't exist, so "denied" is
// all that can be said then.
func classify(err error) error {
	var c *coded
	var t *transport.Error
	switch {
	case errors.As(err, &c):
		return err
	case !errors.As(err, &t):
		switch text := err.Error(); { // the library has no types for them
		case strings.Contains(text, "unsupported MediaType"):
			return &coded{state.LookupMalformed, err}
		case strings.Contains(text, "does not match requested digest"):
			return refused(state.LookupDamaged, "%w; fetch or copy the image again", err)
		}
		return &coded{state.LookupUnavailable, err}
	case t.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %w", errAbsent, err)
	case t.StatusCode == http.StatusUnauthorized || t.StatusCode == http.StatusForbidden:
		return &coded{state.LookupDenied, err}
	default:
		return &coded{state.LookupUnavailable, err}
	}
}
