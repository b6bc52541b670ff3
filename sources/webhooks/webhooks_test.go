package webhooks_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/sources/webhooks"
)

const secret = "a secret of nineteen"

func sum(key, body string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(body))
	return hex.EncodeToString(m.Sum(nil))
}

type world struct {
	*webhooks.Handler
	dir   string
	now   time.Time
	hints []string
	log   bytes.Buffer
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := newWorldIn(t.TempDir())
	for _, name := range []string{"github", "gitlab", "gitea", "forgejo", "generic"} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// newWorldIn listens with the secrets of a directory.
func newWorldIn(dir string) *world {
	w := &world{dir: dir, now: time.Unix(1_800_000_000, 0)}
	w.Handler = webhooks.New(webhooks.Options{
		Secrets: w.dir, Hint: func(repo, ref string) { w.hints = append(w.hints, repo+" "+ref) }, Now: func() time.Time { return w.now },
		Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
	})
	return w
}

// answer is what a request got.
type answer struct {
	StatusCode int
	Status     string
}

func (w *world) send(path, body string, header ...string) answer {
	r := httptest.NewRequest(http.MethodPost, "/hooks/"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return answer{rec.Code, http.StatusText(rec.Code)}
}

const (
	githubBody = `{"ref":"refs/heads/main","repository":{"full_name":"team/shop","clone_url":"https://git.example/team/shop.git","ssh_url":"git@git.example:team/shop.git","html_url":"https://git.example/team/shop"}}`
	gitlabBody = `{"ref":"refs/tags/v1","project":{"git_http_url":"https://git.example:8443/team/shop.git","git_ssh_url":"ssh://git@ssh.git.example:22/team/shop.git","web_url":"https://git.example/team/shop"}}`
)

// deliveries are honest requests of each host.
func deliveries() map[string][]string {
	return map[string][]string{
		"github":  {githubBody, "X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256=" + sum(secret, githubBody)},
		"gitlab":  {gitlabBody, "X-Gitlab-Event", "Tag Push Hook", "X-Gitlab-Token", secret},
		"gitea":   {githubBody, "X-Gitea-Event", "push", "X-Gitea-Signature", sum(secret, githubBody)},
		"forgejo": {githubBody, "X-Forgejo-Event", "push", "X-Forgejo-Signature", sum(secret, githubBody)},
		"generic": {`{"repo":"https://git.example/team/shop"}`, "X-Signature", "sha256=" + sum(secret, `{"repo":"https://git.example/team/shop"}`)},
	}
}

func TestHonest(t *testing.T) {
	t.Parallel()
	want := map[string][]string{
		"github": {"git.example/team/shop refs/heads/main"}, "gitea": {"git.example/team/shop refs/heads/main"}, "forgejo": {"git.example/team/shop refs/heads/main"},
		"gitlab": {"git.example/team/shop refs/tags/v1", "ssh.git.example/team/shop refs/tags/v1"}, "generic": {"git.example/team/shop "},
	}
	for name, d := range deliveries() {
		w := newWorld(t)
		if got := w.send(name, d[0], d[1:]...); got.StatusCode != http.StatusAccepted {
			t.Errorf("%s: %s", name, got.Status)
		}
		if diff := cmp.Diff(want[name], w.hints); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		// The same again is heard once, and once more when it has been forgotten.
		for _, header := range [][]string{{}, {"X-GitHub-Delivery", "another"}} {
			if got := w.send(name, d[0], append(slices.Clone(d[1:]), header...)...); got.StatusCode != http.StatusAccepted || len(w.hints) != len(want[name]) {
				t.Errorf("%s replayed: %s, %d hints", name, got.Status, len(w.hints))
			}
		}
		w.now = w.now.Add(11 * time.Minute)
		if w.send(name, d[0], d[1:]...); len(w.hints) != 2*len(want[name]) {
			t.Errorf("%s after a while: %d hints", name, len(w.hints))
		}
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("%s: the secret is in the log: %s", name, w.log.String())
		}
	}
}

func TestForged(t *testing.T) {
	t.Parallel()
	for name, d := range deliveries() {
		key, honest := d[len(d)-2], d[len(d)-1]
		before := slices.Clone(d[1 : len(d)-2])
		bare := strings.TrimPrefix(honest, "sha256=")
		forged := map[string][]string{
			"none": {}, "empty": {key, ""}, "twice": {key, honest, key, honest}, "cut": {key, honest[:len(honest)-2]}, "longer": {key, honest + "00"},
			"other key": {key, strings.Replace(honest, bare, sum("another secret here", d[0]), 1)}, "no key": {key, strings.Replace(honest, bare, sum("", d[0]), 1)},
			"other body": {key, strings.Replace(honest, bare, sum(secret, d[0]+" "), 1)}, "sha1": {key, "sha1=" + bare}, "no hex": {key, "sha256=zz"}, "space": {key, " " + honest + "x"},
			"in another header": {"X-Hub-Signature", honest}, "secret with newline": {key, secret + "\\n"},
		}
		for what, header := range forged {
			w := newWorld(t)
			got := w.send(name, d[0], append(before, header...)...)
			if got.StatusCode != http.StatusUnauthorized || len(w.hints) > 0 {
				t.Errorf("%s, %s: %s, hints %v", name, what, got.Status, w.hints)
			}
		}
		if name == "gitlab" {
			continue // it signs no body
		}
		w := newWorld(t)
		if got := w.send(name, strings.Replace(d[0], "shop", "chop", 1), d[1:]...); got.StatusCode != http.StatusUnauthorized || len(w.hints) > 0 {
			t.Errorf("%s, body changed: %s", name, got.Status)
		}
	}
}

// What is signed may still be nonsense: an error, no crash, no hint.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		"", "null", "[]", "{", `{"repository":null}`, `{"repository":[]}`, `{"repository":{}}`, `{"repository":{"clone_url":7}}`, `{"ref":{},"repository":{}}`, "\x00", "\xff\xfe",
		strings.Repeat("[", 100_000), strings.Repeat(`{"repository":`, 50_000), `{"repository":{"clone_url":"file:///etc"}}`, `{"repository":{"clone_url":"https://git.example/"}}`,
		`{"repository":{"clone_url":"https://a b/c"}}`, `{"repo":"x"}`, `{"repository":{"clone_url":"http://[::1/x"}}`,
	} {
		for _, name := range []string{"github", "gitea", "forgejo", "gitlab", "generic"} {
			w := newWorld(t)
			got := w.send(name, body, "X-GitHub-Event", "push", "X-Gitea-Event", "push", "X-Forgejo-Event", "push", "X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", secret,
				"X-Hub-Signature-256", "sha256="+sum(secret, body), "X-Gitea-Signature", sum(secret, body), "X-Forgejo-Signature", sum(secret, body), "X-Signature", "sha256="+sum(secret, body))
			if got.StatusCode != http.StatusBadRequest || len(w.hints) > 0 {
				t.Errorf("%s %.40q: %s, hints %v", name, body, got.Status, w.hints)
			}
		}
	}
}

