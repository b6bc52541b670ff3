package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/sources/refs"
)

// A host is a kind of Git server that calls.
type host struct {
	name        string
	eventHeader string
	events      []string // that tell of pushes; empty: every request does
	proven      func(h http.Header, body, secret []byte) bool
	repository  string // the field that describes the repository; "": the repo field is its address
}

func hosts() map[string]*host {
	gitea := &host{name: "gitea", eventHeader: "X-Gitea-Event", events: []string{"push", "create", "delete"}, proven: signed("X-Gitea-Signature", ""), repository: "repository"}
	forgejo := *gitea
	forgejo.name, forgejo.eventHeader, forgejo.proven = "forgejo", "X-Forgejo-Event", signed("X-Forgejo-Signature", "")
	return map[string]*host{
		"github":  {name: "github", eventHeader: "X-GitHub-Event", events: []string{"push", "create", "delete"}, proven: signed("X-Hub-Signature-256", "sha256="), repository: "repository"},
		"gitlab":  {name: "gitlab", eventHeader: "X-Gitlab-Event", events: []string{"Push Hook", "Tag Push Hook"}, proven: token("X-Gitlab-Token"), repository: "project"},
		"gitea":   gitea,
		"forgejo": &forgejo,
		"generic": {name: "generic", proven: signed("X-Signature", "sha256=")},
	}
}

func (h *host) knows(event string) bool {
	return len(h.events) == 0 || slices.Contains(h.events, event)
}

// signed checks an HMAC-SHA256 of the body in one header, in hexadecimal.
func signed(header, prefix string) func(http.Header, []byte, []byte) bool {
	return func(h http.Header, body, secret []byte) bool {
		values := h.Values(header)
		if len(values) != 1 {
			return false
		}
		text, ok := strings.CutPrefix(values[0], prefix)
		sum, err := hex.DecodeString(text)
		return ok && err == nil && hmac.Equal(sum, mac(secret, body))
	}
}

// token checks a shared secret in one header: GitLab signs nothing. The hashes
// are compared, so that the time tells nothing of the length either.
func token(header string) func(http.Header, []byte, []byte) bool {
	return func(h http.Header, _, secret []byte) bool {
		values := h.Values(header)
		if len(values) != 1 {
			return false
		}
		got, want := sha256.Sum256([]byte(values[0])), sha256.Sum256(secret)
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1
	}
}

// push is what is used of a request.
type push struct {
	repos []string // Keys
	ref   string
}

type payload struct {
	Ref        string          `json:"ref"`
	Repo       string          `json:"repo"`
	Repository json.RawMessage `json:"repository"`
	Project    json.RawMessage `json:"project"`
}

type addresses struct {
	CloneURL string `json:"clone_url"`
	SSHURL   string `json:"ssh_url"`
	HTMLURL  string `json:"html_url"`
	GitHTTP  string `json:"git_http_url"`
	GitSSH   string `json:"git_ssh_url"`
	WebURL   string `json:"web_url"`
}

func (h *host) parse(body []byte) (push, error) {
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		return push{}, errors.New("it is no JSON object of the right form")
	}
	var urls []string
	switch h.repository {
	case "":
		urls = []string{p.Repo}
	default:
		raw := p.Repository
		if h.repository == "project" {
			raw = p.Project
		}
		var a addresses
		if err := json.Unmarshal(raw, &a); err != nil {
			return push{}, errors.New("it has no " + h.repository)
		}
		urls = []string{a.CloneURL, a.SSHURL, a.HTMLURL, a.GitHTTP, a.GitSSH, a.WebURL}
	}
	var out push
	for _, u := range urls {
		if key := Key(u); key != "" && !slices.Contains(out.repos, key) {
			out.repos = append(out.repos, key)
		}
	}
	if len(out.repos) == 0 {
		return push{}, errors.New("it names no repository")
	}
	if strings.HasPrefix(p.Ref, "refs/") && refs.Valid(p.Ref) {
		out.ref = p.Ref
	}
	return out, nil
}

// Key is what the addresses of one repository have in common, over HTTPS and
// SSH: "git.example/team/shop". It is "" for what is no address. Two keys are
// equal or not; nothing in them is a pattern.
func Key(address string) string {
	if len(address) > 2048 || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return ""
	}
	host, file := "", ""
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err != nil {
			return ""
		}
		host, file = u.Hostname(), u.Path
	} else {
		before, after, ok := strings.Cut(address, ":")
		if !ok || strings.Contains(before, "/") {
			return ""
		}
		host, file = before[strings.LastIndexByte(before, '@')+1:], after
	}
	file = strings.TrimSuffix(strings.TrimPrefix(path.Clean("/"+file), "/"), ".git")
	if host == "" || file == "" {
		return ""
	}
	return strings.ToLower(host) + "/" + file
}
