package images

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// classify gives what a registry said, or why it said nothing, a code and what
// to do about it. Registries answer 401 both to missing credentials and to
// repositories that don't exist, so "denied" is all that can be said then.
func classify(err error) error {
	var c *coded
	var t *transport.Error
	switch {
	case errors.As(err, &c):
		return err
	case errors.As(err, &t):
		return answered(t, err)
	case strings.Contains(err.Error(), "unsupported MediaType"):
		return &coded{state.LookupMalformed, err}
	case strings.Contains(err.Error(), "does not match requested digest"): // an error without a type
		return refused(state.LookupDamaged, "%w; the registry gives another manifest than the digest names: push the image again, or look at what stands between", err)
	}
	if strings.Contains(err.Error(), "error verifying") { // an error without a type
		return refused(state.LookupDamaged, "%w; what came isn't what its digest names: it was cut short or changed on the way, and is fetched again", err)
	}
	if what := silence(err); what != "" {
		err = fmt.Errorf("%w; %s", err, what)
	}
	return &coded{state.LookupUnavailable, err}
}

// answered is classify of an answer.
func answered(t *transport.Error, err error) error {
	switch {
	case t.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %w", errAbsent, err)
	case t.StatusCode == http.StatusUnauthorized || t.StatusCode == http.StatusForbidden:
		return &coded{state.LookupDenied, fmt.Errorf("%w; check the name, and name a Secret with credentials in imagePullSecrets, or `docker login` on the machine", err)}
	case t.StatusCode == http.StatusTooManyRequests:
		return &coded{state.LookupUnavailable, fmt.Errorf("%w; too many requests: it is tried again by itself; credentials or a mirror raise the limit", err)}
	case t.StatusCode >= http.StatusInternalServerError:
		return &coded{state.LookupUnavailable, fmt.Errorf("%w; the registry is in trouble: it is tried again by itself", err)}
	default:
		return &coded{state.LookupUnavailable, err}
	}
}

// silence is what to do about a registry that was not reached; empty: nothing is
// known that the error doesn't say.
func silence(err error) string {
	var name *net.DNSError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var other x509.HostnameError
	switch {
	case errors.As(err, &name):
		return "check the registry's name, and the name server of this machine"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there: start the registry, or check its port"
	case errors.As(err, &unknown):
		return "this machine doesn't trust who signed its certificate: add the CA to the machine's trust store, and start tandem again"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the registry's certificate, or set this machine's clock"
	case errors.As(err, &other):
		return "its certificate is for other names: give it one for the name that the image has"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it speaks plain HTTP, which is allowed for localhost alone: give it a certificate"
	case errors.Is(err, errStalled):
		return "look at the network between this machine and the registry; it is tried again by itself"
	case errors.Is(err, context.DeadlineExceeded):
		return "it did not answer in time; it is tried again by itself"
	}
	return ""
}

// DefaultStall is how long nothing may come from a registry. A transfer that goes
// on, however slowly, isn't ended.
const DefaultStall = time.Minute

var errStalled = errors.New("nothing came for too long")

// maxRetryAfter bounds how long a registry can ask us to wait.
const maxRetryAfter = 10 * time.Minute

// A carrier sends requests: over plain HTTP to this machine only (images are
// code, and the name of a private address proves nothing about who answers), not
// before a host wants to be asked again, and with an end where nothing comes.
type carrier struct {
	http.RoundTripper

	stall time.Duration

	mu    sync.Mutex
	after map[string]time.Time
}

// RoundTrip implements http.RoundTripper.
func (g *carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "http" && !loopback(r.URL.Hostname()) {
		return nil, &coded{state.LookupUnavailable, fmt.Errorf("registry %s speaks plain HTTP only, which is allowed for localhost alone; give it a certificate", r.URL.Host)}
	}
	g.mu.Lock()
	wait := time.Until(g.after[r.URL.Host])
	g.mu.Unlock()
	if wait > 0 {
		return nil, &coded{state.LookupUnavailable, fmt.Errorf("registry %s wants to be asked again in %s only (Retry-After); credentials or a mirror raise its limit", r.URL.Host, wait.Round(time.Second))}
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	watch := time.AfterFunc(g.stall, func() { cancel(errStalled) })
	answer, err := g.RoundTripper.RoundTrip(r.WithContext(ctx))
	if err != nil {
		watch.Stop()
		if context.Cause(ctx) == errStalled { //nolint:errorlint // it is the cause itself
			err = fmt.Errorf("%s: %w: %s", r.URL.Host, errStalled, g.stall)
		}
		cancel(nil)
		return nil, err
	}
	g.listen(r.URL.Host, answer)
	watch.Stop()
	if !strings.Contains(asked(r).Path, "/blobs/") {
		answer.Body = &bounded{ReadCloser: answer.Body, left: manifestLimit, where: r.URL.Host + r.URL.Path}
	}
	answer.Body = &watched{ReadCloser: answer.Body, ctx: ctx, watch: watch, stall: g.stall, cancel: cancel, host: r.URL.Host}
	return answer, nil
}

// asked is what a request was for before it was sent elsewhere: registries keep
// blobs with stores that have paths of their own.
func asked(r *http.Request) *url.URL {
	for r.Response != nil && r.Response.Request != nil {
		r = r.Response.Request
	}
	return r.URL
}

// listen remembers when a host wants to be asked again.
func (g *carrier) listen(host string, answer *http.Response) {
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable {
		return
	}
	text := answer.Header.Get("Retry-After")
	wait := time.Duration(0)
	if n, err := strconv.Atoi(text); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = time.Until(at)
	}
	if wait <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for h, at := range g.after {
		if time.Until(at) <= 0 {
			delete(g.after, h)
		}
	}
	g.after[host] = time.Now().Add(min(wait, maxRetryAfter))
}

// bounded is an answer that is read into memory whole, and so has an end.
type bounded struct {
	io.ReadCloser
	left  int
	where string
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, refused(state.LookupTooLarge, "%w", tooLarge(b.where, manifestLimit))
	}
	return n, err //nolint:wrapcheck // a reader hands on its source's error
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// watched is a body each of whose reads has an end. What its reader does meanwhile
// may take its time.
type watched struct {
	io.ReadCloser

	ctx    context.Context //nolint:containedctx // of this one answer
	watch  *time.Timer
	stall  time.Duration
	cancel context.CancelCauseFunc
	host   string
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	w.watch.Reset(w.stall)
	n, err := w.ReadCloser.Read(p)
	w.watch.Stop()
	if err != nil && context.Cause(w.ctx) == errStalled { //nolint:errorlint // it is the cause itself
		err = classify(fmt.Errorf("%s: %w: %s", w.host, errStalled, w.stall))
	}
	return n, err
}

// Close implements io.Closer.
func (w *watched) Close() error {
	w.watch.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err //nolint:wrapcheck // a reader hands on its source's error
}
