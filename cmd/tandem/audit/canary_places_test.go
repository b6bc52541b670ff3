package audit_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/rendertest"
	"github.com/tandem-gitops/tandem/render/sops"
)

// everywhere is a tree with a secret in every kind of Secret that one writes: of an
// image registry, of a webhook, of a generator, encrypted, and one that pods have as
// environment, arguments and files.
func everywhere(t *testing.T, to age.Recipient, secret string) map[string]string {
	t.Helper()
	files := shop("shop.example/web:1", 1)
	files["kustomization.yaml"] = "resources: [web.yaml, db.yaml, secret.yaml, more.yaml, sealed.yaml, job.yaml]\n" +
		"secretGenerator: [{name: made, literals: ['token=" + secret + "'], options: {disableNameSuffixHash: true}}]\n"
	files["secret.yaml"] = "apiVersion: v1\nkind: Secret\nmetadata: {name: till, namespace: default}\nstringData: {password: " + secret + "}\n"
	auth := base64.StdEncoding.EncodeToString([]byte("robot:" + secret))
	docker := base64.StdEncoding.EncodeToString([]byte(`{"auths":{"registry.example":{"username":"robot","password":"` + secret + `","auth":"` + auth + `"}}}`))
	files["more.yaml"] = `apiVersion: v1
kind: Secret
metadata: {name: pull, namespace: default}
type: kubernetes.io/dockerconfigjson
data: {.dockerconfigjson: ` + docker + `}
---
apiVersion: v1
kind: Secret
metadata: {name: hook, namespace: default, annotations: {note: "the key is in data"}}
immutable: false
stringData:
  key: ` + secret + `
  config.ini: |
    [server]
    url = https://robot:` + secret + `@git.example/shop.git
`
	files["sealed.yaml"] = rendertest.SOPS(t, to, "sealed", "password", secret)
	files["job.yaml"] = `apiVersion: apps/v1
kind: Deployment
metadata: {name: uses, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: uses}}
  template:
    metadata: {labels: {app: uses}}
    spec:
      os: {name: linux}
      imagePullSecrets: [{name: pull}]
      containers:
        - name: main
          image: shop.example/uses:1
          args: ["--password=$(PASSWORD)"]
          env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: sealed, key: password}}}]
          envFrom: [{secretRef: {name: hook}}]
          volumeMounts: [{name: made, mountPath: /made}]
      volumes: [{name: made, secret: {secretName: made}}]
`
	return files
}

