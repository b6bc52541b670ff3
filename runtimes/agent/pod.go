package agent

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/output"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// podLabels are those of the template and those that Kubernetes's controllers add.
func podLabels(p *state.AssignedPod) map[string]string {
	return p.PodLabels()
}

// hostnameMost is the longest name that a machine has: RFC 1123.
const hostnameMost = 63

func hostname(p *state.AssignedPod) string {
	name := p.Template.Spec.Spec.Hostname
	if name == "" || p.Workload.Kind == "StatefulSet" {
		name = p.Key.Name
	}
	if p.Workload.Kind == "Job" && p.Ordinal >= 0 {
		name = p.Workload.Name + "-" + strconv.Itoa(int(p.Ordinal)) // Kubernetes: of an Indexed Job's pod
	}
	return strings.TrimRight(name[:min(len(name), hostnameMost)], "-.") // as the kubelet cuts it
}

func (a *Agent) sandbox(p *state.AssignedPod) runtimes.Sandbox {
	spec := &p.Template.Spec.Spec
	s := runtimes.Sandbox{
		UID: p.UID, Key: p.Key, Hostname: hostname(p), Isolation: p.Isolation, HostNetwork: spec.HostNetwork, Hosts: hosts(spec), Domain: domain(p),
		SharePID: spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace, Labels: podLabels(p),
	}
	if sc := spec.SecurityContext; sc != nil && len(sc.Sysctls) > 0 {
		s.Sysctls = map[string]string{}
		for _, c := range sc.Sysctls {
			s.Sysctls[c.Name] = c.Value
		}
	}
	eachContainer(p.Template, func(c *corev1.Container) bool {
		for _, port := range c.Ports {
			if port.HostPort == 0 || spec.HostNetwork {
				continue
			}
			proto := string(port.Protocol)
			if proto == "" {
				proto = "TCP"
			}
			s.Ports = append(s.Ports, runtimes.Port{
				Protocol: proto, HostIP: port.HostIP, HostPort: uint16(port.HostPort), Container: uint16(port.ContainerPort),
			})
		}
		return false
	})
	return s
}

// hosts are the lines that a pod adds to its file of hosts.
func hosts(spec *corev1.PodSpec) []string {
	var lines []string
	for _, h := range spec.HostAliases {
		lines = append(lines, h.IP+"\t"+strings.Join(h.Hostnames, "\t"))
	}
	return lines
}

// domain is where a pod's hostname is a name: below its headless Service.
func domain(p *state.AssignedPod) string {
	sub := p.Template.Spec.Spec.Subdomain
	if p.Workload.Kind == "StatefulSet" && sub == "" {
		sub = p.Service
	}
	if sub == "" {
		return ""
	}
	return sub + "." + p.Key.Namespace + ".svc." + clusterDomain
}

// container resolves everything that a runtime needs to start a container.
func (a *Agent) container(x *step.Action) (runtimes.Container, error) {
	p := x.Pod
	spec := specByName(p.Template, x.Container)
	if spec == nil {
		return runtimes.Container{}, fmt.Errorf("pod %s has no container %s: %w", p.Key, x.Container, runtimes.ErrRejected)
	}
	v := a.values(x)
	env, vars, err := v.environment(spec)
	if err != nil {
		return runtimes.Container{}, err
	}
	mounts, err := a.mounts(p, spec, x.Volumes, vars)
	if err != nil {
		return runtimes.Container{}, err
	}
	message, err := a.messageMount(x, spec)
	if err != nil {
		return runtimes.Container{}, err
	}
	mounts = append(mounts, message...)
	out, errs := output.RawPaths(a.logDir(p.UID, spec.Name, x.Attempt))
	sidecar := state.Sidecar(spec)
	return runtimes.Container{
		UID: p.UID, Name: spec.Name, Attempt: x.Attempt, Image: a.image(p, spec.Image),
		Command: expandAll(spec.Command, vars), Args: expandAll(spec.Args, vars), Env: env, WorkingDir: spec.WorkingDir, Mounts: mounts,
		Limits: a.limits(&p.Template.Spec.Spec, spec), Security: security(&p.Template.Spec.Spec, spec), TTY: spec.TTY, Stdin: spec.Stdin,
		LogPath: out, ErrPath: errs, Init: x.Init && !sidecar,
	}, nil
}

func (a *Agent) limits(pod *corev1.PodSpec, c *corev1.Container) runtimes.Limits {
	l := runtimes.Limits{
		CPURequest: c.Resources.Requests.Cpu().MilliValue(), CPULimit: c.Resources.Limits.Cpu().MilliValue(),
		Memory: c.Resources.Limits.Memory().Value(), OOMScore: oomScore(pod, c, a.facts.Capacity.Memory),
	}
	if _, ok := c.Resources.Requests[corev1.ResourceCPU]; !ok {
		l.CPURequest = l.CPULimit
	}
	return l
}

