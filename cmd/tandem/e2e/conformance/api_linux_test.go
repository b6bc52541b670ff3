package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
)

// An apiClient reads the controller's API and keeps all pods, so that the
// checks wait for changes instead of asking again and again.
type apiClient struct {
	config *rest.Config
	http   *http.Client

	mu   sync.Mutex
	pods map[string]*corev1.Pod // by namespace/name
	news chan struct{}          // closed at the next change
	stop context.CancelFunc
	over bool
}

func newAPIClient(config *rest.Config) (*apiClient, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &apiClient{config: config, http: client, pods: map[string]*corev1.Pod{}, news: make(chan struct{})}, nil
}

func (a *apiClient) close() {
	a.mu.Lock()
	a.over = true
	if a.stop != nil {
		a.stop()
	}
	a.mu.Unlock()
	a.http.CloseIdleConnections()
}

func (a *apiClient) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	at := a.config.Host + path
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, errors.Join(fmt.Errorf("GET %s: %s: %s", path, resp.Status, text), resp.Body.Close())
	}
	return resp.Body, nil
}

func (a *apiClient) text(ctx context.Context, path string, query url.Values) (string, error) {
	body, err := a.open(ctx, path, query)
	if err != nil {
		return "", err
	}
	raw, err := io.ReadAll(body)
	return string(raw), errors.Join(err, body.Close())
}

func (a *apiClient) get(ctx context.Context, path string, into any) error {
	raw, err := a.text(ctx, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(raw), into)
}

func (a *apiClient) ping(ctx context.Context) error {
	_, err := a.text(ctx, "/version", nil)
	return err
}

func (a *apiClient) readyNodes(ctx context.Context) ([]string, error) {
	var list corev1.NodeList
	if err := a.get(ctx, "/api/v1/nodes", &list); err != nil {
		return nil, err
	}
	var ready []string
	for i := range list.Items {
		for _, c := range list.Items[i].Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				ready = append(ready, list.Items[i].Name)
			}
		}
	}
	return ready, nil
}

// watch keeps the pods up to date until close.
func (a *apiClient) watch(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	if a.stop = cancel; a.over {
		cancel()
	}
	a.mu.Unlock()
	for ctx.Err() == nil {
		if a.follow(ctx) != nil && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
}

func (a *apiClient) follow(ctx context.Context) error {
	var list corev1.PodList
	if err := a.get(ctx, "/api/v1/pods", &list); err != nil {
		return err
	}
	a.change(func() {
		clear(a.pods)
		for i := range list.Items {
			a.pods[list.Items[i].Namespace+"/"+list.Items[i].Name] = &list.Items[i]
		}
	})
	body, err := a.open(ctx, "/api/v1/pods", url.Values{"watch": {"true"}, "resourceVersion": {list.ResourceVersion}})
	if err != nil {
		return err
	}
	defer body.Close()
	d := json.NewDecoder(body)
	for {
		var e struct {
			Type   string
			Object json.RawMessage
		}
		if err := d.Decode(&e); err != nil {
			return err
		}
		if e.Type == "BOOKMARK" {
			continue
		}
		if e.Type == "ERROR" {
			return errors.New(string(e.Object))
		}
		var p corev1.Pod
		if err := json.Unmarshal(e.Object, &p); err != nil {
			return err
		}
		a.change(func() {
			if name := p.Namespace + "/" + p.Name; e.Type == "DELETED" {
				delete(a.pods, name)
			} else {
				a.pods[name] = &p
			}
		})
	}
}

func (a *apiClient) change(do func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	do()
	close(a.news)
	a.news = make(chan struct{})
}

// exec runs a command in a container and returns what it printed.
func (a *apiClient) exec(ctx context.Context, namespace, pod, container string, stdin io.Reader, command ...string) (string, int, error) {
	q := url.Values{"command": command, "stdout": {"true"}, "stderr": {"true"}}
	if container != "" {
		q.Set("container", container)
	}
	if stdin != nil {
		q.Set("stdin", "true")
	}
	x, err := remotecommand.NewWebSocketExecutor(a.config, http.MethodGet, a.config.Host+"/api/v1/namespaces/"+namespace+"/pods/"+pod+"/exec?"+q.Encode())
	if err != nil {
		return "", 0, err
	}
	var out, errs bytes.Buffer
	err = x.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: &out, Stderr: &errs})
	if exit, ok := errors.AsType[utilexec.CodeExitError](err); ok {
		return out.String() + errs.String(), exit.Code, nil
	}
	return out.String() + errs.String(), 0, err
}
