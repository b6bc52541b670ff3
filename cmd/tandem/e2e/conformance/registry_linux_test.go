package conformance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// The private registry of the checks, which the machines trust by its CA.
const (
	registryHost = hubAddress + ":5000"
	registryUser = "robot:canary-conformance-3d90"
	privateImage = registryHost + "/private/box:1"
	lateImage    = registryHost + "/private/late:1" // whose layers don't come at first
)

// registry serves an image of each layout to who has the password.
type registry struct {
	layouts string
	mended  *atomic.Bool
}

func (g registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); user+":"+password != registryUser {
		w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`, http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/v2/" {
		return
	}
	image, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/private/"), "/")
	layout := filepath.Join(g.layouts, filepath.Base(image))
	what, at, _ := strings.Cut(rest, "/")
	isManifest := what == "manifests"
	switch {
	case image == "late" && !isManifest && !g.mended.Load():
		http.Error(w, `{"errors":[{"code":"UNAVAILABLE","message":"come back later"}]}`, http.StatusServiceUnavailable)
		return
	case isManifest && at == "1":
		at = indexOf(layout)
	}
	raw, err := os.ReadFile(filepath.Join(layout, "blobs", "sha256", filepath.Base(strings.TrimPrefix(at, "sha256:"))))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	if isManifest {
		var m struct {
			MediaType string `json:"mediaType"`
		}
		_ = json.Unmarshal(raw, &m) // then it has none, and the client says so
		w.Header().Set("Content-Type", m.MediaType)
	}
	_, _ = w.Write(raw) // who asked may have gone
}

// indexOf is the digest of a layout's only image.
func indexOf(layout string) string {
	var ix struct {
		Manifests []struct{ Digest string } `json:"manifests"`
	}
	raw, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil || json.Unmarshal(raw, &ix) != nil || len(ix.Manifests) == 0 {
		return "none"
	}
	return ix.Manifests[0].Digest
}

// caFile has what the machines' programs trust.
func (c *cluster) caFile() string { return filepath.Join(c.dir, "ca.pem") }

// serveRegistry starts the registry in the hub.
func (c *cluster) serveRegistry() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	like := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.ParseIP(hubAddress)},
	}
	raw, err := x509.CreateCertificate(rand.Reader, like, like, key.Public(), key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.caFile(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o644); err != nil {
		return err
	}
	var listener net.Listener
	err = c.hub.Do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp4", registryHost)
		return err
	})
	if err != nil {
		return err
	}
	c.registry = &http.Server{
		ReadHeaderTimeout: patience, Handler: registry{filepath.Join(c.dir, "private"), &c.mended},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}, MinVersion: tls.VersionTLS12},
	}
	c.tasks.Go(func() { _ = c.registry.ServeTLS(listener, "", "") })
	return nil
}

// writePrivate makes the images of the registry.
func writePrivate(dir string, files []images.File) error {
	var errs []error
	for name, layout := range map[string]string{privateImage: "box", lateImage: "late"} {
		words := images.File{Path: "etc/private", Mode: 0o644, Data: []byte("private\n")}
		_, err := images.Write(filepath.Join(dir, "private", layout), images.Spec{Name: name, Variants: []images.Variant{{
			OS: state.Linux, Arch: "amd64", Files: append(slices.Clone(files), words), Env: []string{"PATH=/bin", "IMAGE=" + layout},
		}}})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// pullSecret has the registry's password.
func pullSecret(k *kit, name string) string {
	auth := base64.StdEncoding.EncodeToString([]byte(registryUser))
	s := &corev1.Secret{
		Type:       corev1.SecretTypeDockerConfigJson,
		StringData: map[string]string{corev1.DockerConfigJsonKey: fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, registryHost, auth)},
	}
	s.APIVersion, s.Kind, s.Name = "v1", "Secret", name
	return k.yaml(s)
}

// waits says why a container waits.
func waits(reason string) func(p *corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		w := status(p, "main").State.Waiting
		return w != nil && w.Reason == reason
	}
}

func registryChecks() []check {
	private := func(name, node string, secrets ...string) func(k *kit) string {
		return func(k *kit) string {
			return k.once(name, "cat /etc/private", func(p *corev1.Pod, c *corev1.Container) {
				c.Image, c.ImagePullPolicy = privateImage, corev1.PullAlways
				for _, s := range secrets {
					p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
				}
				if node != "" {
					onNode(p, node)
				}
			})
		}
	}
	const blackbox = "[sig-node] Container Runtime blackbox test when running a container with a new image "
	return []check{
		{blackbox + "should be able to pull from private registry with secret", func(k *kit) {
			k.apply(pullSecret(k, "image-pull-secret"), private("web", "", "not-there", "image-pull-secret")(k))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "private\n")
		}},
		{blackbox + "should be able to pull from private registry with a secret of its ServiceAccount", func(k *kit) {
			sa := &corev1.ServiceAccount{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "image-pull-secret"}}}
			sa.APIVersion, sa.Kind, sa.Name = "v1", "ServiceAccount", "default"
			k.apply(pullSecret(k, "image-pull-secret"), k.yaml(sa), private("web", "")(k))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "private\n")
		}},
		{blackbox + "should not be able to pull from private registry without secret", func(k *kit) {
			k.apply(private("web", "", "not-there")(k))
			k.eventuallyHeld(privateImage)
		}},
		{blackbox + "should say why its registry fails, and run when it is mended", func(k *kit) {
			k.apply(pullSecret(k, "image-pull-secret"), k.once("web", "echo $IMAGE", func(p *corev1.Pod, c *corev1.Container) {
				c.Image = lateImage
				p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "image-pull-secret"}}
			}))
			p := k.until("web", "failing", waits("ErrImagePull"))
			if !strings.Contains(p.Status.Message, "come back later") || !strings.Contains(p.Status.Message, "tried again by itself") {
				k.Error(show(p))
			}
			k.until("web", "backing off", waits("ImagePullBackOff"))
			k.c.mended.Store(true)
			k.equal("log", k.ends("web", corev1.PodSucceeded), "late\n")
		}},
		{blackbox + "should not run a private image that another pod pulled, without its secret and with imagePullPolicy Always", func(k *kit) {
			k.apply(pullSecret(k, "image-pull-secret"), private("first", "node-1", "image-pull-secret")(k))
			k.ends("first", corev1.PodSucceeded)
			k.apply(private("second", "node-1")(k))
			p := k.until("second", "refused", waits("ErrImagePull"))
			if !strings.Contains(p.Status.Message, "credentials of another pod") {
				k.Error(show(p))
			}
		}},
	}
}
