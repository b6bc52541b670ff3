package manifest_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/rendertest"
)

func place(manifest.Path, *manifest.Value) state.Origin { return state.Origin{Path: "a.yaml"} }

func decode(t *testing.T, text string) (manifest.Decoded, []state.Problem) {
	t.Helper()
	docs, problems := manifest.Parse(state.Origin{Path: "a.yaml"}, []byte(text))
	if len(problems) > 0 || len(docs) != 1 {
		t.Fatalf("parse: %v, %d documents", problems, len(docs))
	}
	return manifest.NewDecoder(manifest.Options{}).Decode(docs[0], place)
}

// TestNoSecretInProblems: whatever is wrong with a Secret, no value is printed.
func TestNoSecretInProblems(t *testing.T) {
	for _, text := range []string{
		"stringData: {a: 8675309}", "stringData: {a: true, b: [swordfish]}", "data: {a: 'swordfish!'}", "data: swordfish", "type: [swordfish]",
		"data: {'sword fish': swordfish}", "stringData: {a: yes}", "immutable: swordfish",
	} {
		_, problems := decode(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"+text+"\n")
		if len(problems) == 0 {
			t.Errorf("%s: no problem", text)
		}
		for _, p := range problems {
			if said := p.Error(); strings.Contains(said, "swordfish") || strings.Contains(said, "8675309") {
				t.Errorf("%s: the problem quotes the value: %s", text, said)
			}
		}
	}
}

// TestEqualMeaningEqualDigest: text that means the same after decoding and
// defaulting has the same digest.
func TestEqualMeaningEqualDigest(t *testing.T) {
	const short = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {a: b}, ports: [{port: 0x50}]}\n"
	const long = "kind: Service\nspec:\n  type: ClusterIP\n  sessionAffinity: None\n  ports:\n  - {targetPort: 80, protocol: TCP, port: 80}\n  selector: {a: b}\nmetadata: {namespace: default, name: s}\napiVersion: v1\nstatus: {}\n"
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i}], "
	for _, same := range [][]string{{short, long}, {pod + "serviceAccountName: a}", pod + "serviceAccount: a}", pod + "serviceAccountName: a, serviceAccount: a}"}} {
		var digests []state.Digest
		for _, text := range same {
			d, problems := decode(t, text)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			digest, err := manifest.VariantDigest(d.Body, rendertest.Tokens{})
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, digest)
		}
		if len(slices.Compact(digests)) != 1 {
			t.Errorf("the digests differ: %s", same)
		}
	}
}

func TestDecodeManifestRefusesDamage(t *testing.T) {
	for _, raw := range []string{"", "{", `{"objects":[{"ref":{"kind":"Ingress","name":"a"},"variants":[{"body":{}}]}]}`, `{"objects":[{"ref":{"kind":"Service","name":"a"}}]}`} {
		if _, err := manifest.DecodeManifest([]byte(raw), rendertest.Secrets{}); err == nil {
			t.Errorf("%q: no error", raw)
		}
	}
}

// FuzzDecode: no text crashes parsing and decoding, and what decodes survives
// its stored form.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"))
	f.Add([]byte("apiVersion: v1\nkind: Secret\nmetadata: {name: c}\nstringData: {a: b}\n"))
	f.Add([]byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: c}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i, livenessProbe: {exec: {command: [a]}}}]}}}\n"))
	f.Add([]byte("apiVersion: tandem.dev/v1\nkind: Application\nmetadata: {name: c}\nspec: {path: a, suspend: {reason: x, until: 2026-01-01T00:00:00Z}}\n"))
	f.Add([]byte("a: &a {<<: *a}\n---\n- !!binary x\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		docs, _ := manifest.Parse(state.Origin{Path: "a.yaml"}, raw)
		decoder := manifest.NewDecoder(manifest.Options{Root: true})
		for _, doc := range docs {
			d, problems := decoder.Decode(doc, place)
			if len(problems) > 0 || d.Body == nil {
				continue
			}
			digest, err := manifest.VariantDigest(d.Body, rendertest.Tokens{})
			if err != nil {
				t.Fatal(err)
			}
			m := &state.Manifest{App: "a", Objects: []*state.Object{{Ref: d.Ref, Variants: []state.Variant{{Body: d.Body, Digest: digest}}}}}
			first, err := manifest.Encode(m, rendertest.Secrets{})
			if err != nil {
				t.Fatal(err)
			}
			back, err := manifest.DecodeManifest(first, rendertest.Secrets{})
			if err != nil {
				t.Fatal(err)
			}
			again, err := manifest.Encode(back, rendertest.Secrets{})
			if err != nil || !bytes.Equal(first, again) {
				t.Fatalf("the stored form changes: %v\n%s\n%s", err, first, again)
			}
		}
	})
}
