package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
)

// template validates a workload's pods, which may restart in the given ways.
func (c *validator) template(p Path, t *corev1.PodTemplateSpec, restart ...corev1.RestartPolicy) {
	c.meta(p.Key("metadata"), t.Labels, t.Annotations)
	c.noName(p.Key("metadata"))
	if t.Spec.ActiveDeadlineSeconds != nil && restart[0] == corev1.RestartPolicyAlways {
		c.fail(p.Key("spec", "activeDeadlineSeconds"), "is for pods that end", "remove it, or use a Job")
	}
	c.podSpec(p.Key("spec"), &t.Spec, restart...)
}

// noName says that what a template is called is of no account.
func (c *validator) noName(meta Path) {
	for _, key := range []string{"name", "namespace"} {
		c.note(meta.Key(key), "has no effect: what a template makes gets its name and namespace from what keeps it", "remove it")
	}
}

func (c *validator) podSpec(p Path, s *corev1.PodSpec, restart ...corev1.RestartPolicy) {
	if !slices.Contains(restart, s.RestartPolicy) {
		var names []string
		for _, r := range restart {
			names = append(names, string(r))
		}
		remedy := "restartPolicy: " + names[0]
		if restart[0] == corev1.RestartPolicyAlways {
			remedy += ", or remove it"
		}
		c.fail(p.Key("restartPolicy"), fmt.Sprintf("want %s, got %q", strings.Join(names, " or "), clip(string(s.RestartPolicy))), remedy)
	}
	c.notNegative(p.Key("terminationGracePeriodSeconds"), *s.TerminationGracePeriodSeconds)
	c.podNetwork(p, s)
	if s.SchedulerName != corev1.DefaultSchedulerName {
		c.fail(p.Key("schedulerName"), "there is one scheduler", "remove schedulerName")
	}
	if old, _, _, ok := c.value.Lookup(p.Key("serviceAccount")); ok && old.Text != "" && old.Text != s.ServiceAccountName {
		c.fail(p.Key("serviceAccount"), fmt.Sprintf("is %q, but serviceAccountName is %q", clip(old.Text), clip(s.ServiceAccountName)), "remove serviceAccount: it is the older name of the same field")
	}
	if s.Hostname != "" {
		c.name(p.Key("hostname"), s.Hostname, nameLabel)
	}
	if s.Subdomain != "" {
		c.name(p.Key("subdomain"), s.Subdomain, nameLabel)
	}
	c.gates(p.Key("schedulingGates"), s.SchedulingGates)
	c.podOS(p, s)
	c.placement(p, s)
	volumes := c.volumes(p.Key("volumes"), s.Volumes)
	c.hostPaths(p.Key("volumes"), s)
	for _, name := range c.templates {
		volumes[name] = true
	}
	if len(s.Containers) == 0 {
		c.missing(p.Key("containers"), "add a container")
	}
	names := map[string]bool{}
	eachContainer(p, s, func(cp Path, ct *corev1.Container, init bool) {
		c.name(cp.Key("name"), ct.Name, nameLabel)
		if ct.Name != "" && names[ct.Name] {
			c.fail(cp.Key("name"), fmt.Sprintf("container %q is there twice", ct.Name), "give it another name")
		}
		names[ct.Name] = true
		c.container(cp, ct, volumes)
		if s.HostNetwork {
			c.hostNetworkPorts(cp.Key("ports"), ct.Ports)
		}
		c.initContainer(cp, ct, init)
	})
}

// eachContainer goes through the containers of a pod with where they are
// written, those that begin first before the others.
func eachContainer(p Path, s *corev1.PodSpec, do func(p Path, ct *corev1.Container, init bool)) {
	for i := range s.InitContainers {
		do(p.Key("initContainers").At(i, s.InitContainers[i].Name), &s.InitContainers[i], true)
	}
	for i := range s.Containers {
		do(p.Key("containers").At(i, s.Containers[i].Name), &s.Containers[i], false)
	}
}

// initContainer validates what only sidecars, or only others, may have.
func (c *validator) initContainer(p Path, ct *corev1.Container, init bool) {
	sidecar := false
	if r := ct.RestartPolicy; r != nil {
		sidecar = init && *r == corev1.ContainerRestartPolicyAlways
		if !sidecar {
			c.fail(p.Key("restartPolicy"), "only an init container may have it, as Always: then it is a sidecar", "remove it")
		}
	}
	if !init || sidecar {
		return
	}
	for name, is := range map[string]bool{
		"lifecycle": ct.Lifecycle != nil, "livenessProbe": ct.LivenessProbe != nil, "readinessProbe": ct.ReadinessProbe != nil, "startupProbe": ct.StartupProbe != nil,
	} {
		if is {
			c.fail(p.Key(name), "an init container ends before the others begin: it can't have one", "remove it, or make it a sidecar with restartPolicy: Always")
		}
	}
}