// oomScore follows the kubelet's policy: -997 for Guaranteed, 1000 for
// BestEffort, between them by the memory asked for.
func oomScore(pod *corev1.PodSpec, c *corev1.Container, capacity int64) int {
	guaranteed, best := true, true
	for _, list := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range list {
			r := &list[i].Resources
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, limited := r.Limits[name]
				request, asked := r.Requests[name]
				if limited && !limit.IsZero() || asked && !request.IsZero() {
					best = false
				}
				if !limited || limit.IsZero() || asked && request.Cmp(limit) != 0 {
					guaranteed = false
				}
			}
		}
	}
	switch {
	case guaranteed:
		return -997
	case best:
		return 1000
	}
	asked := c.Resources.Requests.Memory().Value()
	if capacity <= 0 {
		return 999
	}
	return int(min(max(1000-int64(math.Round(1000*float64(asked)/float64(capacity))), 3), 999))
}

func security(pod *corev1.PodSpec, c *corev1.Container) runtimes.Security {
	var s runtimes.Security
	if p := pod.SecurityContext; p != nil {
		s.User, s.Group, s.Groups = p.RunAsUser, p.RunAsGroup, append([]int64(nil), p.SupplementalGroups...)
		if p.FSGroup != nil {
			s.Groups = append(s.Groups, *p.FSGroup)
		}
		s.RunAsNonRoot = p.RunAsNonRoot != nil && *p.RunAsNonRoot
		s.Seccomp = seccomp(p.SeccompProfile)
		if w := p.WindowsOptions; w != nil && w.RunAsUserName != nil {
			s.UserName = *w.RunAsUserName
		}
	}
	x := c.SecurityContext
	if x == nil {
		return s
	}
	if x.RunAsUser != nil {
		s.User = x.RunAsUser
	}
	if x.RunAsGroup != nil {
		s.Group = x.RunAsGroup
	}
	if x.RunAsNonRoot != nil {
		s.RunAsNonRoot = *x.RunAsNonRoot
	}
	if x.SeccompProfile != nil {
		s.Seccomp = seccomp(x.SeccompProfile)
	}
	if w := x.WindowsOptions; w != nil && w.RunAsUserName != nil {
		s.UserName = *w.RunAsUserName
	}
	s.Privileged = x.Privileged != nil && *x.Privileged
	s.ReadOnlyRoot = x.ReadOnlyRootFilesystem != nil && *x.ReadOnlyRootFilesystem
	s.NoNewPrivileges = x.AllowPrivilegeEscalation != nil && !*x.AllowPrivilegeEscalation
	if x.Capabilities != nil {
		for _, name := range x.Capabilities.Add {
			s.Add = append(s.Add, string(name))
		}
		for _, name := range x.Capabilities.Drop {
			s.Drop = append(s.Drop, string(name))
		}
	}
	return s
}

func seccomp(p *corev1.SeccompProfile) string {
	switch {
	case p == nil:
		return ""
	case p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil:
		return *p.LocalhostProfile
	default:
		return string(p.Type)
	}
}

// mounts are a container's, of volumes that Prepare made.
func (a *Agent) mounts(p *state.AssignedPod, c *corev1.Container, claims []step.PodVolume, vars map[string]string) ([]runtimes.Mount, error) {
	var out []runtimes.Mount
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		part := m.SubPath
		if m.SubPathExpr != "" {
			if part = expand(m.SubPathExpr, vars); !filepath.IsLocal(part) || strings.Contains(part, "$(") {
				return nil, fmt.Errorf("container %s: subPathExpr %q of volume %s comes to %q, which is no path inside it: %w", c.Name, m.SubPathExpr, m.Name, part, errConfig)
			}
		}
		var vol *corev1.Volume
		for j := range p.Template.Spec.Spec.Volumes {
			if p.Template.Spec.Spec.Volumes[j].Name == m.Name {
				vol = &p.Template.Spec.Spec.Volumes[j]
			}
		}
		if vol == nil {
			return nil, fmt.Errorf("container %s mounts volume %s, which the pod doesn't have: %w", c.Name, m.Name, runtimes.ErrRejected)
		}
		mount := runtimes.Mount{Source: a.volumeDir(p.UID, m.Name), Target: m.MountPath, ReadOnly: m.ReadOnly}
		switch {
		case vol.HostPath != nil:
			mount.Source = filepath.FromSlash(vol.HostPath.Path)
		case vol.PersistentVolumeClaim != nil:
			uid, ok := volumeOf(claims, m.Name)
			if !ok {
				return nil, fmt.Errorf("container %s: volume %s was not assigned: %w", c.Name, m.Name, errConfig)
			}
			mount.Source = a.dataDir(uid)
			mount.ReadOnly = m.ReadOnly || vol.PersistentVolumeClaim.ReadOnly
		case vol.ConfigMap != nil, vol.Secret != nil, vol.Projected != nil, vol.DownwardAPI != nil:
			mount.ReadOnly = true // as the kubelet does: the files are the agent's
		}
		if part != "" {
			at := filepath.Join(a.podsDir(), p.UID.String(), "subpaths", c.Name+"."+strconv.Itoa(i))
			if err := subPath(mount.Source, part, at, vol.EmptyDir != nil || vol.HostPath != nil || vol.PersistentVolumeClaim != nil); err != nil {
				return nil, fmt.Errorf("container %s: subPath %q of volume %s: %w", c.Name, part, m.Name, err)
			}
			mount.Source = at
		}
		if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
			mount.Propagate = string(*m.MountPropagation)
		}
		out = append(out, mount)
	}
	return out, nil
}
