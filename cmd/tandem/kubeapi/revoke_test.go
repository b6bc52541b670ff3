package kubeapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // what client-go's dialers are
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// An opened is something that somebody holds open; it ends when that does.
type opened struct {
	what string
	open func(ctx context.Context, t *testing.T, server *httptest.Server, token string, begun func()) error
	acts bool // in a pod: its end is recorded
}

const podPath = "/api/v1/namespaces/shop/pods/db-0"

// holds are all ways to hold something open.
func holds() []opened {
	config := func(server *httptest.Server, token string) *rest.Config {
		return &rest.Config{Host: server.URL, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: pemOf(server)}}
	}
	read := func(path string) func(context.Context, *testing.T, *httptest.Server, string, func()) error {
		return func(ctx context.Context, _ *testing.T, server *httptest.Server, token string, begun func()) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, http.NoBody)
			if err != nil {
				return err
			}
			r.Header.Set("Authorization", "Bearer "+token)
			resp, err := server.Client().Do(r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return errors.New(resp.Status)
			}
			in := bufio.NewReader(resp.Body)
			if _, err := in.ReadString('\n'); err != nil {
				return err
			}
			begun()
			_, err = io.Copy(io.Discard, in)
			return err
		}
	}
	exec := func(of func(*rest.Config, *url.URL) (remotecommand.Executor, error)) func(context.Context, *testing.T, *httptest.Server, string, func()) error {
		return func(ctx context.Context, t *testing.T, server *httptest.Server, token string, begun func()) error {
			u, err := url.Parse(server.URL + podPath + "/exec?command=wait&stdout=true")
			if err != nil {
				t.Error(err)
			}
			x, err := of(config(server, token), u)
			if err != nil {
				return err
			}
			begun() // the test waits until it runs
			return x.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard})
		}
	}
	return []opened{
		{"watch", read("/api/v1/namespaces/shop/pods?watch=true"), false},
		{"history --follow", read(HistoryPath + "?follow=true"), false},
		{"logs -f", read(podPath + "/log?follow=true"), false},
		{"exec by websocket", exec(func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(c, http.MethodGet, u.String())
		}), true},
		{"exec by SPDY", exec(func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(c, http.MethodPost, u)
		}), true},
		{"port-forward by SPDY", func(_ context.Context, t *testing.T, server *httptest.Server, token string, begun func()) error {
			transport, upgrader, err := spdy.RoundTripperFor(config(server, token))
			if err != nil {
				return err
			}
			u, err := url.Parse(server.URL + podPath + "/portforward")
			if err != nil {
				t.Error(err)
			}
			return forwarding(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), begun)
		}, true},
		{"port-forward by websocket", func(_ context.Context, t *testing.T, server *httptest.Server, token string, begun func()) error {
			u, err := url.Parse(server.URL + podPath + "/portforward")
			if err != nil {
				t.Error(err)
			}
			d, err := portforward.NewSPDYOverWebsocketDialer(u, config(server, token))
			if err != nil {
				return err
			}
			return forwarding(d, begun)
		}, true},
	}
}

// forwarding holds a connection to port 9 of the pod open.
func forwarding(d httpstream.Dialer, begun func()) error {
	conn, _, err := d.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, kind := range []string{corev1.StreamTypeError, corev1.StreamTypeData} {
		h := http.Header{corev1.StreamType: {kind}, corev1.PortHeader: {"9"}, corev1.PortForwardRequestIDHeader: {"0"}}
		if _, err := conn.CreateStream(h); err != nil {
			return err
		}
	}
	begun()
	<-conn.CloseChan()
	return nil
}

// Whoever loses the right loses what they hold open with it, and nobody else does.
func TestRightsEndWhatIsOpen(t *testing.T) {
	for _, how := range []string{"the root", "the token"} {
		for _, x := range holds() {
			t.Run(x.what+" by "+how, func(t *testing.T) {
				t.Parallel()
				w := shop(t)
				_, server, store := serve(t, w)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				tokens := map[string]string{}
				var all []state.Text
				for _, name := range []string{"eva", "olga"} {
					token, err := store.Issue(access.User{Name: name, Role: access.Operator})
					if err != nil {
						t.Fatal(err)
					}
					tokens[name] = token
					all = append(all, w.Person(name))
				}
				if how == "the root" {
					w.write("", grants(all...))
				}
				ends := map[string]chan error{}
				for name, token := range tokens {
					begun, end := make(chan struct{}), make(chan error, 1)
					ends[name] = end
					go func() { end <- x.open(ctx, t, server, token, func() { close(begun) }) }()
					select {
					case <-begun:
					case err := <-end:
						t.Fatalf("%s could not open it: %v", name, err)
					}
				}
				if x.acts {
					for range tokens {
						select {
						case <-w.goesOn:
						case <-ctx.Done():
							t.Fatal("nothing runs in the pod")
						}
					}
				}
				if how == "the root" {
					w.write("", grants(w.Person("olga")))
				} else if err := store.Revoke("eva"); err != nil {
					t.Fatal(err)
				}
				select {
				case <-ends["eva"]: //nolint:errcheck // that it ended is what counts
				case <-ctx.Done():
					t.Fatal("it is still open")
				}
				if x.acts {
					end := w.ended(1)[0]
					if words := w.Words(end.Detail); end.Outcome != state.SessionFailed || !strings.Contains(words, "its right ended") {
						t.Errorf("it ended as %s: %q", end.Outcome, words)
					}
				}
				select {
				case err := <-ends["olga"]:
					t.Fatalf("another's ended too: %v", err)
				default:
				}
			})
		}
	}
}

// grants gives people the role of an operator.
func grants(who ...state.Text) *state.AccessDeclared {
	return &state.AccessDeclared{Access: state.Access{Grants: []state.AccessGrant{{Role: state.RoleOperator, Users: who}}}}
}
