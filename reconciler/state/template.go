package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// A Template is a pod template of one workload, variant and resolution of its
// images: the equivalence class of the pods made from it. It is shared by them
// and never changes.
type Template struct {
	Digest   Digest // over Spec, OS and Images
	Hash     string // ten characters of Digest: pod-template-hash, revision suffix
	OS       OS     // AnyOS: any node that an image fits
	Spec     corev1.PodTemplateSpec
	Images   []Image // one per distinct image name in Spec, sorted by Name
	Requests Resources
	Configs  []Config // ConfigMaps and Secrets that the spec names
	Claims   []ClaimUse
	Account  string // ServiceAccount whose pull Secrets are its pods'; empty: the spec names some
}

// A Config is a ConfigMap or Secret that a template names, in its pod's namespace.
type Config struct {
	Kind     string // "ConfigMap" or "Secret"
	Name     string
	Optional bool
}

// hashAlphabet has no vowels, so that no word comes out; it is the set that
// Kubernetes uses for pod-template-hash (apimachinery rand.SafeEncodeString).
const hashAlphabet = "bcdfghjklmnpqrstvwxz2456789"

// SafeHash is n characters of the digest, fit for a name.
func SafeHash(d Digest, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteByte(hashAlphabet[int(d[i])%len(hashAlphabet)])
	}
	return b.String()
}

// templateBlob is the stored form of a Template.
type templateBlob struct {
	OS     OS                     `json:"os,omitempty"`
	Spec   corev1.PodTemplateSpec `json:"spec"`
	Images []Image                `json:"images,omitempty"`
}

// NewTemplate compiles a pod template and gives its stored form. Equal
// arguments give equal bytes.
func NewTemplate(os OS, spec *corev1.PodTemplateSpec, images []Image) (*Template, []byte) {
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	raw, err := json.Marshal(templateBlob{OS: os, Spec: *spec, Images: images})
	if err != nil {
		panic(fmt.Sprintf("pod template of k8s.io/api does not marshal: %v", err))
	}
	t := &Template{Digest: DigestOf(raw), OS: os, Spec: *spec, Images: images}
	t.compile()
	return t, raw
}

// ParseTemplate reads the stored form of a template.
func ParseTemplate(raw []byte) (*Template, error) {
	var b templateBlob
	if err := json.Unmarshal(raw, &b); err != nil {
		return nil, fmt.Errorf("read template %s: %w", DigestOf(raw).Short(), err)
	}
	t := &Template{Digest: DigestOf(raw), OS: b.OS, Spec: b.Spec, Images: b.Images}
	t.compile()
	return t, nil
}

func (t *Template) compile() {
	t.Hash = SafeHash(t.Digest, 10)
	t.Requests = PodRequests(&t.Spec.Spec)
	t.Configs = podConfigs(&t.Spec.Spec)
	t.Claims = podClaims(&t.Spec.Spec)
	t.Account = pullAccount(&t.Spec.Spec)
}

// affine is 1 where the spec says which pods it wants near or far. Such pods
// matter to others that are placed later, so they are counted.
func (t *Template) affine() int {
	if a := t.Spec.Spec.Affinity; a != nil && (a.PodAffinity != nil || a.PodAntiAffinity != nil) {
		return 1
	}
	return 0
}

// names says whether the spec names a ConfigMap or Secret, or is under a
// ServiceAccount, whatever the namespace: a pod's own is meant.
func (t *Template) names(config Ref) bool {
	return config.Kind == AccountKind && config.Name == t.Account || slices.ContainsFunc(t.Configs, func(c Config) bool { return c.Kind == config.Kind && c.Name == config.Name })
}

// Image returns what an image name of the spec was resolved to.
func (t *Template) Image(name string) (Image, bool) {
	i, ok := slices.BinarySearchFunc(t.Images, name, func(im Image, n string) int { return strings.Compare(im.Name, n) })
	if !ok {
		return Image{}, false
	}
	return t.Images[i], true
}