func (c *validator) lifecycle(p Path, l *corev1.Lifecycle, ports map[string]bool) {
	for name, h := range map[string]*corev1.LifecycleHandler{"postStart": l.PostStart, "preStop": l.PreStop} {
		if h == nil {
			continue
		}
		hp := p.Key(name)
		actions := 0
		if h.Exec != nil {
			actions++
			if len(h.Exec.Command) == 0 {
				c.missing(hp.Key("exec", "command"), "give a command")
			}
		}
		if h.HTTPGet != nil {
			actions++
			c.httpGet(hp.Key("httpGet"), h.HTTPGet, ports)
		}
		if h.Sleep != nil {
			actions++
			c.notNegative(hp.Key("sleep", "seconds"), h.Sleep.Seconds)
		}
		if actions != 1 {
			c.fail(hp, fmt.Sprintf("want exactly one of exec, httpGet and sleep, has %d", actions), "keep one")
		}
	}
}

func (c *validator) httpGet(p Path, h *corev1.HTTPGetAction, ports map[string]bool) {
	c.probePort(p.Key("port"), h.Port, ports)
	if h.Scheme != corev1.URISchemeHTTP && h.Scheme != corev1.URISchemeHTTPS {
		c.fail(p.Key("scheme"), fmt.Sprintf("want HTTP or HTTPS, got %q", clip(string(h.Scheme))), "scheme: HTTP")
	}
}

func (c *validator) volumes(p Path, vs []corev1.Volume) map[string]bool {
	names := map[string]bool{}
	for i := range vs {
		v := &vs[i]
		vp := p.At(i, v.Name)
		c.name(vp.Key("name"), v.Name, nameLabel)
		if v.Name != "" && names[v.Name] {
			c.fail(vp.Key("name"), fmt.Sprintf("volume %q is there twice", v.Name), "give it another name")
		}
		names[v.Name] = true
		kinds := 0
		if v.ConfigMap != nil {
			kinds++
			if v.ConfigMap.Name == "" {
				c.missing(vp.Key("configMap", "name"), "name the ConfigMap")
			}
			c.items(vp.Key("configMap", "items"), v.ConfigMap.Items)
		}
		if v.Secret != nil {
			kinds++
			if v.Secret.SecretName == "" {
				c.missing(vp.Key("secret", "secretName"), "name the Secret")
			}
			c.items(vp.Key("secret", "items"), v.Secret.Items)
		}
		if v.EmptyDir != nil {
			kinds++
			if m := v.EmptyDir.Medium; m != corev1.StorageMediumDefault && m != corev1.StorageMediumMemory {
				c.fail(vp.Key("emptyDir", "medium"), fmt.Sprintf("want Memory, got %q", clip(string(m))), "remove it, or medium: Memory")
			}
		}
		c.volumeModes(vp, v)
		kinds += c.otherVolume(vp, v)
		if kinds > 1 {
			c.fail(vp, "has more than one kind", "keep one of persistentVolumeClaim, configMap, secret, emptyDir, hostPath, projected, downwardAPI")
		}
	}
	return names
}

// otherVolume validates the kinds whose files aren't one object's, and counts them.
func (c *validator) otherVolume(p Path, v *corev1.Volume) (kinds int) {
	if v.HostPath != nil {
		kinds++
	}
	if pvc := v.PersistentVolumeClaim; pvc != nil {
		kinds++
		c.claimVolume(p.Key("persistentVolumeClaim"), pvc)
	}
	if d := v.DownwardAPI; d != nil {
		kinds++
		c.downward(p.Key("downwardAPI", "items"), d.Items)
	}
	if e := v.EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
		c.fail(p.Key("emptyDir", "sizeLimit"), "is negative", "write 0 (no limit) or more")
	}
	if v.Projected == nil {
		return kinds
	}
	for i := range v.Projected.Sources {
		s := &v.Projected.Sources[i]
		sp := p.Key("projected", "sources").At(i, "")
		n := 0
		if s.ConfigMap != nil {
			n++
			if s.ConfigMap.Name == "" {
				c.missing(sp.Key("configMap", "name"), "name the ConfigMap")
			}
			c.items(sp.Key("configMap", "items"), s.ConfigMap.Items)
		}
		if s.Secret != nil {
			n++
			if s.Secret.Name == "" {
				c.missing(sp.Key("secret", "name"), "name the Secret")
			}
			c.items(sp.Key("secret", "items"), s.Secret.Items)
		}
		if s.DownwardAPI != nil {
			n++
			c.downward(sp.Key("downwardAPI", "items"), s.DownwardAPI.Items)
		}
		if n != 1 {
			c.fail(sp, "want exactly one of configMap, secret and downwardAPI", "keep one")
		}
	}
	return kinds + 1
}

