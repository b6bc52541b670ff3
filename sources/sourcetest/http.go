package sourcetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// HTTPOptions say how a server behaves.
type HTTPOptions struct {
	TLS                bool
	Username, Password string // wanted where Password isn't empty
	ClientCert         bool   // HTTPS: who asks must have the server's own certificate
	Redirect           string // answers every request with a redirect to this URL's path
}

// A Server serves one repository until the test ends. It can go down and come
// back at the same address.
type Server struct {
	URL            string
	CAFile         string // of an HTTPS server: what to trust
	CertKeyFile    string // of an HTTPS server: the key of its certificate
	KeyFile        string // of an SSH server: the private key that it lets in
	KnownHostsFile string // of an SSH server

	t       testing.TB
	serve   func(net.Listener) (stop func())
	start   func(address string) (at string, stop func()) // instead of serve: a process that listens itself
	address string
	stop    func()

	// Cut, where positive, breaks every transfer of objects after so many bytes.
	Cut atomic.Int64
	// Requests counts conversations, Packs those that sent objects.
	Requests, Packs atomic.Int64

	mu      sync.Mutex
	headers []http.Header
}

// Headers are those of all requests so far.
func (s *Server) Headers() []http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]http.Header(nil), s.headers...)
}

// Down closes the server's port and breaks what is going on.
func (s *Server) Down() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Up opens the port again.
func (s *Server) Up() {
	s.t.Helper()
	if s.start != nil {
		s.address, s.stop = s.start(s.address)
		return
	}
	listener, err := (&net.ListenConfig{}).Listen(s.t.Context(), "tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.address = listener.Addr().String()
	s.stop = s.serve(listener)
}

// ServeHTTP serves a repository over HTTP or HTTPS with git http-backend.
func ServeHTTP(t testing.TB, repo *Repo, options HTTPOptions) *Server {
	t.Helper()
	hosttest.Need(t, "git")
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, address: "127.0.0.1:0"}
	backend := &cgi.Handler{
		Path:   path,
		Args:   []string{"http-backend"},
		Env:    append(environment(repo.home), "GIT_PROJECT_ROOT="+filepath.Dir(repo.Dir), "GIT_HTTP_EXPORT_ALL=1"),
		Stderr: nobody{},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		s.Requests.Add(1)
		s.mu.Lock()
		s.headers = append(s.headers, request.Header.Clone())
		s.mu.Unlock()
		if options.Redirect != "" {
			http.Redirect(w, request, options.Redirect+request.URL.RequestURI(), http.StatusTemporaryRedirect)
			return
		}
		if options.Password != "" {
			user, password, ok := request.BasicAuth()
			if !ok || user != options.Username || password != options.Password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
		}
		if request.Method == http.MethodPost {
			s.Packs.Add(1)
			if cut := s.Cut.Load(); cut > 0 {
				w = &cutWriter{ResponseWriter: w, left: cut}
			}
		}
		backend.ServeHTTP(w, request)
	})
	var config *tls.Config
	scheme := "http"
	if options.TLS {
		scheme = "https"
		config = s.certificate(t, options.ClientCert)
	}
	s.serve = func(listener net.Listener) func() {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(nobody{}, "", 0)}
		if config != nil {
			listener = tls.NewListener(listener, config)
		}
		var done sync.WaitGroup
		done.Go(func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("HTTP server: %v", err)
			}
		})
		return func() {
			_ = server.Close() // what is going on breaks, as it should
			done.Wait()
		}
	}
	s.Up()
	t.Cleanup(s.Down)
	s.URL = scheme + "://" + s.address + "/" + filepath.Base(repo.Dir)
	return s
}

// certificate makes one for this address, and the file that says to trust it.
func (s *Server) certificate(t testing.TB, wanted bool) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(s.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.CertKeyFile = filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(s.CertKeyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	if wanted {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return config
}

// cutWriter breaks the connection after so many bytes.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // as far as it got
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(p)
}

// nobody hears what git says when a transfer is cut.
type nobody struct{}

func (nobody) Write(p []byte) (int, error) { return len(p), nil }
