package images

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// Schema 1 of Docker's images: one platform, no configuration. Registries stopped
// taking it in 2019.
const (
	schema1       = "application/vnd.docker.distribution.manifest.v1+json"
	schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func isIndex(mediaType string) bool { return mediaType == ociIndex || mediaType == dockerList }
func isManifest(mediaType string) bool {
	return mediaType == ociManifest || mediaType == dockerManifest
}

// attestationKey marks what buildkit puts beside an image's manifests.
const attestationKey = "vnd.docker.reference.type"

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Artifact    string            `json:"artifactType,omitempty"`
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

// typed is a document's kind, and whether what it says of itself agrees with
// what its place says: a document that can be read as two things is one thing to
// whoever checks it and another to whoever runs it (CVE-2021-41190).
func typed(doc document) (string, error) {
	var self struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(doc.raw, &self); err != nil {
		return "", malformed("%s is cut off, or no JSON: %w; push the image again", doc.digest, err)
	}
	said := doc.mediaType
	if !isIndex(said) && !isManifest(said) && (isIndex(self.MediaType) || isManifest(self.MediaType)) {
		said = self.MediaType // registries behind proxies say text/plain, application/json
	}
	switch {
	case said == schema1, said == schema1Signed, self.SchemaVersion == 1:
		return "", refused(state.LookupOld, "%s is a Docker image of schema 1; build and push it again with a tool of today", doc.digest)
	case self.MediaType != "" && self.MediaType != said && (isIndex(said) || isManifest(said)):
		return "", malformed("%s is given as %q, but says of itself that it is %q; push the image again", doc.digest, said, self.MediaType)
	case self.Manifests != nil && (self.Config != nil || self.Layers != nil):
		return "", malformed("%s is an index and a manifest at once; push the image again", doc.digest)
	}
	return said, nil
}

func decodeManifest(doc document) (manifest, error) {
	var m manifest
	mediaType, err := typed(doc)
	if err != nil {
		return m, err
	}
	if !isManifest(mediaType) {
		return m, malformed("%s is of type %q, want an OCI or Docker manifest", doc.digest, doc.mediaType)
	}
	if err := json.Unmarshal(doc.raw, &m); err != nil {
		return m, malformed("read manifest %s: %w", doc.digest, err)
	}
	if m.Config.MediaType != ociConfig && m.Config.MediaType != dockerConfig {
		return m, refused(state.LookupArtifact, "manifest %s has a config of type %q: this is an artifact, not an image", doc.digest, m.Config.MediaType)
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
		return nil, refused(state.LookupNoPlatform, "index %s has nothing for linux or windows", doc.digest)
	}
	slices.SortStableFunc(found, func(a, b state.Platform) int {
		return cmp.Or(strings.Compare(string(a.OS), string(b.OS)), strings.Compare(a.Arch, b.Arch), strings.Compare(a.OSVersion, b.OSVersion))
	})
	// Of entries for one platform the first of the index is the one that runs.
	return slices.CompactFunc(found, func(a, b state.Platform) bool {
		return a.OS == b.OS && a.Arch == b.Arch && a.OSVersion == b.OSVersion
	}), nil
}

func walk(ctx context.Context, p place, n imageName, doc document, depth int) ([]state.Platform, error) {
	mediaType, err := typed(doc)
	if err != nil {
		return nil, err
	}
	if isManifest(mediaType) {
		one, err := single(ctx, p, n, doc)
		if err != nil {
			return nil, err
		}
		return []state.Platform{one}, nil
	}
	if !isIndex(mediaType) {
		return nil, malformed("%s is of type %q, want an OCI or Docker index or manifest", doc.digest, doc.mediaType)
	}
	var ix index
	if err := json.Unmarshal(doc.raw, &ix); err != nil {
		return nil, malformed("read index %s: %w", doc.digest, err)
	}
	if len(ix.Manifests) > platformLimit {
		return nil, refused(state.LookupTooLarge, "index %s has %d entries, at most %d are read", doc.digest, len(ix.Manifests), platformLimit)
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
	aside := d.Artifact != "" || d.Annotations[attestationKey] != "" // signatures, attestations, software bills
	if !isManifest(d.MediaType) || aside || (d.Platform != nil && !known(d.Platform.OS)) {
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
		found, err := walk(ctx, p, n, doc, 1)
		if is(err, state.LookupArtifact) || is(err, state.LookupNoPlatform) {
			return nil, nil
		}
		return found, err
	}
	m, err := decodeManifest(doc)
	if is(err, state.LookupArtifact) {
		return nil, nil
	}
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
		return state.Platform{}, refused(state.LookupNoPlatform, "the config of %s names os %q and architecture %q, want linux or windows and an architecture",
			doc.digest, config.OS, config.Architecture)
	}
	return state.Platform{
		OS: state.OS(config.OS), Arch: config.Architecture, OSVersion: config.OSVersion, Digest: doc.digest, Size: m.size(),
	}, nil
}

// CheckPlatform compares what an image's configuration says of itself with the
// node that was sent there: an index may say otherwise, and the scheduler goes by
// the index.
func CheckPlatform(os, arch string, host state.OS, hostArch string) error {
	if (os == "" || os == string(host)) && (arch == "" || arch == hostArch) {
		return nil
	}
	return fmt.Errorf("its configuration is for %s/%s, but its index offers it for %s/%s; push the image again", os, arch, host, hostArch)
}

func known(os string) bool { return os == string(state.Linux) || os == string(state.Windows) }

func readBlob(ctx context.Context, p place, n imageName, d descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, refused(state.LookupTooLarge, "blob %s has %d bytes, at most %d are read", d.Digest, d.Size, limit)
	}
	r, err := p.blob(ctx, n, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, limit+1))
}
