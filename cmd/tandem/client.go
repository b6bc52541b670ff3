package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// errNoServer means that nobody listens where a controller should.
var errNoServer = errors.New("no controller answers")

// A reader answers questions about what runs and ran: a server, or a data
// directory whose controller is stopped.
type reader interface {
	// status has an inventory where that is wanted and allowed.
	status(ctx context.Context, inventory bool) (*report.Status, error)
	detail(ctx context.Context, object, namespace string) (*report.Detail, error)
	why(ctx context.Context, object, namespace string) (*report.Why, error)
	history(ctx context.Context, f report.Filter, each func(report.Line) error) error
	Close() error
}

// startingPatience is how long a client waits for a controller that is starting:
// longer than taking over a machine may take.
const startingPatience = 5 * time.Minute

// A client asks a running controller.
type client struct {
	http   *http.Client
	config *rest.Config
	said   io.Writer // is told what is waited for
}

// Close drops idle connections.
func (c *client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// open finds who answers: --server, else the controller of --data, else the
// data directory itself.
func (c *cli) open(ctx context.Context) (reader, error) {
	cl, err := c.connect(ctx)
	if err == nil {
		return cl, nil
	}
	if c.data != "" && c.server == "" && errors.Is(err, errNoServer) {
		return openStopped(ctx, c.data)
	}
	return nil, err
}

// connect finds the running controller.
func (c *cli) connect(ctx context.Context) (*client, error) {
	server := c.server
	if server == "" && c.data == "" {
		server = os.Getenv("TANDEM_SERVER")
	}
	config, err := c.who(server)
	if err != nil {
		return nil, err
	}
	tr, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	cl := &client{http: &http.Client{Transport: tr}, config: config, said: c.errs}
	u, err := url.Parse(config.Host)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" { // a token goes to nobody who doesn't show who they are
		return nil, usageError("server %q: want a URL such as https://127.0.0.1:7443", config.Host)
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", errNoServer, config.Host, err)
	}
	return cl, conn.Close()
}

// who is the login that is remembered, where no server and no data directory are
// named, or just this server.
func (c *cli) who(server string) (*rest.Config, error) {
	if c.data == "" && os.Getenv("TANDEM_TOKEN") == "" {
		l, err := remembered()
		if err != nil {
			return nil, err
		}
		if l != nil && (server == "" || strings.TrimSuffix(server, "/") == l.Server) {
			return l.config(), nil
		}
	}
	return c.restConfig(server)
}

// restConfig reads the kubeconfig of a data directory, or TANDEM_TOKEN and
// TANDEM_CA for a server elsewhere.
func (c *cli) restConfig(server string) (*rest.Config, error) {
	path, err := c.kubeconfig()
	if err == nil {
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if server == "" || server == config.Host {
			return config, nil
		}
	} else if server == "" {
		return nil, err
	}
	config := &rest.Config{Host: server, BearerToken: os.Getenv("TANDEM_TOKEN")}
	if config.BearerToken == "" {
		return nil, usageError("server %s: log in first (tandem login), or set TANDEM_TOKEN, and TANDEM_CA to the file of its certificate authority", server)
	}
	if ca := os.Getenv("TANDEM_CA"); ca != "" {
		if config.CAData, err = os.ReadFile(ca); err != nil {
			return nil, fmt.Errorf("read TANDEM_CA: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(config.CAData) {
			return nil, fmt.Errorf("TANDEM_CA: %s holds no certificate", ca)
		}
	}
	return config, nil
}

// kubeconfig is the one of --data, else of the only data directory there is.
func (c *cli) kubeconfig() (string, error) {
	if c.data != "" {
		path := filepath.Join(c.data, "kubeconfig")
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w: %s has no kubeconfig", errNoServer, c.data)
		}
		return path, nil
	}
	var found []string
	for _, pattern := range dataPatterns() {
		matches, err := filepath.Glob(filepath.Join(pattern, "kubeconfig"))
		if err != nil {
			return "", fmt.Errorf("look for data directories: %w", err)
		}
		found = append(found, matches...)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("%w: there is no data directory in %s; give --server or --data", errNoServer, strings.Join(dataPatterns(), ", "))
	default:
		var dirs []string
		for _, f := range found {
			dirs = append(dirs, filepath.Dir(f))
		}
		return "", usageError("there are several data directories (%s): give --data", strings.Join(dirs, ", "))
	}
}