// A secret that is written where secrets may be is in no byte that comes out. Where none
// may be, in the address of a repository, it is refused before it is recorded.
func TestNoSecretComesOutOfAnyPlace(t *testing.T) {
	const secret, other = "canary-places-91c4-do-not-tell", "canary-places-07be-do-not-tell"
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var logged lockedBuffer
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if w.keys, err = sops.ParseKeys([]byte(id.String() + "\n")); err != nil {
		t.Fatal(err)
	}
	// A chart's values make a Secret.
	chart := func(secret string) map[string]string {
		return map[string]string{
			"chart/Chart.yaml":  "apiVersion: v2\nname: till\nversion: 1.0.0\n",
			"chart/values.yaml": "password: " + secret + "\n",
			"chart/templates/secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: charted, namespace: default}\nstringData:\n" +
				"  password: {{ .Values.password | quote }}\n",
		}
	}
	files := everywhere(t, id.Recipient(), secret)
	files["apps.yaml"] = "apiVersion: tandem.dev/v1\nkind: Application\nmetadata: {name: till}\nspec: {path: chart}\n"
	files["kustomization.yaml"] = strings.Replace(files["kustomization.yaml"], "resources: [", "resources: [apps.yaml, ", 1)
	w.push("Ada <ada@shop.example>", "first", files)
	w.converged("first")
	till := state.Application{Name: "till", Path: "chart"}
	if problems := w.pushApp(till, "chart one", chart(secret)); len(problems) > 0 {
		t.Fatal(problems)
	}
	w.until("the chart", func(s *state.State) bool { a := s.Apps["till"]; return a != nil && a.Converged })
	if problems := w.pushApp(till, "chart bad", map[string]string{
		"chart/Chart.yaml": "apiVersion: v2\nname: till\nversion: 1.0.0\n", "chart/values.yaml": "password: " + secret + "\n",
		"chart/templates/secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: charted, namespace: default}\nstringData: {password: [{{ .Values.password }}]}\n",
	}); len(problems) == 0 {
		t.Error("a chart's Secret that is none was taken")
	}
	// Where no secret may be.
	for i, url := range []string{"https://robot:" + secret + "@git.example/shop.git", "ssh://robot:" + secret + "@git.example/shop.git", "https://ghp_" + secret + "@git.example/shop.git"} {
		bad := everywhere(t, id.Recipient(), secret)
		bad["apps.yaml"] = "apiVersion: tandem.dev/v1\nkind: Application\nmetadata: {name: till}\nspec: {source: {repo: '" + url + "'}}\n---\n" +
			"apiVersion: tandem.dev/v1\nkind: Pipeline\nmetadata: {name: p}\nspec: {repo: '" + url + "', stages: [{name: a, application: till}]}\n"
		bad["kustomization.yaml"] = strings.Replace(bad["kustomization.yaml"], "resources: [", "resources: [apps.yaml, ", 1)
		message := fmt.Sprint("address ", i)
		w.push("Ada <ada@shop.example>", message, bad)
		w.until(message, func(s *state.State) bool {
			r := s.Apps[state.RootApp].Rejected
			return r != nil && r.Revision.Commit() == hashOf(message) && strings.Contains(w.ctl.Words(r.Detail), "holds a password or token")
		})
	}
	again := everywhere(t, id.Recipient(), other)
	again["apps.yaml"], again["kustomization.yaml"] = files["apps.yaml"], strings.Replace(again["kustomization.yaml"], "resources: [", "resources: [apps.yaml, ", 1)
	w.push("Ada <ada@shop.example>", "second", again)
	w.converged("second")
	w.end()

	out := map[string]string{"the log of the process": logged.String()}
	read(t, dir, out)
	for where, text := range out {
		for _, s := range append(spellings(secret), spellings(other)...) {
			if strings.Contains(text, s) {
				t.Errorf("%s holds the secret as %q", where, s)
			}
		}
	}
}

// Who has a bundle and guesses finds nothing: a secret of four digits is in no digest that
// can be computed without the keys. With the keys it is, so the search would find it.
func TestDigestsCantBeGuessed(t *testing.T) {
	const pin = "4711"
	dir := filepath.Join(t.TempDir(), "data")
	w := newWorld(t, dir, slog.New(slog.DiscardHandler))
	files := shop("shop.example/web:1", 1)
	text := "apiVersion: v1\nkind: Secret\nmetadata: {name: till, namespace: default}\nstringData: {password: '%s'}\n"
	files["secret.yaml"] = fmt.Sprintf(text, "0815")
	w.push("Ada <ada@shop.example>", "first", files)
	w.converged("first")
	files["secret.yaml"] = fmt.Sprintf(text, pin)
	w.push("Ada <ada@shop.example>", "second", files)
	w.converged("second")
	keyed, err := manifest.VariantDigest(till(pin), w.data.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	w.end()
	out := map[string]string{}
	read(t, dir, out)
	has := func(d state.Digest) (where string) {
		for name, text := range out {
			if strings.Contains(text, string(d[:])) || strings.Contains(text, hex.EncodeToString(d[:])) {
				return name
			}
		}
		return ""
	}
	if has(keyed) == "" {
		t.Error("the digest that the records have isn't found with the keys: the search finds nothing at all")
	}
	for _, guess := range []string{pin, "0815"} { // whoever tries all ten thousand comes to these
		tries := []state.Digest{
			state.DigestOf([]byte(guess)), state.DigestOf([]byte(base64.StdEncoding.EncodeToString([]byte(guess)))), state.DigestOf([]byte("password" + guess)),
		}
		for _, tokens := range []manifest.Tokens{clear{}, rendertest.Tokens{}} {
			d, err := manifest.VariantDigest(till(guess), tokens)
			if err != nil {
				t.Fatal(err)
			}
			tries = append(tries, d)
		}
		for _, d := range tries {
			if where := has(d); where != "" {
				t.Errorf("%s: guessing %s gives a digest that is there", where, guess)
			}
		}
	}
}

// clear is a guesser's: values stand for themselves.
type clear struct{}

// Token implements manifest.Tokens.
func (clear) Token(value []byte) string { return string(value) }

// till is the Secret with a value, as it is decoded.
func till(value string) state.Body {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "till", Namespace: "default"}, Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{"password": []byte(value)},
	}
}