func (c *validator) items(p Path, items []corev1.KeyToPath) {
	for i, it := range items {
		if it.Key == "" {
			c.missing(p.At(i, "").Key("key"), "name the key")
		}
		if it.Path == "" || strings.HasPrefix(it.Path, "/") || slices.Contains(strings.Split(it.Path, "/"), "..") {
			c.fail(p.At(i, "").Key("path"), "want a path inside the volume", "give a relative path without ..")
		}
		c.mode(p.At(i, "").Key("mode"), it.Mode)
	}
}

func (c *validator) container(p Path, ct *corev1.Container, volumes map[string]bool) {
	switch {
	case ct.Image == "":
		c.missing(p.Key("image"), "name an image")
	case strings.TrimSpace(ct.Image) != ct.Image:
		c.fail(p.Key("image"), "has spaces around it", "remove them")
	}
	switch ct.ImagePullPolicy {
	case corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		c.fail(p.Key("imagePullPolicy"), fmt.Sprintf("want Always, IfNotPresent or Never, got %q", clip(string(ct.ImagePullPolicy))), "imagePullPolicy: IfNotPresent")
	}
	ports := c.ports(p.Key("ports"), ct.Ports)
	c.env(p, ct)
	c.resources(p.Key("resources"), &ct.Resources)
	mounted := map[string]bool{}
	for i, m := range ct.VolumeMounts {
		mp := p.Key("volumeMounts").At(i, m.Name)
		if !volumes[m.Name] {
			c.fail(mp.Key("name"), fmt.Sprintf("there is no volume %q", clip(m.Name)), "add it under spec.template.spec.volumes, or "+didYouMean(m.Name, volumes))
		}
		switch {
		case m.MountPath == "":
			c.missing(mp.Key("mountPath"), "say where in the container")
		case m.SubPath != "" && m.SubPathExpr != "":
			c.fail(mp.Key("subPathExpr"), "subPath is given too", "keep one of them")
		case m.SubPathExpr != "" && (strings.HasPrefix(m.SubPathExpr, "/") || slices.Contains(strings.Split(m.SubPathExpr, "/"), "..")):
			c.fail(mp.Key("subPathExpr"), "want a path inside the volume", "give a relative path without ..")
		case m.SubPath != "" && (strings.HasPrefix(m.SubPath, "/") || slices.Contains(strings.Split(m.SubPath, "/"), "..")):
			c.fail(mp.Key("subPath"), "want a path inside the volume", "give a relative path without ..")
		case mounted[m.MountPath]:
			c.fail(mp.Key("mountPath"), "is there twice", "mount each volume at its own path")
		}
		mounted[m.MountPath] = true
		if m.MountPropagation != nil {
			c.propagation(mp.Key("mountPropagation"), *m.MountPropagation, ct)
		}
	}
	for name, probe := range map[string]*corev1.Probe{"livenessProbe": ct.LivenessProbe, "readinessProbe": ct.ReadinessProbe, "startupProbe": ct.StartupProbe} {
		if probe != nil {
			c.probe(p.Key(name), name, probe, ports)
		}
	}
	if ct.Lifecycle != nil {
		c.lifecycle(p.Key("lifecycle"), ct.Lifecycle, ports)
	}
	switch ct.TerminationMessagePolicy {
	case corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError:
	default:
		c.fail(p.Key("terminationMessagePolicy"), fmt.Sprintf("want File or FallbackToLogsOnError, got %q", clip(string(ct.TerminationMessagePolicy))), "terminationMessagePolicy: File, or remove it")
	}
	if sc := ct.SecurityContext; sc != nil {
		c.id(p.Key("securityContext", "runAsUser"), sc.RunAsUser)
		c.id(p.Key("securityContext", "runAsGroup"), sc.RunAsGroup)
		if sc.SeccompProfile != nil {
			c.seccomp(p.Key("securityContext", "seccompProfile"), sc.SeccompProfile)
		}
	}
}

func (c *validator) ports(p Path, ports []corev1.ContainerPort) map[string]bool {
	names := map[string]bool{}
	for i := range ports {
		port := &ports[i]
		pp := p.At(i, port.Name)
		if port.ContainerPort == 0 {
			c.missing(pp.Key("containerPort"), "give the port that the container listens on")
		} else {
			c.port(pp.Key("containerPort"), int64(port.ContainerPort))
		}
		c.protocol(pp.Key("protocol"), port.Protocol)
		c.hostPort(pp, port)
		if port.Name == "" {
			continue
		}
		c.portName(pp.Key("name"), port.Name)
		if names[port.Name] {
			c.fail(pp.Key("name"), fmt.Sprintf("port %q is there twice", port.Name), "give it another name")
		}
		names[port.Name] = true
	}
	return names
}

