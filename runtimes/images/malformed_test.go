package images_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

const (
	ociIndexType    = "application/vnd.oci.image.index.v1+json"
	ociManifestType = "application/vnd.oci.image.manifest.v1+json"
	dockerListType  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// odd is a registry that serves whatever it was given, under any type.
type odd struct {
	types  map[string]string // by tag or digest
	bodies map[string][]byte
}

func newOdd() *odd { return &odd{types: map[string]string{}, bodies: map[string][]byte{}} }

func (o *odd) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		at := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		body, ok := o.bodies[at]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", o.types[at])
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func (o *odd) tag(name, mediaType, body string) {
	o.types[name], o.bodies[name] = mediaType, []byte(body)
}

// put stores a document and gives the descriptor of it, with more of its fields.
func (o *odd) put(mediaType, body, more string) string {
	digest := state.DigestOf([]byte(body)).String()
	o.tag(digest, mediaType, body)
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, mediaType, digest, len(body), more)
}

// image stores an image for a platform and gives its descriptor.
func (o *odd) image(os, arch, version, layer, more string) string {
	config := o.put("application/vnd.oci.image.config.v1+json", fmt.Sprintf(`{"os":%q,"architecture":%q,"os.version":%q}`, os, arch, version), "")
	return o.put(ociManifestType, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ociManifestType, config,
		o.put("application/vnd.oci.image.layer.v1.tar+gzip", layer, "")), more)
}

func platformOf(os, arch, version string) string {
	p, _ := json.Marshal(map[string]string{"os": os, "architecture": arch, "os.version": version})
	return `,"platform":` + string(p)
}

func indexOf(entries ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndexType, strings.Join(entries, ","))
}

func digestIn(descriptor string) string {
	var d struct{ Digest string }
	_ = json.Unmarshal([]byte(descriptor), &d)
	return d.Digest
}

