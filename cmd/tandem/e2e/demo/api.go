package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// namespace is where the shop's dev environment lives, and webPort what its web
// server listens on.
const (
	namespace = "shop-dev"
	webPort   = "8080"
)

// A client speaks to Tandem's API with the kubeconfig that `tandem up` writes.
type client struct {
	http *http.Client
	host string
}

func (s *stage) client() (*client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.data, "kubeconfig"))
	if err != nil {
		return nil, err
	}
	h, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &client{http: h, host: config.Host}, nil
}

// open asks for the shop's pods; query may make it a watch.
func (c *client) open(ctx context.Context, query string) (io.ReadCloser, error) {
	return c.stream(ctx, "/pods?"+query)
}

// stream opens what the API has below the shop's namespace.
func (c *client) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.streamAt(ctx, "/api/v1/namespaces/"+namespace+path)
}

func (c *client) streamAt(ctx context.Context, path string) (io.ReadCloser, error) {
	url := c.host + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, errors.Join(fmt.Errorf("%s: %s: %s", url, resp.Status, text), err, resp.Body.Close())
	}
	return resp.Body, nil
}

func (c *client) pods(ctx context.Context) (list corev1.PodList, err error) {
	err = c.read(ctx, "/pods", &list)
	return list, err
}

func (c *client) read(ctx context.Context, path string, into any) error {
	return c.readAt(ctx, "/api/v1/namespaces/"+namespace+path, into)
}

func (c *client) readAt(ctx context.Context, path string, into any) (err error) {
	body, err := c.streamAt(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return json.NewDecoder(body).Decode(into)
}

// waitFor waits until the whole shop is ready with these images.
func (s *stage) waitFor(ctx context.Context, v versions) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the shop was not ready with %+v after %s", v, patience))
	defer cancel()
	var missing error
	for {
		if missing = s.missing(ctx, v); missing == nil {
			return nil
		}
		select {
		case <-s.up.ended:
			return fmt.Errorf("tandem up ended: %w", errors.Join(s.up.err, missing))
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), missing)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// missing says what is not yet as it should be.
func (s *stage) missing(ctx context.Context, v versions) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	list, err := c.pods(ctx)
	if err != nil {
		return err
	}
	s.markPods(list.Items)
	want := map[string]int{"web": 2, "db": 3}
	for i := range list.Items {
		p := &list.Items[i]
		workload := workloadOf(p)
		if p.DeletionTimestamp != nil || p.Spec.Containers[0].Image != v.image(workload) || !ready(p) {
			return fmt.Errorf("%s: %s, image %s", p.Name, p.Status.Phase, p.Spec.Containers[0].Image)
		}
		want[workload]--
	}
	for workload, n := range want {
		if n != 0 {
			return fmt.Errorf("%s: %d pods too few", workload, n)
		}
	}
	return nil
}

func workloadOf(p *corev1.Pod) string {
	name, _, _ := strings.Cut(p.Name, "-")
	return name
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// watchOrder notes the order in which new pods of db appear from now on. stop
// ends the watch; order may be asked for at any time.
func (s *stage) watchOrder(ctx context.Context) (order func() []string, stop func(), err error) {
	c, err := s.client()
	if err != nil {
		return nil, nil, err
	}
	list, err := c.pods(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	body, err := c.open(ctx, "watch=true&resourceVersion="+list.ResourceVersion)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	names := make(chan []string, 1)
	names <- nil
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		decoder := json.NewDecoder(body)
		for {
			var event struct {
				Type   string
				Object corev1.Pod
			}
			if decoder.Decode(&event) != nil {
				return // the order that was seen is judged, so nothing is lost on it
			}
			if event.Type == "ADDED" && workloadOf(&event.Object) == "db" {
				names <- append(<-names, event.Object.Name)
			}
		}
	}()
	order = func() []string {
		seen := <-names
		names <- seen
		return slices.Clone(seen)
	}
	stop = func() {
		cancel()
		<-ended
		_ = body.Close() // the watch was cut off on purpose
	}
	return order, stop, nil
}

// askWeb asks the web server on this machine, and looks for the version in its answer.
func (s *stage) askWeb(ctx context.Context, v versions) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	list, err := c.pods(ctx)
	if err != nil {
		return err
	}
	systems := []corev1.OSName{corev1.Linux}
	if s.wine {
		systems = append(systems, corev1.Windows)
	}
	for _, system := range systems {
		at := slices.IndexFunc(list.Items, func(p corev1.Pod) bool {
			return workloadOf(&p) == "web" && p.Spec.OS != nil && p.Spec.OS.Name == system && p.Status.PodIP != ""
		})
		if at < 0 {
			return fmt.Errorf("no %s pod of web has an address", system)
		}
		url := "http://" + net.JoinHostPort(list.Items[at].Status.PodIP, webPort) + "/"
		if err := ask(ctx, url, "of "+list.Items[at].Name, v); err != nil {
			return err
		}
	}
	return nil
}

// askService asks the Service web at its address, and for that by its name.
func (s *stage) askService(ctx context.Context, v versions) error {
	c, err := s.client()
	if err != nil {
		return err
	}
	var svc corev1.Service
	if err := c.read(ctx, "/services/web", &svc); err != nil {
		return err
	}
	if err := c.askName(ctx, "web."+namespace+".svc.cluster.local", svc.Spec.ClusterIP); err != nil {
		return err
	}
	return ask(ctx, "http://"+svc.Spec.ClusterIP+"/", "of the Service web", v)
}

// askName asks the server that pods of this machine ask: it is at the first
// address of the node's range.
func (c *client) askName(ctx context.Context, name, want string) error {
	var nodes corev1.NodeList
	if err := c.readAt(ctx, "/api/v1/nodes", &nodes); err != nil {
		return err
	}
	at := slices.IndexFunc(nodes.Items, func(n corev1.Node) bool {
		return n.Spec.PodCIDR != "" && n.Status.NodeInfo.OperatingSystem == string(corev1.Linux)
	})
	if at < 0 {
		return errors.New("no Linux node has a range for pods")
	}
	server, _, _ := strings.Cut(nodes.Items[at].Spec.PodCIDR, "/")
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(server, "53"))
	}}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := r.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	say("the name %s is %s, says this node's name server", name, strings.Join(found, ", "))
	if !slices.Equal(found, []string{want}) {
		return fmt.Errorf("%s is %v, want %s", name, found, want)
	}
	return nil
}

// ask looks for the version in an answer.
func ask(ctx context.Context, url, whose string, v versions) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	say("GET %s %s", url, whose)
	fmt.Println(strings.TrimSpace(string(text)))
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(text), v.web) {
		return fmt.Errorf("%s answered %s without its version %s", url, resp.Status, v.web)
	}
	return nil
}
