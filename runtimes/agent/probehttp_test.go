package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestProbeHTTP holds HTTP probes to what the kubelet does.
func TestProbeHTTP(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	status := func(path string, code int) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = w.Write([]byte("the body")) })
	}
	status("/ok", 200)
	status("/broken", 500)
	status("/missing", 404)
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/broken", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.example/broken", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example" || r.Header.Get("X-Probe") != "yes" || !strings.HasPrefix(r.UserAgent(), "tandem-probe") {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	plain, secured := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	t.Cleanup(plain.Close)
	t.Cleanup(secured.Close)
	for _, c := range []struct {
		path, says string // what the error has in it; empty: it passes
	}{
		{"/ok", ""},
		{"ok", ""},
		{"/early", ""},
		{"/elsewhere", ""},
		{"/loop", "after 10 redirects"},
		{"/header", ""},
		{"/endless", ""},
		{"/broken", "500: the body"},
		{"/missing", "404"},
		{"/redirect", "500"},
		{"/hangs", "deadline exceeded"},
	} {
		for scheme, s := range map[corev1.URIScheme]*httptest.Server{corev1.URISchemeHTTP: plain, corev1.URISchemeHTTPS: secured} {
			t.Run(string(scheme)+c.path, func(t *testing.T) {
				t.Parallel()
				most := 20 * time.Second
				if c.path == "/hangs" {
					most = 100 * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), most)
				defer cancel()
				at := s.Listener.Addr().(*net.TCPAddr)
				err := probeHTTP(ctx, at.IP.String(), &corev1.Container{}, &corev1.HTTPGetAction{
					Path: c.path, Port: intstr.FromInt(at.Port), Scheme: scheme,
					HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "shop.example"}, {Name: "X-Probe", Value: "yes"}},
				})
				switch {
				case c.says == "" && err != nil:
					t.Errorf("failed: %v", err)
				case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
					t.Errorf("want an error with %q, got %v", c.says, err)
				}
			})
		}
	}
}

// A port where nobody listens is refused: such probes are tried again soon.
func TestProbeRefused(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	err = probeHTTP(t.Context(), "127.0.0.1", &corev1.Container{}, &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt(port)})
	if !isRefused(err) {
		t.Errorf("want a refused connection, got %v", err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it was not refused: %v", err)
	}
}
