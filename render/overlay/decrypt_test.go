package overlay_test

import (
	"bytes"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/overlay"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/render/sops"
)

func identity(t *testing.T) (*age.X25519Identity, *sops.Keys) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := sops.ParseKeys([]byte("# created: now\n" + id.String() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return id, keys
}

func renderWith(t *testing.T, keys *sops.Keys, files map[string]string) render.Result {
	t.Helper()
	res, err := overlay.New(overlay.Options{Tokens: rendertest.Tokens{}, Keys: keys}).Render(t.Context(), rendertest.FromFiles(files).Snapshot(), state.Application{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// An encrypted Secret is one like any other, also for kustomize's patches, and
// what it holds is in clear nowhere but in the object.
func TestEncryptedSecret(t *testing.T) {
	t.Parallel()
	id, keys := identity(t)
	secret := rendertest.SOPS(t, id.Recipient(), "db", "password", "sword: \"fish\"\n# and ${more}", "empty", "", "number", "0123", "yes", "on")
	want := map[string]string{"password": "sword: \"fish\"\n# and ${more}", "empty": "", "number": "0123", "yes": "on"}
	for name, files := range map[string]map[string]string{
		"plain":     {"secret.yaml": secret},
		"kustomize": {"kustomization.yaml": "resources: [secret.yaml]\nlabels: [{pairs: {a: b}}]\n", "secret.yaml": secret},
	} {
		res := renderWith(t, keys, files)
		if len(res.Problems) > 0 {
			t.Fatalf("%s: %v", name, res.Problems)
		}
		s, ok := res.Manifest.Find(state.Ref{Kind: "Secret", Namespace: "default", Name: "db"}).First().(*corev1.Secret)
		if !ok {
			t.Fatal("no Secret")
		}
		got := map[string]string{}
		for k, v := range s.Data {
			got[k] = string(v)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		raw, err := manifest.Encode(res.Manifest, rendertest.Secrets{})
		if err != nil || bytes.Contains(raw, []byte("fish")) {
			t.Errorf("%s: %v, or the stored form has the value in clear", name, err)
		}
		for _, r := range res.Manifest.Reads {
			if r.Path == "secret.yaml" && r.Blob != rendertest.FromFiles(files).Blob("secret.yaml") {
				t.Errorf("%s: what was read is not the encrypted file", name)
			}
		}
	}
}

// Whatever is done to an encrypted file, it is refused, and no message has a value.
func TestEncryptedSecretChanged(t *testing.T) {
	t.Parallel()
	id, keys := identity(t)
	_, others := identity(t)
	secret := rendertest.SOPS(t, id.Recipient(), "db", "password", "swordfish", "user", "swordfish-user")
	line := func(prefix string) string {
		for l := range strings.Lines(secret) {
			if strings.HasPrefix(strings.TrimSpace(l), prefix) {
				return l
			}
		}
		t.Fatalf("no line %s", prefix)
		return ""
	}
	for name, c := range map[string]struct {
		keys *sops.Keys
		text string
		says string
	}{
		"no key":         {nil, secret, "no age key here"},
		"another key":    {others, secret, id.Recipient().String()},
		"added":          {keys, strings.Replace(secret, "stringData:\n", "stringData:\n    more: x\n", 1), "added, removed or moved"},
		"removed":        {keys, strings.Replace(secret, line("user"), "", 1), "added, removed or moved"},
		"renamed":        {keys, strings.Replace(secret, "    user:", "    root:", 1), "changed or moved"},
		"exchanged":      {keys, strings.NewReplacer("    user:", "    password:", "    password:", "    user:").Replace(secret), "changed or moved"},
		"name changed":   {keys, strings.Replace(secret, "name: db", "name: prod-db", 1), "added, removed or moved"},
		"value cut":      {keys, strings.Replace(secret, ",tag:", "A,tag:", 1), "changed or moved"},
		"date changed":   {keys, strings.Replace(secret, "2026-01-05", "2026-01-06", 1), "added, removed or moved"},
		"no date":        {keys, strings.Replace(secret, line("lastmodified"), "", 1), "no lastmodified"},
		"mac of nothing": {keys, strings.Replace(secret, line("mac"), "    mac: ''\n", 1), "added, removed or moved"},
		"no recipients":  {keys, secret[:strings.Index(secret, "    age:")] + secret[strings.Index(secret, "    lastmodified"):], "no age recipient"},
		"kms":            {keys, strings.Replace(secret[:strings.Index(secret, "    age:")]+secret[strings.Index(secret, "    lastmodified"):], "sops:\n", "sops:\n    kms: [{arn: x}]\n", 1), "only age"},
		"ConfigMap":      {keys, strings.Replace(secret, "kind: Secret", "kind: ConfigMap", 1), "only a Secret"},
		"half a file":    {keys, secret + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: x}\n", "only some"},
	} {
		res := renderWith(t, c.keys, map[string]string{"secret.yaml": c.text})
		if len(res.Problems) == 0 || res.Manifest != nil {
			t.Errorf("%s: taken", name)
			continue
		}
		said := res.Problems[0].Error()
		if !strings.Contains(said, c.says) || !strings.Contains(said, "secret.yaml:") {
			t.Errorf("%s: %s\nwant %q and a line", name, said, c.says)
		}
		for _, p := range res.Problems {
			if strings.Contains(p.Error(), "swordfish") {
				t.Errorf("%s: a message has the value: %s", name, p)
			}
		}
	}
	res := renderWith(t, keys, map[string]string{"kustomization.yaml": "secretGenerator: [{name: s, files: [secret.yaml]}]\n", "secret.yaml": secret})
	if len(res.Problems) == 0 || !strings.Contains(res.Problems[0].Cause, "generator") {
		t.Errorf("in a generator: %v", res.Problems)
	}
}

// Nothing that a repository can write crashes decryption or is taken as proven.
func FuzzEncryptedSecret(f *testing.F) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		f.Fatal(err)
	}
	keys, err := sops.ParseKeys([]byte(id.String()))
	if err != nil {
		f.Fatal(err)
	}
	secret := rendertest.SOPS(f, id.Recipient(), "db", "password", "swordfish")
	f.Add(0, 0, "")
	f.Add(120, 4, "x")
	f.Fuzz(func(t *testing.T, from, length int, in string) {
		at := min(max(from, 0), len(secret))
		text := secret[:at] + in + secret[min(at+max(length, 0), len(secret)):]
		docs, problems := manifest.Parse(state.Origin{}, []byte(text))
		if len(problems) > 0 || !sops.Encrypted(docs) {
			return
		}
		clear, err := keys.Decrypt([]byte(text), docs)
		if err == nil && !bytes.Contains(clear, []byte("swordfish")) {
			t.Errorf("taken: %q", text)
		}
	})
}
