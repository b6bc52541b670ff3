package images_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

const robotKey = "canary-robot-5f1c-do-not-tell"

// pullSecret has credentials, by place.
func pullSecret(name string, auths map[string]string) *corev1.Secret {
	type auth struct {
		Auth string `json:"auth"`
	}
	config := map[string]map[string]auth{"auths": {}}
	for at, a := range auths {
		config["auths"][at] = auth{base64.StdEncoding.EncodeToString([]byte(a))}
	}
	raw, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	s := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: raw}}
	s.Name = name
	return s
}

// private is a registry that lets in who has one of some users' names and
// passwords, and tells everybody else what they sent.
type private struct {
	mu    sync.Mutex
	open  []string // user:password
	asked []string // user:password, or empty
	next  http.Handler
}

func (p *private) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	who := ""
	if ok {
		who = user + ":" + password
	}
	p.mu.Lock()
	if len(p.asked) == 0 || p.asked[len(p.asked)-1] != who {
		p.asked = append(p.asked, who)
	}
	allowed := len(p.open) == 0 || slices.Contains(p.open, who)
	p.mu.Unlock()
	if !allowed {
		w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no entry for %s %s"}]}`, who, r.Header.Get("Authorization"))
		return
	}
	p.next.ServeHTTP(w, r)
}

func (p *private) allow(open ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open, p.asked = open, nil
}

// tried are who asked, one after another.
func (p *private) tried() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := slices.DeleteFunc(slices.Clone(p.asked), func(s string) bool { return s == "" })
	p.asked = nil
	return slices.Compact(out)
}

// servePrivate starts one with an image at team/web:1.
func servePrivate(t *testing.T) (*private, string) {
	t.Helper()
	p := &private{next: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	return p, serveImage(t, p, "/team/web:1")
}

// serveImage serves a registry and pushes an image to it; the answer is its host.
func serveImage(t *testing.T, h http.Handler, name string) (host string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	write(t, dir, spec("shop.example/web:1"))
	push(t, dir, host+name)
	return host
}

// nobody is a machine without credentials of its own.
type nobody struct{}

func (nobody) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

func TestPullSecrets(t *testing.T) {
	p, host := servePrivate(t)
	_, port, _ := strings.Cut(host, ":")
	p.allow("robot:" + robotKey)
	right, wrong := "robot:"+robotKey, "robot:canary-wrong-77aa"
	tests := []struct {
		name    string
		secrets []*corev1.Secret
		opens   bool
		tried   []string
	}{
		{"of the host", []*corev1.Secret{pullSecret("a", map[string]string{host: right})}, true, []string{right}},
		{"of the host, as a URL", []*corev1.Secret{pullSecret("a", map[string]string{"https://" + host + "/v2/": right})}, true, []string{right}},
		{"of a path above", []*corev1.Secret{pullSecret("a", map[string]string{host + "/team": right})}, true, []string{right}},
		{"of the path, before the host", []*corev1.Secret{pullSecret("a", map[string]string{host: wrong, host + "/team/web": right})}, true, []string{right}},
		{"of another path", []*corev1.Secret{pullSecret("a", map[string]string{host + "/other": right})}, false, nil},
		{"of another port", []*corev1.Secret{pullSecret("a", map[string]string{"127.0.0.1:1": right})}, false, nil},
		{"of any port", []*corev1.Secret{pullSecret("a", map[string]string{"127.0.0.1": right})}, false, nil},
		{"a glob", []*corev1.Secret{pullSecret("a", map[string]string{"127.*.0.*:" + port: right})}, true, []string{right}},
		{"a glob that is too short", []*corev1.Secret{pullSecret("a", map[string]string{"127.*:" + port: right})}, false, nil},
		{"several, one after another", []*corev1.Secret{pullSecret("a", map[string]string{host: wrong}), pullSecret("b", map[string]string{host: right})}, true, []string{wrong, right}},
		{"none", nil, false, nil},
		{"of another type", []*corev1.Secret{{Type: corev1.SecretTypeOpaque, Data: pullSecret("", map[string]string{host: right}).Data}}, false, nil},
		{"the older form", []*corev1.Secret{{Type: corev1.SecretTypeDockercfg, StringData: map[string]string{
			corev1.DockerConfigKey: `{"` + host + `":{"username":"robot","password":"` + robotKey + `"}}`,
		}}}, true, []string{right}},
		{"no JSON", []*corev1.Secret{{Type: corev1.SecretTypeDockerConfigJson, StringData: map[string]string{corev1.DockerConfigJsonKey: robotKey}}}, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p.tried()
			store := images.New(images.Options{Keychain: nobody{}}).With(images.NewCredentials(tt.secrets))
			im, err := store.Look(t.Context(), host+"/team/web:1")
			if (err == nil) != tt.opens {
				t.Errorf("opens %t (%v), want %t", err == nil, err, tt.opens)
			}
			if err != nil && code(err) != state.LookupDenied {
				t.Errorf("code %v of %v, want denied", code(err), err)
			}
			if got := p.tried(); !slices.Equal(got, tt.tried) {
				t.Errorf("tried %q, want %q", got, tt.tried)
			}
			hidesAll(t, fmt.Sprint(err), robotKey, "canary-wrong-77aa")
			if !tt.opens || err != nil {
				return
			}
			c, err := store.Fetch(t.Context(), host+"/team/web:1", im.Platforms[0].Digest)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range append(c.Layers, c.Config) {
				read(t, b)
			}
		})
	}
}