func (c *validator) resources(p Path, r *corev1.ResourceRequirements) {
	c.note(p.Key("limits", string(corev1.ResourceEphemeralStorage)), "stops nobody who writes more; it counts as the request where none is given", "limit volumes: emptyDir: {sizeLimit: 1Gi}")
	for _, list := range []struct {
		key  string
		list corev1.ResourceList
	}{{"requests", r.Requests}, {"limits", r.Limits}} {
		for _, name := range sortedResources(list.list) {
			rp := p.Key(list.key, string(name))
			q := list.list[name]
			switch name {
			case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			default:
				if _, limited := r.Limits[name]; limited && list.key == "requests" {
					continue // said of the limit
				}
				c.fail(rp, fmt.Sprintf("not supported yet: resource %q", clip(string(name))), "use cpu, memory and ephemeral-storage")
			}
			if q.Sign() < 0 {
				c.fail(rp, "is negative", "write 0 or more")
			}
			if name == corev1.ResourceMemory && q.Cmp(*resource.NewQuantity(q.Value(), resource.BinarySI)) != 0 {
				c.fail(rp, fmt.Sprintf("%s is a fraction of a byte", q.String()), "write it in Mi: 64Mi ('m' is a thousandth)")
			}
			if limit, ok := r.Limits[name]; ok && list.key == "requests" && q.Cmp(limit) > 0 {
				c.fail(rp, fmt.Sprintf("%s is more than the limit, %s", q.String(), limit.String()), "lower the request or raise the limit")
			}
		}
	}
}

func sortedResources(list corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(list))
	for n := range list {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (c *validator) probe(p Path, kind string, probe *corev1.Probe, ports map[string]bool) {
	actions := 0
	if e := probe.Exec; e != nil {
		actions++
		if len(e.Command) == 0 {
			c.missing(p.Key("exec", "command"), "give a command")
		}
	}
	if h := probe.HTTPGet; h != nil {
		actions++
		c.httpGet(p.Key("httpGet"), h, ports)
	}
	if t := probe.TCPSocket; t != nil {
		actions++
		c.probePort(p.Key("tcpSocket", "port"), t.Port, ports)
	}
	if g := probe.GRPC; g != nil {
		actions++
		c.port(p.Key("grpc", "port"), int64(g.Port))
	}
	if actions != 1 {
		c.fail(p, fmt.Sprintf("want exactly one of exec, httpGet, tcpSocket and grpc, has %d", actions), "keep one")
	}
	for name, n := range map[string]int32{
		"initialDelaySeconds": probe.InitialDelaySeconds, "timeoutSeconds": probe.TimeoutSeconds, "periodSeconds": probe.PeriodSeconds,
		"successThreshold": probe.SuccessThreshold, "failureThreshold": probe.FailureThreshold,
	} {
		c.notNegative(p.Key(name), int64(n))
	}
	if kind != "readinessProbe" && probe.SuccessThreshold > 1 {
		c.fail(p.Key("successThreshold"), "must be 1 for a "+kind, "remove it")
	}
	if g := probe.TerminationGracePeriodSeconds; g != nil && (*g < 1 || kind == "readinessProbe") {
		c.fail(p.Key("terminationGracePeriodSeconds"), "must be 1 or more, and not on a readinessProbe", "remove it")
	}
}

func (c *validator) probePort(p Path, port intstr.IntOrString, ports map[string]bool) {
	if port.Type == intstr.Int {
		c.port(p, int64(port.IntVal))
		return
	}
	c.portName(p, port.StrVal)
	if !ports[port.StrVal] {
		c.fail(p, fmt.Sprintf("the container has no port %q", clip(port.StrVal)), "name it under ports, or give a number")
	}
}

func (c *validator) seccomp(p Path, s *corev1.SeccompProfile) {
	if s.Type != corev1.SeccompProfileTypeRuntimeDefault && s.Type != corev1.SeccompProfileTypeUnconfined {
		c.fail(p.Key("type"), fmt.Sprintf("not supported yet: %q", clip(string(s.Type))), "use RuntimeDefault or Unconfined")
	}
}

// TemplateOS is the operating system that a pod spec says: spec.os.name, then
// nodeSelector.
func TemplateOS(s *corev1.PodSpec) state.OS {
	if s.OS != nil {
		return state.OS(s.OS.Name)
	}
	return platform.Selected(s.NodeSelector)
}