// TestMalformed: whatever a registry answers, the right platforms are read from
// it, or the look-up fails for a reason that has a name.
func TestMalformed(t *testing.T) {
	o := newOdd()
	linux := o.image("linux", "amd64", "", "one", platformOf("linux", "amd64", ""))
	other := o.image("linux", "amd64", "", "two", platformOf("linux", "amd64", ""))
	windows := o.image("windows", "amd64", "10.0.20348.1", "three", platformOf("windows", "amd64", "10.0.20348.1"))
	bare := o.image("windows", "amd64", "10.0.20348.1", "three", "")
	attestation := o.image("unknown", "unknown", "", "proof", platformOf("unknown", "unknown", ""))
	unplaced := o.image("unknown", "unknown", "", "proof", `,"annotations":{"vnd.docker.reference.type":"attestation-manifest"}`)
	nameless := o.image("unknown", "unknown", "", "bill", "")
	chart := o.put(ociManifestType, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"sha256:`+strings.Repeat("0", 64)+`","size":2},"layers":[]}`, platformOf("linux", "amd64", ""))
	signature := o.put(ociManifestType, `{"schemaVersion":2,"config":{},"layers":[]}`, `,"artifactType":"application/vnd.dev.cosign.simplesigning.v1+json"`)
	damaged := strings.ReplaceAll(linux, digestIn(linux), "sha256:"+strings.Repeat("a", 64))
	o.tag("sha256:"+strings.Repeat("a", 64), ociManifestType, `{"schemaVersion":2}`)
	nest := func(entries ...string) string { return o.put(ociIndexType, indexOf(entries...), "") }
	var many, wide []string
	for i := range 65 {
		many = append(many, strings.Replace(linux, `"size"`, fmt.Sprintf(`"urls":["%d"],"size"`, i), 1))
	}
	for i := range 5 {
		var inner []string
		for j := range 40 {
			inner = append(inner, o.image("linux", fmt.Sprintf("arch%d-%d", i, j), "", "x", platformOf("linux", fmt.Sprintf("arch%d-%d", i, j), "")))
		}
		wide = append(wide, nest(inner...))
	}
	const l, w = "linux/amd64", "windows/amd64 10.0.20348.1"
	for _, one := range []struct {
		what, mediaType, body string
		want                  []string
		first                 string // digest of the first platform
		code                  state.LookupCode
	}{
		{what: "plain", body: indexOf(linux, windows), want: []string{l, w}},
		{what: "attestations beside", body: indexOf(linux, attestation, windows, unplaced, nameless, signature), want: []string{l, w}},
		{what: "an entry without a platform", body: indexOf(linux, bare), want: []string{l, w}},
		{what: "nested", body: indexOf(nest(linux), nest(windows)), want: []string{l, w}},
		{what: "nested too deep", body: indexOf(nest(nest(linux))), code: state.LookupMalformed},
		{what: "twice the same", body: indexOf(linux, linux), want: []string{l}},
		{what: "two for one platform", body: indexOf(linux, other), want: []string{l}, first: digestIn(linux)},
		{what: "two for one platform, the other way round", body: indexOf(other, linux), want: []string{l}, first: digestIn(other)},
		{what: "a chart beside", body: indexOf(chart, windows), want: []string{w}},
		{what: "a chart alone", body: indexOf(chart), code: state.LookupNoPlatform},
		{what: "a chart by itself", mediaType: ociManifestType, body: string(o.bodies[digestIn(chart)]), code: state.LookupArtifact},
		{what: "attestations alone", body: indexOf(attestation), code: state.LookupNoPlatform},
		{what: "empty", body: indexOf(), code: state.LookupNoPlatform},
		{what: "another system's", mediaType: ociManifestType, body: string(o.bodies[digestIn(o.image("freebsd", "amd64", "", "f", ""))]), code: state.LookupNoPlatform},
		{what: "schema 1", mediaType: "application/vnd.docker.distribution.manifest.v1+json", body: `{"schemaVersion":1,"name":"web","fsLayers":[]}`, code: state.LookupOld},
		{what: "schema 1, signed", mediaType: "application/vnd.docker.distribution.manifest.v1+prettyjws", body: `{"schemaVersion":1,"name":"web","fsLayers":[]}`, code: state.LookupOld},
		{what: "a type that a proxy made up", mediaType: "text/plain", body: indexOf(linux), want: []string{l}},
		{what: "another type than it says of itself", mediaType: dockerListType, body: indexOf(linux), code: state.LookupMalformed},
		{what: "a manifest that says it is an index", mediaType: ociManifestType, body: indexOf(linux), code: state.LookupMalformed},
		{what: "both at once", body: strings.Replace(indexOf(linux), `"manifests"`, `"config":{},"layers":[],"manifests"`, 1), code: state.LookupMalformed},
		{what: "no image's type", mediaType: "application/json", body: `{"hello":"world"}`, code: state.LookupMalformed},
		{what: "cut off", body: indexOf(linux)[:60], code: state.LookupMalformed},
		{what: "no JSON", body: "<html>Sign in</html>", code: state.LookupMalformed},
		{what: "an entry that isn't there", body: indexOf(strings.ReplaceAll(linux, digestIn(linux), "sha256:"+strings.Repeat("b", 64)), windows), want: []string{l, w}},
		{what: "an entry of another digest", body: indexOf(damaged), code: state.LookupDamaged},
		{what: "an entry without a digest", body: indexOf(`{"mediaType":"` + ociManifestType + `"}`), code: state.LookupMalformed},
		{what: "too many entries", body: indexOf(many...), code: state.LookupTooLarge},
		{what: "too many within", body: indexOf(wide...), code: state.LookupTooLarge},
		{what: "too many bytes", body: strings.Replace(indexOf(linux), `"schemaVersion"`, `"pad":"`+strings.Repeat("x", 5<<20)+`","schemaVersion"`, 1), code: state.LookupTooLarge},
	} {
		t.Run(one.what, func(t *testing.T) {
			mediaType := one.mediaType
			if mediaType == "" {
				mediaType = ociIndexType
			}
			mine := &odd{types: map[string]string{}, bodies: map[string][]byte{}}
			for k, v := range o.bodies {
				mine.types[k], mine.bodies[k] = o.types[k], v
			}
			mine.tag("1", mediaType, one.body)
			img, err := images.New(images.Options{}).Look(t.Context(), mine.serve(t)+"/web:1")
			if code(err) != one.code || img.Failure != one.code {
				t.Fatalf("code %q, want %q: %v", img.Failure, one.code, err)
			}
			if one.code != 0 {
				if img.Failure.String() == "" || img.Failure.Remedy("web:1") == "" || !img.Failure.Lasting() {
					t.Errorf("code %d has no words, no remedy, or is tried again like an outage", img.Failure)
				}
				return
			}
			var got []string
			for _, p := range img.Platforms {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s/%s %s", p.OS, p.Arch, p.OSVersion)))
			}
			if diff := cmp.Diff(one.want, got); diff != "" {
				t.Errorf("platforms (-want +got):\n%s", diff)
			}
			if one.first != "" && img.Platforms[0].Digest.String() != one.first {
				t.Errorf("runs %s, want the first of the index, %s", img.Platforms[0].Digest, one.first)
			}
		})
	}
}

// TestIndexThatLies: the index offers for Linux what the configuration says is
// for Windows. The look-up goes by the index; who fetches it is told.
func TestIndexThatLies(t *testing.T) {
	o := newOdd()
	lie := o.image("windows", "arm64", "10.0.1.1", "x", platformOf("linux", "amd64", ""))
	o.tag("1", ociIndexType, indexOf(lie))
	ref := o.serve(t) + "/web:1"
	store := images.New(images.Options{})
	img, err := store.Look(t.Context(), ref)
	if err != nil || len(img.Platforms) != 1 || img.Platforms[0].OS != state.Linux {
		t.Fatalf("%+v: %v", img, err)
	}
	content, err := store.Fetch(t.Context(), ref, img.Platforms[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	r, err := content.Config.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var config struct{ OS, Architecture string }
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	err = images.CheckPlatform(config.OS, config.Architecture, state.Linux, "amd64")
	if err == nil || !strings.Contains(err.Error(), "windows/arm64") || !strings.Contains(err.Error(), "push the image again") {
		t.Errorf("what is fetched isn't compared with its place in the index: %v", err)
	}
	for _, fine := range [][2]string{{"linux", "amd64"}, {"", ""}} {
		if err := images.CheckPlatform(fine[0], fine[1], state.Linux, "amd64"); err != nil {
			t.Error(err)
		}
	}
}