// hidesAll: a text holds none of some secrets, in no spelling that goes over the wire.
func hidesAll(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("robot:"+s))) {
			t.Errorf("a secret is told: %s", text)
		}
	}
}

// What a refusal says of the Secrets is what helps; credentials say nothing.
func TestRefusalNamesSecrets(t *testing.T) {
	p, host := servePrivate(t)
	p.allow("robot:" + robotKey)
	keys := images.NewCredentials([]*corev1.Secret{
		pullSecret("hub", map[string]string{"https://index.docker.io/v1/": "robot:" + robotKey}), {Type: corev1.SecretTypeOpaque},
	}).Lacking([]string{"gone"})
	_, err := images.New(images.Options{Keychain: nobody{}}).With(keys).Look(t.Context(), host+"/team/web:1")
	if err == nil {
		t.Fatal("it was let in")
	}
	for _, want := range []string{"type Opaque, want kubernetes.io/dockerconfigjson", "Secret gone, which imagePullSecrets names, is not there", "have credentials for index.docker.io, none for " + host + "/team/web"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nsays nothing of %q", err, want)
		}
	}
	raw, marshalled := json.Marshal(keys)
	hidesAll(t, fmt.Sprintf("%v %+v %#v %s %v %v %s", keys, keys, keys, keys, raw, marshalled, raw), robotKey)
	var said strings.Builder
	fmt.Fprint(&said, struct{ K images.Credentials }{keys}, []any{keys}, err)
	hidesAll(t, said.String(), robotKey)
}

// A mirror is let in by what its own host has credentials for.
func TestPullSecretOfAMirror(t *testing.T) {
	p, host := servePrivate(t)
	p.allow("robot:" + robotKey)
	store := images.New(images.Options{Keychain: nobody{}, Mirrors: map[string][]string{"docker.io": {host}}, Transport: only(host)})
	keys := images.NewCredentials([]*corev1.Secret{pullSecret("a", map[string]string{"docker.io": "robot:hub", host: "robot:" + robotKey})})
	if _, err := store.With(keys).Look(t.Context(), "team/web:1"); err != nil {
		t.Error(err)
	}
	if got := p.tried(); !slices.Equal(got, []string{"robot:" + robotKey}) {
		t.Errorf("the mirror was told %q", got)
	}
}

// only reaches one host: a test asks nobody outside.
type only string

func (o only) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != string(o) {
		return nil, fmt.Errorf("%s is outside of the test", r.URL.Host)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// Under Always an image that came with a pull Secret is for those who have its
// credentials, or whom the registry lets in.
func TestPrivateImageOnTheNode(t *testing.T) {
	p, host := servePrivate(t)
	p.allow("robot:"+robotKey, "other:key-of-another")
	name, file := host+"/team/web:1", filepath.Join(t.TempDir(), "private.json")
	l, err := images.OpenLedger(file)
	if err != nil {
		t.Fatal(err)
	}
	base := images.New(images.Options{Keychain: nobody{}})
	with := func(user string) *images.Store {
		return base.With(images.NewCredentials([]*corev1.Secret{pullSecret("a", map[string]string{host: user})}))
	}
	im, err := with("robot:"+robotKey).Look(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	digest := im.Platforms[0].Digest
	may := func(what string, s *images.Store, want, asks bool) {
		t.Helper()
		p.tried()
		err := l.May(t.Context(), s, name, digest)
		if (err == nil) != want {
			t.Errorf("%s: may %t, want %t: %v", what, err == nil, want, err)
		}
		p.mu.Lock()
		asked := len(p.asked) > 0
		p.mu.Unlock()
		if asked != asks {
			t.Errorf("%s: the registry was asked: %t, want %t", what, asked, asks)
		}
	}
	may("before it came", base, true, false)
	c, err := with("robot:"+robotKey).Fetch(t.Context(), name, digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Came(c); err != nil {
		t.Fatal(err)
	}
	if l, err = images.OpenLedger(file); err != nil { // after a restart
		t.Fatal(err)
	}
	may("who pulled it", with("robot:"+robotKey), true, false)
	may("nobody", base, false, true)
	may("somebody with a wrong password", with("robot:wrong"), false, true)
	may("another whom the registry knows", with("other:key-of-another"), true, true)
	may("the same a second time", with("other:key-of-another"), true, false)
	hidesAll(t, string(contents(t, file)), robotKey, "key-of-another")
	p.allow() // the repository is made public
	may("nobody, now that it is public", base, true, true)
	p.allow("robot:" + robotKey)
	may("everybody from then on", base, true, false)
	if err := l.Forget(digest); err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
