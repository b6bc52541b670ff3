package images_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

func spec(name string) images.Spec {
	variant := func(os state.OS, version, file string) images.Variant {
		return images.Variant{
			OS: os, Arch: "amd64", OSVersion: version, Entrypoint: []string{"/" + file},
			Files: []images.File{{Path: "bin/" + file, Mode: 0o755, Data: []byte("program of " + name)}},
		}
	}
	return images.Spec{Name: name, Variants: []images.Variant{
		variant(state.Linux, "", "web"), variant(state.Windows, "10.0.20348.2113", "web.exe"),
	}}
}

func write(t *testing.T, dir string, s images.Spec) state.Digest {
	t.Helper()
	d, err := images.Write(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// serve starts a registry and returns its host.
func serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// push copies the images of a layout into a registry under ref.
func push(t *testing.T, dir, ref string) {
	t.Helper()
	ix, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ix.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	inner, err := ix.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(reference(t, ref), inner); err != nil {
		t.Fatal(err)
	}
}

func reference(t *testing.T, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func code(err error) state.LookupCode {
	var e *images.LookupError
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

func TestSameImageFromLayoutAndRegistry(t *testing.T) {
	dir := t.TempDir()
	digest := write(t, dir, spec("shop.example/web:1.4.0"))
	host := serve(t)
	push(t, dir, host+"/web:1.4.0")

	offline := images.New(images.Options{Dirs: []string{dir}, Offline: true})
	online := images.New(images.Options{})
	local, err := offline.Look(t.Context(), "shop.example/web:1.4.0")
	if err != nil {
		t.Fatal(err)
	}
	far, err := online.Look(t.Context(), host+"/web:1.4.0")
	if err != nil {
		t.Fatal(err)
	}
	if local.Index != digest {
		t.Errorf("index %s, want %s", local.Index, digest)
	}
	if diff := cmp.Diff(local.Platforms, far.Platforms); diff != "" {
		t.Errorf("layout and registry differ:\n%s", diff)
	}
	if len(local.Platforms) != 2 || local.Platforms[0].OS != state.Linux || local.Platforms[0].Size == 0 ||
		local.Platforms[1].OSVersion != "10.0.20348.2113" {
		t.Errorf("platforms %+v", local.Platforms)
	}

	for _, p := range local.Platforms {
		single, err := online.Look(t.Context(), host+"/web@"+p.Digest.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]state.Platform{p}, single.Platforms); diff != "" {
			t.Errorf("a manifest alone must give the platform of its config:\n%s", diff)
		}
		for _, s := range []struct {
			store *images.Store
			name  string
		}{{offline, "shop.example/web:1.4.0"}, {online, host + "/web:1.4.0"}} {
			c, err := s.store.Fetch(t.Context(), s.name, p.Digest)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range append(c.Layers, c.Config) {
				raw := read(t, b)
				if int64(len(raw)) != b.Size || state.DigestOf(raw).String() != b.Digest {
					t.Errorf("%s: blob %s of %d bytes: read %d others", s.name, b.Digest, b.Size, len(raw))
				}
			}
		}
	}
}

func read(t *testing.T, b images.Blob) []byte {
	t.Helper()
	r, err := b.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestLayoutNames(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "all"), spec("shop.example/web:1"))
	write(t, filepath.Join(dir, "all"), spec("shop.example/web:2"))
	replaced := write(t, filepath.Join(dir, "all"), func() images.Spec {
		s := spec("shop.example/web:2")
		s.Variants[0].Files[0].Data = []byte("another program")
		return s
	}())
	write(t, filepath.Join(dir, "hub"), spec("busybox"))
	nested := filepath.Join(dir, "shop.example", "db")
	write(t, nested, spec("shop.example/db:2"))
	index := filepath.Join(nested, "index.json")
	raw, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(index, []byte(strings.Replace(string(raw), "shop.example/db:2", "2", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	store := images.New(images.Options{Dirs: []string{dir}, Offline: true})
	for _, name := range []string{"shop.example/web:1", "shop.example/web:2", "busybox", "docker.io/library/busybox:latest", "shop.example/db:2"} {
		if _, err := store.Look(t.Context(), name); err != nil {
			t.Errorf("%v", err)
		}
	}
	if img, _ := store.Look(t.Context(), "shop.example/web:2"); img.Index != replaced {
		t.Error("an image written again under its name was not replaced")
	}
	img, err := store.Look(t.Context(), "shop.example/web:3")
	if code(err) != state.LookupNotFound || img.Failure != state.LookupNotFound {
		t.Errorf("a missing tag: %v, %v", img.Failure, err)
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	a, b := write(t, t.TempDir(), spec("web:1")), write(t, t.TempDir(), spec("web:1"))
	if a != b {
		t.Errorf("the same image has digests %s and %s", a, b)
	}
}

func TestDamagedBlob(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, spec("web:1"))
	store := images.New(images.Options{Dirs: []string{dir}, Offline: true})
	img, err := store.Look(t.Context(), "web:1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := store.Fetch(t.Context(), "web:1", img.Platforms[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(c.Layers[0].Digest, "sha256:")))
	r, err := c.Layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a flipped bit in a layer: %v", err)
	}
	flip(t, filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(img.Platforms[0].Digest.String(), "sha256:")))
	if _, err := store.Look(t.Context(), "web:1"); code(err) != state.LookupDamaged || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a flipped bit in a manifest: %v", err)
	}
}

func flip(t *testing.T, file string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFailures(t *testing.T) {
	host := serve(t)
	artifact := reference(t, host+"/artifact:1").(name.Tag)
	if err := remote.Put(artifact, raw{[]byte(`{"hello":"world"}`), "application/vnd.example.thing+json"}); err != nil {
		t.Fatal(err)
	}
	answer := func(status int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	tests := []struct {
		what, name string
		want       state.LookupCode
	}{
		{"no such tag", host + "/web:9", state.LookupNotFound},
		{"not an image", host + "/artifact:1", state.LookupMalformed},
		{"no name at all", "Shop/We b:::1", state.LookupMalformed},
		{"credentials refused", answer(http.StatusForbidden) + "/web:1", state.LookupDenied},
		{"credentials missing", answer(http.StatusUnauthorized) + "/web:1", state.LookupDenied},
		{"nobody listens", strings.TrimPrefix(gone.URL, "http://") + "/web:1", state.LookupUnavailable},
		{"teapot", answer(http.StatusTeapot) + "/web:1", state.LookupUnavailable},
		{"plain HTTP elsewhere", "10.255.255.1:5000/web:1", state.LookupUnavailable},
	}
	store := images.New(images.Options{Transport: onlyLoopback{}})
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			img, err := store.Look(t.Context(), test.name)
			if code(err) != test.want || img.Failure != test.want {
				t.Errorf("%v, want %v: %v", img.Failure, test.want, err)
			}
		})
	}
	if _, err := store.Look(t.Context(), "10.255.255.1:5000/web:1"); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("plain HTTP to another machine: %v", err)
	}
	if _, err := images.New(images.Options{Offline: true}).Look(t.Context(), "web:1"); code(err) != state.LookupNotFound {
		t.Errorf("offline without layouts: %v", err)
	}
	if _, err := images.New(images.Options{Dirs: []string{filepath.Join(t.TempDir(), "none")}}).Look(t.Context(), "web:1"); code(err) == 0 {
		t.Errorf("a directory that isn't there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Look(ctx, host+"/web:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// onlyLoopback refuses HTTPS to anywhere else, so that no test leaves the machine.
type onlyLoopback struct{}

func (onlyLoopback) RoundTrip(r *http.Request) (*http.Response, error) {
	if host := r.URL.Hostname(); host != "127.0.0.1" {
		return nil, errors.New("TLS handshake refused by " + host)
	}
	return http.DefaultTransport.RoundTrip(r)
}

type raw struct {
	body      []byte
	mediaType types.MediaType
}

func (r raw) RawManifest() ([]byte, error)        { return r.body, nil }
func (r raw) MediaType() (types.MediaType, error) { return r.mediaType, nil }

// A registry that lies about a blob is noticed while the blob is read.
func TestLyingRegistry(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, spec("web:1"))
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	lie := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if lie != "" && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, lie) {
			_, _ = w.Write([]byte("something else"))
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/web:1"
	push(t, dir, ref)
	store := images.New(images.Options{})
	img, err := store.Look(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	c, err := store.Fetch(t.Context(), ref, img.Platforms[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	lie = c.Layers[0].Digest
	r, err := c.Layers[0].Open(t.Context())
	if err == nil {
		defer r.Close()
		_, err = io.ReadAll(r)
	}
	if err == nil {
		t.Error("another blob was taken for the layer")
	}
}

// A mirror is asked first; what it hasn't, or doesn't answer, comes from the
// registry itself.
func TestMirrors(t *testing.T) {
	origin, copied := serve(t), serve(t)
	dir := t.TempDir()
	want := write(t, dir, spec("shop.example/web:1"))
	push(t, dir, copied+"/shop/web:1")
	other := t.TempDir()
	fallback := write(t, other, spec("shop.example/db:1"))
	push(t, other, origin+"/shop/db:1")
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	s := images.New(images.Options{Mirrors: map[string][]string{origin: {strings.TrimPrefix(dead.URL, "http://"), copied}}})
	for image, digest := range map[string]state.Digest{"/shop/web:1": want, "/shop/db:1": fallback} {
		found, err := s.Look(t.Context(), origin+image)
		if err != nil || found.Index != digest {
			t.Fatalf("%s is %s, want %s: %v", image, found.Index, digest, err)
		}
		content, err := s.Fetch(t.Context(), origin+image, found.Platforms[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		r, err := content.Layers[0].Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != content.Layers[0].Size {
			t.Errorf("%s: %d bytes of a layer of %d: %v", image, n, content.Layers[0].Size, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Look(t.Context(), origin+"/shop/none:1"); err == nil {
		t.Error("an image that is nowhere was found")
	}
}