// ImageNames are the distinct image names of a pod spec, sorted.
func ImageNames(spec *corev1.PodSpec) []string {
	var names []string
	for i := range spec.InitContainers {
		names = append(names, spec.InitContainers[i].Image)
	}
	for i := range spec.Containers {
		names = append(names, spec.Containers[i].Image)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Sidecar says whether an init container goes on beside the others: Kubernetes's
// restartPolicy Always, which validation takes of init containers alone.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// PodRequests is what a scheduler charges for a pod: per resource the larger of
// the sum over containers (with sidecars) and the highest step of the init
// containers, plus overhead. The rule is Kubernetes's
// (component-helpers/resource.PodRequests).
func PodRequests(spec *corev1.PodSpec) Resources {
	var sum, sidecars, top Resources
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		r := containerRequests(c)
		if Sidecar(c) {
			sidecars = sidecars.Add(r)
			top = maxResources(top, sidecars)
			continue
		}
		top = maxResources(top, sidecars.Add(r))
	}
	for i := range spec.Containers {
		sum = sum.Add(containerRequests(&spec.Containers[i]))
	}
	total := maxResources(sum.Add(sidecars), top)
	total = total.Add(resourcesOf(spec.Overhead))
	total.Pods = 1
	return total
}

func containerRequests(c *corev1.Container) Resources {
	r := resourcesOf(c.Resources.Requests)
	// A limit without a request is a request (Kubernetes's defaulting).
	l := resourcesOf(c.Resources.Limits)
	if _, ok := c.Resources.Requests[corev1.ResourceCPU]; !ok {
		r.MilliCPU = l.MilliCPU
	}
	if _, ok := c.Resources.Requests[corev1.ResourceMemory]; !ok {
		r.Memory = l.Memory
	}
	if _, ok := c.Resources.Requests[corev1.ResourceEphemeralStorage]; !ok {
		r.Ephemeral = l.Ephemeral
	}
	return r
}

func resourcesOf(list corev1.ResourceList) Resources {
	return Resources{
		MilliCPU:  list.Cpu().MilliValue(),
		Memory:    list.Memory().Value(),
		Ephemeral: list.StorageEphemeral().Value(),
	}
}

func maxResources(a, b Resources) Resources {
	return Resources{max(a.MilliCPU, b.MilliCPU), max(a.Memory, b.Memory), max(a.Ephemeral, b.Ephemeral), max(a.Pods, b.Pods)}
}

func podConfigs(spec *corev1.PodSpec) []Config {
	var out []Config
	add := func(kind, name string, optional *bool) {
		if name != "" {
			out = append(out, Config{Kind: kind, Name: name, Optional: optional != nil && *optional})
		}
	}
	eachContainer(spec, func(c *corev1.Container) {
		for i := range c.EnvFrom {
			if r := c.EnvFrom[i].ConfigMapRef; r != nil {
				add("ConfigMap", r.Name, r.Optional)
			}
			if r := c.EnvFrom[i].SecretRef; r != nil {
				add("Secret", r.Name, r.Optional)
			}
		}
		for i := range c.Env {
			v := c.Env[i].ValueFrom
			if v == nil {
				continue
			}
			if r := v.ConfigMapKeyRef; r != nil {
				add("ConfigMap", r.Name, r.Optional)
			}
			if r := v.SecretKeyRef; r != nil {
				add("Secret", r.Name, r.Optional)
			}
		}
	})
	optional := true // an image may need none of them
	for _, name := range pullSecrets(spec.ImagePullSecrets) {
		add("Secret", name, &optional)
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if v.ConfigMap != nil {
			add("ConfigMap", v.ConfigMap.Name, v.ConfigMap.Optional)
		}
		if v.Secret != nil {
			add("Secret", v.Secret.SecretName, v.Secret.Optional)
		}
		if v.Projected != nil {
			for j := range v.Projected.Sources {
				s := &v.Projected.Sources[j]
				if s.ConfigMap != nil {
					add("ConfigMap", s.ConfigMap.Name, s.ConfigMap.Optional)
				}
				if s.Secret != nil {
					add("Secret", s.Secret.Name, s.Secret.Optional)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Config) int {
		if c := strings.Compare(a.Kind, b.Kind); c != 0 {
			return c
		}
		if c := strings.Compare(a.Name, b.Name); c != 0 || a.Optional == b.Optional {
			return c
		}
		if b.Optional {
			return -1 // who can't do without it decides
		}
		return 1
	})
	return slices.CompactFunc(out, func(a, b Config) bool { return a.Kind == b.Kind && a.Name == b.Name })
}

func eachContainer(spec *corev1.PodSpec, do func(*corev1.Container)) {
	for i := range spec.InitContainers {
		do(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		do(&spec.Containers[i])
	}
}
