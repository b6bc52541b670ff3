package images

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The annotations that name an image in index.json: OCI's, and the full name
// that containerd's and nerdctl's exports add.
const (
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
)

// layouts are directories that are OCI image layouts or hold some below them.
type layouts struct{ dirs []string }

// open finds the layouts. A directory that was given and isn't there is a
// mistake; one with no layout yet may be filled later.
func (l layouts) open() ([]place, error) {
	var found []place
	for _, dir := range l.dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				return nil
			}
			if d.Name() != "oci-layout" {
				return nil
			}
			if len(found) >= layoutLimit {
				return fmt.Errorf("more than %d layouts", layoutLimit)
			}
			parent := filepath.Dir(path)
			rel, err := filepath.Rel(dir, parent)
			if err != nil {
				return err
			}
			found = append(found, layout{dir: parent, repo: filepath.ToSlash(rel)})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the directory of images %s: %w", dir, err)
		}
	}
	return found, nil
}

// A layout is one OCI image layout. repo is its path below the given directory:
// an index.json entry named by tag alone is repo:tag.
type layout struct{ dir, repo string }

// find implements place. A name with a digest is there when the blob is.
func (l layout) find(ctx context.Context, n imageName) (document, error) {
	if !n.digest.IsZero() {
		return l.document(ctx, n, n.digest)
	}
	raw, err := readFile(filepath.Join(l.dir, "index.json"), manifestLimit)
	if err != nil {
		return document{}, malformed("read the layout %s: %w", l.dir, err)
	}
	var ix index
	if err := json.Unmarshal(raw, &ix); err != nil {
		return document{}, malformed("read %s: %w", filepath.Join(l.dir, "index.json"), err)
	}
	for _, d := range ix.Manifests {
		if !l.named(d, n) {
			continue
		}
		digest, err := parseDigest(d.Digest)
		if err != nil {
			return document{}, malformed("read %s: %w", filepath.Join(l.dir, "index.json"), err)
		}
		doc, err := l.document(ctx, n, digest)
		if errors.Is(err, errAbsent) {
			return document{}, malformed("layout %s names %s but lacks the blob %s; copy the image again", l.dir, n.written, digest)
		}
		return doc, err
	}
	return document{}, errAbsent
}

func (l layout) named(d descriptor, n imageName) bool {
	if full := d.Annotations[containerdName]; full != "" && n.matches(full) {
		return true
	}
	tag := d.Annotations[refName]
	switch {
	case tag == "":
		return false
	case strings.ContainsAny(tag, "/:"):
		return n.matches(tag)
	default:
		return n.matches(tag) || (l.repo != "." && n.matches(l.repo+":"+tag))
	}
}

func (l layout) path(d state.Digest) string {
	return filepath.Join(l.dir, "blobs", "sha256", hex.EncodeToString(d[:]))
}

// document implements place. The media type is the one that the document says
// of itself; Docker's and OCI's images do, but OCI allows to leave it out.
func (l layout) document(_ context.Context, _ imageName, want state.Digest) (document, error) {
	path := l.path(want)
	raw, err := readFile(path, manifestLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return document{}, errAbsent
	}
	if err != nil {
		return document{}, malformed("read the layout %s: %w", l.dir, err)
	}
	var head struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Config    json.RawMessage `json:"config"`
	}
	doc, err := checkDocument(raw, "", want, path)
	if err != nil {
		return document{}, err
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return document{}, malformed("%s is no index or manifest: %w", path, err)
	}
	switch {
	case head.MediaType != "":
		doc.mediaType = head.MediaType
	case head.Manifests != nil:
		doc.mediaType = ociIndex
	case head.Config != nil:
		doc.mediaType = ociManifest
	}
	return doc, nil
}

// blob implements place.
func (l layout) blob(_ context.Context, _ imageName, d descriptor) (io.ReadCloser, error) {
	digest, err := parseDigest(d.Digest)
	if err != nil {
		return nil, malformed("read a descriptor: %w", err)
	}
	path := l.path(digest)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, malformed("layout %s lacks the blob %s; copy the image again", l.dir, digest)
	}
	if err != nil {
		return nil, fmt.Errorf("open a blob: %w", err)
	}
	return verify(f, digest, d.Size, path), nil
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = tooLarge(path, limit)
	}
	return raw, err
}