// A repository's address with the characters of patterns is an address like any
// other, and a ref that is none is left out.
func TestNothingIsAPattern(t *testing.T) {
	t.Parallel()
	body := `{"ref":"refs/heads/../../x","repository":{"clone_url":"https://git.example/.*|(a+)+$/shop","html_url":"https://.*/.*"}}`
	w := newWorld(t)
	w.send("github", body, "X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+sum(secret, body))
	if diff := cmp.Diff([]string{"git.example/.*|(a+)+$/shop ", ".*/.* "}, w.hints); diff != "" {
		t.Error(diff)
	}
}

func TestNotSetUp(t *testing.T) {
	t.Parallel()
	d := deliveries()["github"]
	for text, want := range map[string]int{"": http.StatusServiceUnavailable, "short": http.StatusServiceUnavailable, " \n": http.StatusServiceUnavailable, "-": http.StatusNotFound} {
		w := newWorld(t)
		file := filepath.Join(w.dir, "github")
		err := os.WriteFile(file, []byte(text), 0o600)
		if text == "-" {
			err = os.Remove(file)
		}
		if err != nil {
			t.Fatal(err)
		}
		body := d[0]
		for _, key := range []string{secret, "", "short"} {
			if got := w.send("github", body, "X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+sum(key, body)); got.StatusCode != want || len(w.hints) > 0 {
				t.Errorf("secret file %q, key %q: %s, want %d", text, key, got.Status, want)
			}
		}
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	t.Parallel()
	d := deliveries()["github"]
	for what, c := range map[string]struct {
		method, path, media string
		want                int
	}{
		"GET":          {http.MethodGet, "github", "application/json", http.StatusMethodNotAllowed},
		"another host": {http.MethodPost, "bitbucket", "application/json", http.StatusNotFound},
		"a path":       {http.MethodPost, "..%2f..%2fetc%2fpasswd", "application/json", http.StatusNotFound},
		"a form":       {http.MethodPost, "github", "application/x-www-form-urlencoded", http.StatusUnsupportedMediaType},
		"no type":      {http.MethodPost, "github", "", http.StatusUnsupportedMediaType},
		"lies":         {http.MethodPost, "github", "text/html", http.StatusUnsupportedMediaType},
	} {
		w := newWorld(t)
		r := httptest.NewRequest(c.method, "/hooks/"+c.path, strings.NewReader(d[0]))
		r.Header.Set("Content-Type", c.media)
		for i := 1; i+1 < len(d); i += 2 {
			r.Header.Set(d[i], d[i+1])
		}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code != c.want || len(w.hints) > 0 {
			t.Errorf("%s: %d, want %d", what, rec.Code, c.want)
		}
	}
	w := newWorld(t)
	if got := w.send("github", d[0], "X-GitHub-Event", "ping", d[3], d[4]); got.StatusCode != http.StatusAccepted || len(w.hints) > 0 {
		t.Errorf("ping: %s, hints %v", got.Status, w.hints)
	}
}

// endless is a body without an end that counts what is taken of it.
type endless struct{ taken int }

func (e *endless) Read(p []byte) (int, error) {
	e.taken += len(p)
	return len(p), nil
}

func TestHugeBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := &endless{}
	r := httptest.NewRequest(http.MethodPost, "/hooks/github", io.NopCloser(body))
	r.ContentLength = -1
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	if rec.Code != http.StatusRequestEntityTooLarge || body.taken > 4*webhooks.MaxBody {
		t.Errorf("%d after %d bytes", rec.Code, body.taken)
	}
	r = httptest.NewRequest(http.MethodPost, "/hooks/github", io.NopCloser(&endless{}))
	r.ContentLength = 100 << 20
	rec = httptest.NewRecorder()
	if w.ServeHTTP(rec, r); rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("100 MB: %d", rec.Code)
	}
}

func TestFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := deliveries()["github"]
	counts := map[int]int{}
	for range 200 {
		counts[w.send("github", "x").StatusCode]++
	}
	if counts[http.StatusUnauthorized] != 30 || counts[http.StatusTooManyRequests] != 170 {
		t.Errorf("200 requests at once: %v", counts)
	}
	w.now = w.now.Add(time.Second)
	if got := w.send("github", d[0], d[1:]...); got.StatusCode != http.StatusAccepted || len(w.hints) != 1 {
		t.Errorf("a second later: %s", got.Status)
	}
	// Ten thousand addresses neither fill the memory nor lock out one that is known.
	for i := range 10_000 {
		r := httptest.NewRequest(http.MethodPost, "/hooks/github", strings.NewReader("x"))
		r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:99", i/250, i%250)
		w.ServeHTTP(httptest.NewRecorder(), r)
	}
	if got := w.send("github", d[0], d[1:]...); got.StatusCode != http.StatusAccepted {
		t.Errorf("after a flood from elsewhere: %s", got.Status)
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://git.example/team/shop.git": "git.example/team/shop", "https://user:pw@GIT.example:8443/team/shop": "git.example/team/shop", "git@git.example:team/shop.git": "git.example/team/shop",
		"ssh://git@git.example:22/team/shop.git/": "git.example/team/shop", "git.example:/team/shop": "git.example/team/shop", "https://git.example/a/../b": "git.example/b",
		"": "", "/srv/shop": "", "file:///srv/shop": "", "https://git.example": "", "https://git.example/\n": "", strings.Repeat("a", 4000) + ":b": "",
	} {
		if got := webhooks.Key(address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}

// Whatever comes, only what is signed with the secret hints, and nothing crashes.
func FuzzRequest(f *testing.F) {
	for name, d := range deliveries() {
		f.Add(name, d[0], d[len(d)-2], d[len(d)-1], true)
	}
	f.Add("github", `{"repository":{"clone_url":"a:b"}}`, "X-GitHub-Event", "push", true)
	dir := newWorld(f).dir
	f.Fuzz(func(t *testing.T, path, body, key, value string, honest bool) {
		w := newWorldIn(dir)
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.URL.Path = "/hooks/" + path
		r.Header.Set("Content-Type", "application/json")
		r.Header[http.CanonicalHeaderKey(key)] = []string{value}
		for _, h := range []string{"X-Github-Event", "X-Gitea-Event", "X-Forgejo-Event"} {
			r.Header.Set(h, "push")
		}
		proven := strings.Contains(value, secret) || strings.Contains(value, sum(secret, body))
		if honest && !proven {
			r.Header.Set("X-Signature", "sha256="+sum(secret, body))
			proven = true
		}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if len(w.hints) > 0 && !proven || rec.Code == http.StatusInternalServerError {
			t.Errorf("%d, hints %v", rec.Code, w.hints)
		}
	})
}
