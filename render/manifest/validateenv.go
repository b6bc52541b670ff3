package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

func (c *validator) env(p Path, ct *corev1.Container) {
	for i, e := range ct.Env {
		ep := p.Key("env").At(i, e.Name)
		if wrong := validation.IsEnvVarName(e.Name); e.Name == "" || len(wrong) > 0 {
			c.fail(ep.Key("name"), fmt.Sprintf("%q is no valid name of a variable", clip(e.Name)), "use letters, digits, '_', '-' and '.', no digit first")
		}
		v := e.ValueFrom
		if v == nil {
			continue
		}
		if e.Value != "" {
			c.fail(ep.Key("valueFrom"), "value is given too", "keep one of them")
		}
		c.envSource(ep.Key("valueFrom"), v)
	}
	for i, f := range ct.EnvFrom {
		fp := p.Key("envFrom").At(i, "")
		switch {
		case (f.ConfigMapRef == nil) == (f.SecretRef == nil):
			c.fail(fp, "want exactly one of configMapRef and secretRef", "name one of them")
		case f.ConfigMapRef != nil && f.ConfigMapRef.Name == "":
			c.missing(fp.Key("configMapRef", "name"), "name the ConfigMap")
		case f.SecretRef != nil && f.SecretRef.Name == "":
			c.missing(fp.Key("secretRef", "name"), "name the Secret")
		}
	}
}

func (c *validator) envSource(p Path, v *corev1.EnvVarSource) {
	sources := 0
	if r := v.ConfigMapKeyRef; r != nil {
		sources++
		if r.Name == "" || r.Key == "" {
			c.fail(p.Key("configMapKeyRef"), "needs name and key", "name the ConfigMap and the key in it")
		}
	}
	if r := v.SecretKeyRef; r != nil {
		sources++
		if r.Name == "" || r.Key == "" {
			c.fail(p.Key("secretKeyRef"), "needs name and key", "name the Secret and the key in it")
		}
	}
	if r := v.FieldRef; r != nil {
		sources++
		c.fieldVersion(p.Key("fieldRef"), r)
		if !knownFieldRef(r.FieldPath) {
			c.fail(p.Key("fieldRef", "fieldPath"), fmt.Sprintf("there is no field %q", clip(r.FieldPath)), "use metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.hostIP or status.podIP")
		}
	}
	if r := v.ResourceFieldRef; r != nil {
		sources++
		c.resourceField(p.Key("resourceFieldRef"), r)
	}
	if sources != 1 {
		c.fail(p, fmt.Sprintf("want exactly one source, has %d", sources), "keep one of configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef")
	}
}

func knownFieldRef(path string) bool {
	switch path {
	case "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs":
		return true
	}
	for _, prefix := range []string{"metadata.labels['", "metadata.annotations['"} {
		if key, ok := strings.CutPrefix(path, prefix); ok && strings.HasSuffix(key, "']") && len(key) > 2 {
			return true
		}
	}
	return false
}

func (c *validator) downward(p Path, items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		it := &items[i]
		ip := p.At(i, "")
		if it.Path == "" || strings.HasPrefix(it.Path, "/") || slices.Contains(strings.Split(it.Path, "/"), "..") {
			c.fail(ip.Key("path"), "want a path inside the volume", "give a relative path without ..")
		}
		switch {
		case (it.FieldRef == nil) == (it.ResourceFieldRef == nil):
			c.fail(ip, "want exactly one of fieldRef and resourceFieldRef", "name one of them")
		case it.FieldRef != nil && it.FieldRef.FieldPath != "metadata.labels" && it.FieldRef.FieldPath != "metadata.annotations" && !knownFieldRef(it.FieldRef.FieldPath):
			c.fail(ip.Key("fieldRef", "fieldPath"), fmt.Sprintf("there is no field %q", clip(it.FieldRef.FieldPath)), "use metadata.name, metadata.namespace, metadata.uid, metadata.labels or metadata.annotations")
		case it.ResourceFieldRef != nil && it.ResourceFieldRef.ContainerName == "":
			c.missing(ip.Key("resourceFieldRef", "containerName"), "name the container")
		}
		c.mode(ip.Key("mode"), it.Mode)
		c.fieldVersion(ip.Key("fieldRef"), it.FieldRef)
		c.resourceField(ip.Key("resourceFieldRef"), it.ResourceFieldRef)
	}
}

// fieldVersion: there is one version of the fields that a pod may read of itself.
func (c *validator) fieldVersion(p Path, r *corev1.ObjectFieldSelector) {
	if r != nil && r.APIVersion != "" && r.APIVersion != "v1" {
		c.fail(p.Key("apiVersion"), fmt.Sprintf("want v1, got %q", clip(r.APIVersion)), "remove it")
	}
}

func (c *validator) resourceField(p Path, r *corev1.ResourceFieldSelector) {
	if r == nil {
		return
	}
	switch r.Resource {
	case "limits.cpu", "limits.memory", "limits.ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage":
	default:
		c.fail(p.Key("resource"), fmt.Sprintf("there is no resource %q", clip(r.Resource)), "use limits.cpu, limits.memory, requests.cpu or requests.memory")
	}
	if r.Divisor.Sign() < 0 {
		c.fail(p.Key("divisor"), "is negative", "remove it, or write one such as 1m or 1Mi")
	}
}
