package images_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// faulty is a registry with a switch.
type faulty struct {
	mu    sync.Mutex
	fault http.HandlerFunc // instead of the registry; nil: none
	blobs bool             // only for blobs
	next  http.Handler
}

func (f *faulty) set(blobs bool, fault http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.blobs = fault, blobs
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	fault, blobs := f.fault, f.blobs
	f.mu.Unlock()
	if fault == nil || blobs != strings.Contains(r.URL.Path, "/blobs/") || r.URL.Path == "/v2/" {
		f.next.ServeHTTP(w, r)
		return
	}
	fault(w, r)
}

func answers(status int, header, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"as the test wants"}]}`, code)
	}
}

// certificate is one for a name that ends at a time, signed by itself.
func certificate(t *testing.T, name string, until time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	like := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true, DNSNames: []string{name},
	}
	raw, err := x509.CreateCertificate(rand.Reader, like, like, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, pool
}

// A failing registry is named with what to do, under the class that says whether
// to try again; once it is mended, the same Store gets the image.
func TestFailingRegistry(t *testing.T) {
	f := &faulty{next: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	host := serveImage(t, f, "/web:1")

	tests := []struct {
		name  string
		blobs bool
		fault http.HandlerFunc
		code  state.LookupCode
		says  []string
	}{
		{"401", false, answers(401, "", "UNAUTHORIZED"), state.LookupDenied, []string{"UNAUTHORIZED", "imagePullSecrets"}},
		{"403", false, answers(403, "", "DENIED"), state.LookupDenied, []string{"DENIED", "imagePullSecrets"}},
		{"404, no such tag", false, answers(404, "", "MANIFEST_UNKNOWN"), state.LookupNotFound, []string{"MANIFEST_UNKNOWN", "check name and tag"}},
		{"404, no such repository", false, answers(404, "", "NAME_UNKNOWN"), state.LookupNotFound, []string{"NAME_UNKNOWN", "check name and tag"}},
		{"429 with Retry-After", false, answers(429, "Retry-After: 3", "TOOMANYREQUESTS"), state.LookupUnavailable, []string{"Retry-After", "mirror"}},
		{"429", false, answers(429, "", "TOOMANYREQUESTS"), state.LookupUnavailable, []string{"too many requests", "mirror"}},
		{"500", false, answers(500, "", "UNKNOWN"), state.LookupUnavailable, []string{"in trouble", "tried again"}},
		{"503", false, answers(503, "", "UNAVAILABLE"), state.LookupUnavailable, []string{"in trouble", "tried again"}},
		{"503 of a blob", true, answers(503, "", "UNAVAILABLE"), state.LookupUnavailable, []string{"in trouble", "tried again"}},
		{"says nothing", false, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, state.LookupUnavailable, []string{"nothing came for too long", "network"}},
		{"stops within a blob", true, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("begin"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, state.LookupUnavailable, []string{"nothing came for too long", "network"}},
		{"a blob cut short", true, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("begin")) }, state.LookupDamaged, []string{"fetched again"}},
		{"another blob", true, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20)) }, state.LookupDamaged, []string{"damaged"}},
		{"another manifest", false, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write([]byte(`{"schemaVersion":2}`))
		}, state.LookupDamaged, []string{"digest"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := images.New(images.Options{Keychain: nobody{}, Stall: 300 * time.Millisecond})
			im, err := store.Look(t.Context(), host+"/web:1")
			if err != nil {
				t.Fatal(err)
			}
			all := func() error { return fetchAll(t, store, host+"/web:1", im.Platforms[0].Digest) }
			f.set(tt.blobs, tt.fault)
			err = all()
			f.set(false, nil)
			if err == nil {
				t.Fatal("nothing failed")
			}
			if tt.code != 0 && code(err) != tt.code {
				t.Errorf("code %q, want %q: %v", code(err), tt.code, err)
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nsays nothing of %q", err, want)
				}
			}
			eventually(t, all)
		})
	}
}

// fetchAll reads all of an image.
func fetchAll(t *testing.T, store *images.Store, name string, digest state.Digest) error {
	t.Helper()
	c, err := store.Fetch(t.Context(), name, digest)
	if err != nil {
		return err
	}
	for _, b := range append(c.Layers, c.Config) {
		r, err := b.Open(t.Context())
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// eventually waits until something works.
func eventually(t *testing.T, do func() error) {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		err := do()
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-end:
			t.Fatalf("after it was mended: %v", err)
		}
	}
}

// A blob that comes slowly, but comes, is read to its end.
func TestSlowRegistry(t *testing.T) {
	f := &faulty{next: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	host := serveImage(t, f, "/web:1")
	store := images.New(images.Options{Keychain: nobody{}, Stall: 400 * time.Millisecond})
	im, err := store.Look(t.Context(), host+"/web:1")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.set(true, func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		f.next.ServeHTTP(rec, r)
		w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
		for rest := rec.Body.Bytes(); len(rest) > 0; {
			n := min(len(rest), 1+rec.Body.Len()/8)
			_, _ = w.Write(rest[:n])
			_ = http.NewResponseController(w).Flush()
			rest = rest[n:]
			time.Sleep(100 * time.Millisecond) // the network's, not the test's
		}
	})
	if err := fetchAll(t, store, host+"/web:1", im.Platforms[0].Digest); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("it came within %s: nothing was slow", took)
	}
}

// What is wrong before the registry speaks is named too.
func TestUnreachableRegistry(t *testing.T) {
	const name = "registry.example"
	content := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	good, trusted := certificate(t, name, time.Now().Add(time.Hour))
	expired, pool := certificate(t, name, time.Now().Add(-time.Hour))
	other, otherPool := certificate(t, "other.example", time.Now().Add(time.Hour))
	serve := func(c *tls.Certificate) string {
		s := httptest.NewUnstartedServer(content)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
		if c == nil {
			s.Start()
		} else {
			s.TLS = &tls.Config{Certificates: []tls.Certificate{*c}, MinVersion: tls.VersionTLS12}
			s.StartTLS()
		}
		return s.Listener.Addr().String()
	}
	closed := httptest.NewServer(content)
	nobodyThere := closed.Listener.Addr().String()
	closed.Close()
	// via sends every connection to one address, as DNS would.
	via := func(at string, trust *x509.CertPool) http.RoundTripper {
		return &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12},
			DialContext: func(ctx context.Context, network, host string) (net.Conn, error) {
				if at == "" {
					return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
				}
				return new(net.Dialer).DialContext(ctx, network, at)
			},
		}
	}
	for what, tt := range map[string]struct {
		via  http.RoundTripper
		says string
	}{
		"unknown CA":         {via(serve(&good), x509.NewCertPool()), "trust store"},
		"expired":            {via(serve(&expired), pool), "renew the registry's certificate"},
		"another name":       {via(serve(&other), otherPool), "certificate is for other names"},
		"plain HTTP":         {via(serve(nil), trusted), "plain HTTP"},
		"connection refused": {via(nobodyThere, trusted), "nobody listens there"},
		"no DNS":             {via("", trusted), "name server of this machine"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := images.New(images.Options{Keychain: nobody{}, Transport: tt.via}).Look(t.Context(), name+"/web:1")
			if code(err) != state.LookupUnavailable || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v\nwant a registry that doesn't answer, and %q", err, tt.says)
			}
		})
	}
}

// Credentials go to the host that they are for: not where it redirects to, and a
// token server that is down is named.
func TestCredentialsStayWithTheirHost(t *testing.T) {
	var mu sync.Mutex
	var told []string
	p, host := servePrivate(t)
	p.allow("robot:" + robotKey)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		told = append(told, r.Header.Get("Authorization"))
		mu.Unlock()
		r.SetBasicAuth("robot", robotKey)
		p.next.ServeHTTP(w, r)
	}))
	t.Cleanup(elsewhere.Close)
	there := strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, there+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	at := strings.TrimPrefix(front.URL, "http://")
	_ = host
	store := images.New(images.Options{Keychain: nobody{}}).With(images.NewCredentials([]*corev1.Secret{pullSecret("a", map[string]string{at: "robot:" + robotKey})}))
	im, err := store.Look(t.Context(), at+"/team/web:1")
	if err == nil {
		err = fetchAll(t, store, at+"/team/web:1", im.Platforms[0].Digest)
	}
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if len(told) == 0 || strings.Join(told, "") != "" {
		t.Errorf("the other host was told %q", told)
	}
	mu.Unlock()

	down := httptest.NewServer(nil)
	token := down.URL
	down.Close()
	asks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.Replace(token, "127.0.0.1", "localhost", 1)+`/token",service="r"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(asks.Close)
	_, err = store.Look(t.Context(), strings.TrimPrefix(asks.URL, "http://")+"/team/web:1")
	if code(err) != state.LookupUnavailable || !strings.Contains(err.Error(), "/token") {
		t.Errorf("a token server that is down: %v", err)
	}
}

