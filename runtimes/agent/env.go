package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// values is what a pod's environment and files are made of.
type values struct {
	pod     *state.AssignedPod
	ip      string
	facts   *state.NodeFacts
	node    state.NodeName
	objects []*state.Object
	volumes []step.PodVolume

	services []*state.Service // that the pod's variables tell of
}

func (a *Agent) values(x *step.Action) values {
	v := values{pod: x.Pod, ip: x.IP, facts: &a.facts, node: a.cfg.Node, objects: x.Objects, volumes: x.Volumes}
	if links := x.Pod.Template.Spec.Spec.EnableServiceLinks; a.cfg.Network != nil && (links == nil || *links) {
		v.services = a.cfg.Network.Services(x.Pod.Key.Namespace)
	}
	return v
}

// serviceVariables tell of the Services that are there when a container starts, in the
// form that Kubernetes took from Docker's links.
func serviceVariables(services []*state.Service, set func(name, value string)) {
	for _, s := range services {
		if s.IP == "" || len(s.Ports) == 0 {
			continue
		}
		name := strings.ToUpper(strings.ReplaceAll(s.Ref.Name, "-", "_"))
		port := func(i int) string { return strconv.Itoa(int(s.Ports[i].Port)) }
		set(name+"_SERVICE_HOST", s.IP)
		set(name+"_SERVICE_PORT", port(0))
		for i := range s.Ports {
			if n := s.Ports[i].Name; n != "" {
				set(name+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(n, "-", "_")), port(i))
			}
		}
		for i := range s.Ports {
			proto := s.Ports[i].Protocol
			url := strings.ToLower(proto) + "://" + s.IP + ":" + port(i)
			if i == 0 {
				set(name+"_PORT", url)
			}
			prefix := name + "_PORT_" + port(i) + "_" + proto
			set(prefix, url)
			set(prefix+"_PROTO", strings.ToLower(proto))
			set(prefix+"_PORT", port(i))
			set(prefix+"_ADDR", s.IP)
		}
	}
}

// body is a ConfigMap or Secret as this node's operating system is to see it.
func (v values) body(kind, name string) state.Body {
	for _, o := range v.objects {
		if o.Ref.Kind != kind || o.Ref.Name != name {
			continue
		}
		for i := range o.Variants {
			if o.Variants[i].OS == v.facts.OS || o.Variants[i].OS == state.AnyOS {
				return o.Variants[i].Body
			}
		}
	}
	return nil
}

// data is a ConfigMap's or Secret's, bytes by key; false where it isn't there.
func (v values) data(kind, name string) (map[string][]byte, bool) {
	out := map[string][]byte{}
	switch b := v.body(kind, name).(type) {
	case *corev1.ConfigMap:
		for k, s := range b.Data {
			out[k] = []byte(s)
		}
		maps.Copy(out, b.BinaryData)
	case *corev1.Secret:
		maps.Copy(out, b.Data)
		for k, s := range b.StringData {
			out[k] = []byte(s)
		}
	default:
		return nil, false
	}
	return out, true
}

func (v values) key(kind, name, key string, optional *bool) (string, bool, error) {
	data, ok := v.data(kind, name)
	value, has := data[key]
	switch {
	case has:
		return string(value), true, nil
	case optional != nil && *optional:
		return "", false, nil
	case !ok:
		return "", false, fmt.Errorf("%s %s/%s is not there: %w", kind, v.pod.Key.Namespace, name, errConfig)
	default:
		return "", false, fmt.Errorf("%s %s/%s has no key %q: %w", kind, v.pod.Key.Namespace, name, key, errConfig)
	}
}

// completionIndex tells a container of an Indexed Job which part is its.
const completionIndex = "JOB_COMPLETION_INDEX"

// fencingToken is the number of an identity's placement: it grows from one life
// to the next, so storage that is told it can refuse an older one.
const fencingToken = "TANDEM_FENCING_TOKEN"

// environment is a container's: "NAME=value" in order, and as a map. The rules
// are the kubelet's: envFrom first, later names win, $(NAME) of what is before.
func (v values) environment(c *corev1.Container) (list []string, vars map[string]string, err error) {
	vars = map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, ok := vars[name]; !ok {
			order = append(order, name)
		}
		vars[name] = value
	}
	serviceVariables(v.services, set)
	if v.pod.Workload.Kind == "StatefulSet" {
		set(fencingToken, strconv.FormatUint(uint64(v.pod.Placement), 10))
	}
	for i := range c.EnvFrom {
		f := &c.EnvFrom[i]
		kind, name, optional := "", "", (*bool)(nil)
		switch {
		case f.ConfigMapRef != nil:
			kind, name, optional = "ConfigMap", f.ConfigMapRef.Name, f.ConfigMapRef.Optional
		case f.SecretRef != nil:
			kind, name, optional = "Secret", f.SecretRef.Name, f.SecretRef.Optional
		default:
			continue
		}
		data, ok := v.data(kind, name)
		if !ok && (optional == nil || !*optional) {
			return nil, nil, fmt.Errorf("%s %s/%s is not there: %w", kind, v.pod.Key.Namespace, name, errConfig)
		}
		for _, k := range slices.Sorted(maps.Keys(data)) {
			set(f.Prefix+k, string(data[k]))
		}
	}
	for i := range c.Env {
		value, ok, err := v.variable(c, &c.Env[i], vars)
		if err != nil {
			return nil, nil, fmt.Errorf("container %s: env %s: %w", c.Name, c.Env[i].Name, err)
		}
		if ok {
			set(c.Env[i].Name, value)
		}
	}
	if v.pod.Workload.Kind == "Job" && v.pod.Ordinal >= 0 && vars[completionIndex] == "" {
		set(completionIndex, strconv.Itoa(int(v.pod.Ordinal)))
	}
	for _, name := range order {
		list = append(list, name+"="+vars[name])
	}
	return list, vars, nil
}

