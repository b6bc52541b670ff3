package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Limits of what strangers send.
const (
	MaxBody    = 1 << 20 // bytes of a request
	MinSecret  = 16      // bytes of a secret
	maxSecret  = 4096
	bodyTime   = 10 * time.Second // to send the body in
	replayTime = 10 * time.Minute // within which the same request counts once
	maxReplays = 4096             // requests that are remembered
)

// Options are what a Handler needs.
type Options struct {
	// Secrets is a directory with a file for each host that may call: github,
	// gitlab, gitea, forgejo, generic. Without its file a host is not listened to.
	Secrets string
	// Hint is called with a repository's Key and the full name of the ref that
	// moved, "" where that isn't told. It must not wait.
	Hint func(repo, ref string)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Logger tells what was refused; nil discards it.
	Logger *slog.Logger
}

// A Handler answers POST …/github, …/gitlab, …/gitea, …/forgejo and …/generic.
// A request's signature is checked over its bytes before anything else is done
// with them.
type Handler struct {
	options Options
	pace    *limiter
	seen    *memory
}

var _ http.Handler = (*Handler)(nil)

// New makes a Handler.
func New(options Options) *Handler {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Handler{options: options, pace: newLimiter(), seen: &memory{times: map[[32]byte]time.Time{}}}
}

// refusal is an answer that isn't 202.
type refusal struct {
	status int
	text   string // for the caller: says nothing about secrets
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, text string) *refusal { return &refusal{status, text} }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	said, err := h.answer(w, r)
	status := http.StatusAccepted
	if err != nil {
		var no *refusal
		if !errors.As(err, &no) {
			no = refuse(http.StatusInternalServerError, "the hook can't be read now")
		}
		status, said = no.status, no.text
		h.options.Logger.LogAttrs(r.Context(), slog.LevelWarn, "refused a webhook",
			slog.String("host", path.Base(r.URL.Path)), slog.String("from", caller(r)), slog.Int("status", status), slog.Any("err", err))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, said+"\n") // a caller that has gone needs no answer
}

func (h *Handler) answer(w http.ResponseWriter, r *http.Request) (string, error) {
	host, ok := hosts()[path.Base(r.URL.Path)]
	switch {
	case !ok:
		return "", refuse(http.StatusNotFound, "no such hook: github, gitlab, gitea, forgejo and generic are known")
	case !h.pace.allow(caller(r), h.options.Now()):
		w.Header().Set("Retry-After", "1")
		return "", refuse(http.StatusTooManyRequests, "too many requests")
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		return "", refuse(http.StatusMethodNotAllowed, "want POST")
	case r.ContentLength > MaxBody:
		return "", refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", MaxBody))
	}
	secret, err := h.secret(host.name)
	if err != nil {
		return "", err
	}
	// Where the connection has no deadlines the server's own limits hold.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return "", refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body has more than %d bytes", MaxBody))
		}
		return "", refuse(http.StatusBadRequest, "the body could not be read")
	}
	if !host.proven(r.Header, body, secret) {
		return "", refuse(http.StatusUnauthorized, "the signature is missing or wrong")
	}
	return h.proven(r, host, body)
}

// proven goes on with a request that comes from who knows the secret.
func (h *Handler) proven(r *http.Request, host *host, body []byte) (string, error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return "", refuse(http.StatusUnsupportedMediaType, "want the content type application/json")
	}
	event := r.Header.Get(host.eventHeader)
	if !host.knows(event) {
		return "nothing to do for this event", nil
	}
	push, err := host.parse(body)
	if err != nil {
		return "", refuse(http.StatusBadRequest, "the body is not what "+host.name+" sends: "+err.Error())
	}
	// What marks a delivery in its headers is not signed: the bytes are remembered.
	if h.seen.before(sha256.Sum256(append([]byte(host.name+"\x00"), body...)), h.options.Now()) {
		return "seen before", nil
	}
	for _, repo := range push.repos {
		h.options.Hint(repo, push.ref)
	}
	return "looking", nil
}

// secret is read anew for each request, so that it can be exchanged.
func (h *Handler) secret(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(h.options.Secrets, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, refuse(http.StatusNotFound, "this hook is not set up: its secret is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("read the secret of %s: %w", name, err)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read the secret of %s: %w", name, err)
	}
	secret := []byte(strings.TrimSpace(string(raw)))
	if len(secret) < MinSecret {
		return nil, refuse(http.StatusServiceUnavailable, "this hook is not set up: its secret is too short")
	}
	return secret, nil
}

// caller is the address that a request comes from. Headers that proxies add are
// not believed: anybody can write them.
func caller(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// mac is the HMAC-SHA256 of a body.
func mac(secret, body []byte) []byte {
	m := hmac.New(sha256.New, secret)
	_, _ = m.Write(body) // never fails
	return m.Sum(nil)
}