// A registry may keep blobs elsewhere, under any path: a layer that is larger than
// a manifest may be comes from there.
func TestLargeLayerFromElsewhere(t *testing.T) {
	content := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var paths sync.Map
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, _ := paths.Load(r.URL.Path)
		r.URL.Path, _ = path.(string)
		content.ServeHTTP(w, r)
	}))
	t.Cleanup(store.Close)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, digest, ok := strings.Cut(r.URL.Path, "/blobs/sha256:"); ok && r.Method == http.MethodGet {
			paths.Store("/bucket/"+digest, r.URL.Path)
			http.Redirect(w, r, store.URL+"/bucket/"+digest+"?signature=abc", http.StatusTemporaryRedirect)
			return
		}
		content.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	at := strings.TrimPrefix(front.URL, "http://") + "/web:1"
	large := make([]byte, 5<<20)
	_, _ = rand.Read(large) // so that it stays large
	s := spec("shop.example/web:1")
	s.Variants[0].Files[0].Data = large
	dir := t.TempDir()
	write(t, dir, s)
	push(t, dir, at)
	const stall = 300 * time.Millisecond
	from := images.New(images.Options{Keychain: nobody{}, Stall: stall})
	im, err := from.Look(t.Context(), at)
	if err == nil {
		err = fetchAll(t, from, at, im.Platforms[0].Digest)
	}
	if err != nil {
		t.Fatal(err)
	}

	// Who reads may pause: the registry isn't to blame for it.
	c, err := from.Fetch(t.Context(), at, im.Platforms[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * stall) // the reader's disk is slow
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("after a pause: %v", err)
	}
}
