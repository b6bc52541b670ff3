package images

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
)

// Credentials are what pull Secrets say of registries, in the order of the
// Secrets. They print as nothing, whoever prints them.
type Credentials struct {
	entries []credential
	notes   []string // why a Secret gives none; nothing secret
}

// A credential is a place and what opens it.
type credential struct {
	place string // host[:port][/path], the host's parts may be globs
	auth  authn.AuthConfig
}

// maxCredentials is how many entries of all Secrets of a pod are read: as many
// as a Secret has room for, and more than anybody tries.
const maxCredentials = 1000

// NewCredentials reads pull Secrets of type kubernetes.io/dockerconfigjson and
// kubernetes.io/dockercfg. One that can't be read gives none: what it lacks is
// told with a pull that fails.
func NewCredentials(secrets []*corev1.Secret) Credentials {
	var c Credentials
	for _, s := range secrets {
		entries, err := readPullSecret(s)
		if err != nil {
			c.notes = append(c.notes, fmt.Sprintf("Secret %s: %v", s.Name, err))
			continue
		}
		c.entries = append(c.entries, entries...)
	}
	c.entries = c.entries[:min(len(c.entries), maxCredentials)]
	return c
}

// Lacking is the same with Secrets that aren't there.
func (c Credentials) Lacking(names []string) Credentials {
	c.notes = slices.Clone(c.notes)
	for _, n := range names {
		c.notes = append(c.notes, fmt.Sprintf("Secret %s, which imagePullSecrets names, is not there", n))
	}
	return c
}

// Empty says whether there are no credentials, and nothing to be said of them.
func (c Credentials) Empty() bool { return len(c.entries)+len(c.notes) == 0 }

// Notes say why Secrets give no credentials. They hold nothing secret.
func (c Credentials) Notes() []string { return slices.Clone(c.notes) }

const hiddenText = "[credentials]"

// String implements fmt.Stringer.
func (c Credentials) String() string { return hiddenText }

// GoString implements fmt.GoStringer.
func (c Credentials) GoString() string { return hiddenText }

// Format implements fmt.Formatter.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hiddenText)) }

// MarshalJSON implements json.Marshaler.
func (c Credentials) MarshalJSON() ([]byte, error) { return json.Marshal(hiddenText) }

// LogValue implements slog.LogValuer.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(hiddenText) }

// readPullSecret reads one pull Secret. Its error says what is wrong and holds
// none of its values.
func readPullSecret(s *corev1.Secret) ([]credential, error) {
	key := corev1.DockerConfigJsonKey
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
	case corev1.SecretTypeDockercfg:
		key = corev1.DockerConfigKey
	default:
		return nil, fmt.Errorf("it is of type %s, want %s", cmp.Or(string(s.Type), "Opaque"), corev1.SecretTypeDockerConfigJson)
	}
	raw, ok := s.Data[key]
	if text, has := s.StringData[key]; has {
		raw, ok = []byte(text), true
	}
	if !ok {
		return nil, fmt.Errorf("it has no key %s", key)
	}
	auths := map[string]authn.AuthConfig{}
	var err error
	if key == corev1.DockerConfigKey {
		err = json.Unmarshal(raw, &auths)
	} else {
		var config struct {
			Auths map[string]authn.AuthConfig `json:"auths"`
			Store string                      `json:"credsStore"`
		}
		err = json.Unmarshal(raw, &config)
		if auths = config.Auths; err == nil && len(auths) == 0 && config.Store != "" {
			return nil, fmt.Errorf("its %s has no auths: the credentials are in the store %q of the machine that it was copied from; write them with `kubectl create secret docker-registry`", key, config.Store)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("its %s is not a docker configuration: no JSON, or an auth that is not base64 of user:password", key) // json's text quotes the value
	}
	var out []credential
	for at, auth := range auths {
		if place, ok := parsePlace(at); ok {
			out = append(out, credential{place, auth})
		}
	}
	slices.SortFunc(out, func(a, b credential) int { return strings.Compare(a.place, b.place) })
	return out, nil
}

// parsePlace makes "https://index.docker.io/v1/" into "index.docker.io" and
// leaves "host:5000/team" as it is: Kubernetes's credentialprovider.Add.
func parsePlace(at string) (string, bool) {
	if !strings.HasPrefix(at, "https://") && !strings.HasPrefix(at, "http://") {
		at = "https://" + at
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return "", false
	}
	below := u.Path
	if strings.HasPrefix(below, "/v2/") || strings.HasPrefix(below, "/v1/") {
		below = below[3:]
	}
	if below == "/" {
		below = ""
	}
	return u.Host + below, true
}

// hubKey is where docker keeps the credentials of Docker Hub.
const hubKey = "index.docker.io"

// match are the entries for a repository, the more specific place first, and of
// one place in the order of the Secrets: Kubernetes's BasicDockerKeyring.Lookup.
func (c Credentials) match(repo name.Repository) []credential {
	host, hub := repo.RegistryStr(), repo.RegistryStr() == name.DefaultRegistry
	if hub {
		host = "docker.io"
	}
	var out []credential
	for _, e := range c.entries {
		if placeMatches(e.place, host, "/"+repo.RepositoryStr()) {
			out = append(out, e)
		}
	}
	if len(out) == 0 && hub {
		for _, e := range c.entries {
			if e.place == hubKey {
				out = append(out, e)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b credential) int { return strings.Compare(b.place, a.place) })
	return out
}

// placeMatches is Kubernetes's URLsMatch: the same port, as many parts of the
// host, each matching as a glob, and a path that begins so.
func placeMatches(place, host, repository string) bool {
	at, below, _ := strings.Cut(place, "/")
	if below != "" && !strings.HasPrefix(repository, "/"+below) {
		return false
	}
	globHost, globPort := splitPort(at)
	wantHost, wantPort := splitPort(host)
	globs, parts := strings.Split(globHost, "."), strings.Split(wantHost, ".")
	if globPort != wantPort || len(globs) != len(parts) {
		return false
	}
	for i, g := range globs {
		if ok, err := path.Match(g, parts[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitPort(host string) (name, port string) {
	u := url.URL{Host: host}
	return u.Hostname(), u.Port()
}

// places are the hosts and paths that there are credentials for.
func (c Credentials) places() []string {
	var out []string
	for _, e := range c.entries {
		out = append(out, e.place)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// secretTexts are what must not be in a text.
func secretTexts(a *authn.AuthConfig) []string {
	var out []string
	for _, s := range []string{a.Auth, a.Password, a.IdentityToken, a.RegistryToken} {
		if len(s) >= 4 { // less is no secret, and would make a text unreadable
			out = append(out, s)
		}
	}
	return out
}

// A hidden error says what err does without credentials: a registry may send
// back what it was sent.
type hidden struct {
	text string
	err  error
}

func (h *hidden) Error() string { return h.text }
func (h *hidden) Unwrap() error { return h.err }

// maxErrorText is how much of a registry's words is told: it may send a page.
const maxErrorText = 1000

func hide(err error, auth *authn.AuthConfig) error {
	text := err.Error()
	if auth != nil {
		for _, s := range secretTexts(auth) {
			text = strings.ReplaceAll(text, s, hiddenText)
		}
	}
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	return &hidden{text, err}
}
