package images

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The media types that are images. Docker's are the older spelling of OCI's.
const (
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociConfig      = "application/vnd.oci.image.config.v1+json"
	ociLayer       = "application/vnd.oci.image.layer.v1.tar+gzip"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

func isIndex(mediaType string) bool { return mediaType == ociIndex || mediaType == dockerList }
func isManifest(mediaType string) bool {
	return mediaType == ociManifest || mediaType == dockerManifest
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
	OSVersion    string `json:"os.version,omitempty"`
}

type index struct {
	MediaType string       `json:"mediaType,omitempty"`
	Manifests []descriptor `json:"manifests"`
}

type manifest struct {
	MediaType string       `json:"mediaType,omitempty"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
}

// size is what a node has to fetch: the layers.
func (m manifest) size() (sum int64) {
	for _, l := range m.Layers {
		sum += l.Size
	}
	return sum
}

func decodeManifest(doc document) (manifest, error) {
	var m manifest
	if !isManifest(doc.mediaType) {
		return m, malformed("%s is of type %q, want an OCI or Docker manifest", doc.digest, doc.mediaType)
	}
	if err := json.Unmarshal(doc.raw, &m); err != nil {
		return m, malformed("read manifest %s: %w", doc.digest, err)
	}
	if m.Config.MediaType != ociConfig && m.Config.MediaType != dockerConfig {
		return m, malformed("manifest %s has a config of type %q: this is an artifact, not an image", doc.digest, m.Config.MediaType)
	}
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		if _, err := parseDigest(d.Digest); err != nil || d.Size < 0 {
			return m, malformed("manifest %s: blob %q of %d bytes is no descriptor", doc.digest, d.Digest, d.Size)
		}
	}
	return m, nil
}

// platforms lists what an index or manifest runs on, sorted. Only Linux and
// Windows count: attestations and other systems are left out.
func platforms(ctx context.Context, p place, n imageName, doc document) ([]state.Platform, error) {
	found, err := walk(ctx, p, n, doc, indexDepth)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, malformed("index %s has nothing for linux or windows", doc.digest)
	}
	slices.SortFunc(found, func(a, b state.Platform) int {
		return cmp.Or(strings.Compare(string(a.OS), string(b.OS)), strings.Compare(a.Arch, b.Arch),
			strings.Compare(a.OSVersion, b.OSVersion), strings.Compare(a.Digest.String(), b.Digest.String()))
	})
	return found, nil
}

func walk(ctx context.Context, p place, n imageName, doc document, depth int) ([]state.Platform, error) {
	if isManifest(doc.mediaType) {
		one, err := single(ctx, p, n, doc)
		if err != nil {
			return nil, err
		}
		return []state.Platform{one}, nil
	}
	if !isIndex(doc.mediaType) {
		return nil, malformed("%s is of type %q, want an OCI or Docker index or manifest", doc.digest, doc.mediaType)
	}
	var ix index
	if err := json.Unmarshal(doc.raw, &ix); err != nil {
		return nil, malformed("read index %s: %w", doc.digest, err)
	}
	if len(ix.Manifests) > platformLimit {
		return nil, malformed("index %s has %d entries, at most %d are read", doc.digest, len(ix.Manifests), platformLimit)
	}
	entries := make([][]state.Platform, len(ix.Manifests))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookupParallel)
	for i, d := range ix.Manifests {
		group.Go(func() (err error) {
			entries[i], err = entry(ctx, p, n, d, depth)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(entries...), nil
}

// entry reads one line of an index. A registry may hold an index whose other
// platforms were never copied: such an entry keeps its place, its size unknown.
func entry(ctx context.Context, p place, n imageName, d descriptor, depth int) ([]state.Platform, error) {
	digest, err := parseDigest(d.Digest)
	if err != nil {
		return nil, malformed("index of %s: %w", n.written, err)
	}
	if isIndex(d.MediaType) {
		if depth <= 1 {
			return nil, malformed("indexes within indexes are more than %d deep", indexDepth)
		}
		inner, err := p.document(ctx, n, digest)
		if err != nil {
			return nil, err
		}
		return walk(ctx, p, n, inner, depth-1)
	}
	if !isManifest(d.MediaType) || (d.Platform != nil && !known(d.Platform.OS)) {
		return nil, nil
	}
	doc, err := p.document(ctx, n, digest)
	if errors.Is(err, errAbsent) && d.Platform != nil {
		return []state.Platform{{
			OS: state.OS(d.Platform.OS), Arch: d.Platform.Architecture, OSVersion: d.Platform.OSVersion, Digest: digest,
		}}, nil
	}
	if err != nil {
		return nil, err
	}
	if d.Platform == nil {
		return walk(ctx, p, n, doc, 1)
	}
	m, err := decodeManifest(doc)
	if err != nil {
		return nil, err
	}
	return []state.Platform{{
		OS: state.OS(d.Platform.OS), Arch: d.Platform.Architecture, OSVersion: d.Platform.OSVersion, Digest: digest, Size: m.size(),
	}}, nil
}

// single reads the platform of a manifest that no index describes from its
// configuration.
func single(ctx context.Context, p place, n imageName, doc document) (state.Platform, error) {
	m, err := decodeManifest(doc)
	if err != nil {
		return state.Platform{}, err
	}
	raw, err := readBlob(ctx, p, n, m.Config, configLimit)
	if err != nil {
		return state.Platform{}, err
	}
	var config platform
	if err := json.Unmarshal(raw, &config); err != nil {
		return state.Platform{}, malformed("read the config of %s: %w", doc.digest, err)
	}
	if !known(config.OS) || config.Architecture == "" {
		return state.Platform{}, malformed("the config of %s names os %q and architecture %q, want linux or windows and an architecture",
			doc.digest, config.OS, config.Architecture)
	}
	return state.Platform{
		OS: state.OS(config.OS), Arch: config.Architecture, OSVersion: config.OSVersion, Digest: doc.digest, Size: m.size(),
	}, nil
}

func known(os string) bool { return os == string(state.Linux) || os == string(state.Windows) }

func readBlob(ctx context.Context, p place, n imageName, d descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, malformed("blob %s has %d bytes, at most %d are read", d.Digest, d.Size, limit)
	}
	r, err := p.blob(ctx, n, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, limit+1))
}