func (v values) variable(c *corev1.Container, e *corev1.EnvVar, vars map[string]string) (string, bool, error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return expand(e.Value, vars), true, nil
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		return v.key("ConfigMap", r.Name, r.Key, r.Optional)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		return v.key("Secret", r.Name, r.Key, r.Optional)
	case from.FieldRef != nil:
		s, err := v.field(from.FieldRef.FieldPath)
		return s, err == nil, err
	case from.ResourceFieldRef != nil:
		s, err := v.resource(c, from.ResourceFieldRef) // of another container, where it names one
		return s, err == nil, err
	default:
		return "", false, fmt.Errorf("this valueFrom: %w", runtimes.ErrUnsupported)
	}
}

// field is the downward API.
func (v values) field(path string) (string, error) {
	meta := &v.pod.Template.Spec.ObjectMeta
	if name, key, ok := strings.Cut(path, "['"); ok {
		key = strings.TrimSuffix(key, "']")
		switch name {
		case "metadata.labels":
			return podLabels(v.pod)[key], nil
		case "metadata.annotations":
			if key == batchv1.JobCompletionIndexAnnotation && v.pod.Ordinal >= 0 {
				return strconv.Itoa(int(v.pod.Ordinal)), nil
			}
			return meta.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return v.pod.Key.Name, nil
	case "metadata.namespace":
		return v.pod.Key.Namespace, nil
	case "metadata.uid":
		return v.pod.UID.String(), nil
	case "metadata.labels":
		return fields(podLabels(v.pod)), nil
	case "metadata.annotations":
		return fields(meta.Annotations), nil
	case "spec.nodeName":
		return string(v.node), nil
	case "spec.serviceAccountName":
		return cmp.Or(v.pod.Template.Spec.Spec.ServiceAccountName, "default"), nil
	case "status.podIP", "status.podIPs":
		return v.ip, nil
	case "status.hostIP", "status.hostIPs":
		return v.facts.Address, nil
	default:
		return "", fmt.Errorf("fieldPath %s: %w", path, runtimes.ErrUnsupported)
	}
}

// fields is how the downward API writes a map into a file.
func fields(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// resource is a request or limit, divided and rounded up; a limit that isn't
// set is what the node has to give.
func (v values) resource(c *corev1.Container, r *corev1.ResourceFieldSelector) (string, error) {
	if r.ContainerName != "" {
		if c = specByName(v.pod.Template, r.ContainerName); c == nil {
			return "", fmt.Errorf("no container %s: %w", r.ContainerName, runtimes.ErrRejected)
		}
	}
	kind, name, _ := strings.Cut(r.Resource, ".")
	list := c.Resources.Limits
	if kind == "requests" {
		list = c.Resources.Requests
	}
	q, ok := list[corev1.ResourceName(name)]
	if !ok && kind == "limits" {
		switch name {
		case "cpu":
			q = *resource.NewMilliQuantity(v.facts.Allocatable.MilliCPU, resource.DecimalSI)
		case "memory":
			q = *resource.NewQuantity(v.facts.Allocatable.Memory, resource.BinarySI)
		case "ephemeral-storage":
			q = *resource.NewQuantity(v.facts.Allocatable.Ephemeral, resource.BinarySI)
		}
	}
	if name == "cpu" {
		divisor := max(r.Divisor.MilliValue(), 0)
		if divisor == 0 {
			divisor = 1000
		}
		return strconv.FormatInt((q.MilliValue()+divisor-1)/divisor, 10), nil
	}
	divisor := max(r.Divisor.Value(), 1)
	return strconv.FormatInt((q.Value()+divisor-1)/divisor, 10), nil
}

// expand replaces $(NAME) by its value; $$ is one $, and a name that isn't
// there stays as written: Kubernetes's third_party/forked/golang/expansion.
func expand(s string, vars map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case '$':
			b.WriteByte('$')
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteString("$(")
				continue
			}
			name := s[i+1 : i+end]
			if value, ok := vars[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += end
		default:
			b.WriteByte('$')
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func expandAll(list []string, vars map[string]string) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = expand(s, vars)
	}
	return out
}