// dataPatterns are where data directories are by default.
func dataPatterns() []string {
	if os.Geteuid() == 0 {
		return []string{"/var/lib/tandem", "/var/lib/tandem/*"}
	}
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil
		}
		base = filepath.Join(home, ".local", "share")
	}
	return []string{filepath.Join(base, "tandem", "*")}
}

// do sends a request; an answer that isn't a success is the error it holds. A
// controller that is starting is asked again, as it says.
func (c *client) do(ctx context.Context, method, path string, q url.Values, body any) (*http.Response, error) {
	limit := time.Now().Add(startingPatience)
	for told := false; ; told = true {
		resp, err := c.once(ctx, method, path, q, body)
		starting, ok := errors.AsType[*startingError](err)
		if !ok || time.Now().After(limit) {
			return resp, err
		}
		if !told {
			_, _ = fmt.Fprintf(c.said, "waiting: %v\n", err)
		}
		select {
		case <-time.After(starting.after):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// A startingError is a controller's answer before it can answer.
type startingError struct {
	message string
	after   time.Duration
}

// Error implements error.
func (e *startingError) Error() string { return e.message }

func (c *client) once(ctx context.Context, method, path string, q url.Values, body any) (*http.Response, error) {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("marshal the request: %w", err)
		}
		payload = bytes.NewReader(raw)
	}
	target := strings.TrimSuffix(c.config.Host, "/") + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, target, payload)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.config.Host, err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return nil, fmt.Errorf("ask %s: its certificate is not of the authority known here: %w", c.config.Host, err)
		}
		return nil, fmt.Errorf("ask %s: %w", c.config.Host, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.config.Host, err)
	}
	var st metav1.Status
	if json.Unmarshal(raw, &st) != nil || st.Message == "" {
		return nil, fmt.Errorf("%s answered %s", c.config.Host, resp.Status)
	}
	if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && resp.StatusCode == http.StatusServiceUnavailable {
		return nil, &startingError{st.Message, time.Duration(min(max(after, 1), 30)) * time.Second}
	}
	return nil, errors.New(st.Message)
}

// ask sends a request and reads one value.
func (c *client) ask(ctx context.Context, method, path string, q url.Values, body, into any) error {
	resp, err := c.do(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.config.Host, err)
	}
	return nil
}

func (c *client) status(ctx context.Context, inventory bool) (*report.Status, error) {
	var v report.Status
	q := url.Values{}
	if inventory {
		q.Set("inventory", "true")
	}
	return &v, c.ask(ctx, http.MethodGet, kubeapi.StatusPath, q, nil, &v)
}

func (c *client) detail(ctx context.Context, object, namespace string) (*report.Detail, error) {
	var v report.Detail
	return &v, c.ask(ctx, http.MethodGet, kubeapi.StatusPath, objectQuery(object, namespace), nil, &v)
}

func (c *client) why(ctx context.Context, object, namespace string) (*report.Why, error) {
	var v report.Why
	return &v, c.ask(ctx, http.MethodGet, kubeapi.WhyPath, objectQuery(object, namespace), nil, &v)
}

func objectQuery(object, namespace string) url.Values {
	return url.Values{"object": {object}, "namespace": {namespace}}
}

func (c *client) history(ctx context.Context, f report.Filter, each func(report.Line) error) error {
	resp, err := c.do(ctx, http.MethodGet, kubeapi.HistoryPath, f.Query(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l report.Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("read the answer of %s: %w", c.config.Host, err)
		}
		if err := each(l); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("read the answer of %s: %w", c.config.Host, err)
	}
	return nil
}

// command asks for something and says which record it became.
func (c *client) command(ctx context.Context, r kubeapi.CommandRequest) (state.Seq, error) {
	var v kubeapi.CommandAnswer
	err := c.ask(ctx, http.MethodPost, kubeapi.CommandsPath, nil, r, &v)
	return v.Seq, err
}
