package platform

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Selected is the OS that a node selector names, by the label's name of today or
// by the one from before Kubernetes 1.14, which nodes still have; AnyOS: none.
func Selected(selector map[string]string) state.OS {
	if os := selector[corev1.LabelOSStable]; os != "" {
		return state.OS(os)
	}
	return state.OS(selector[state.LabelOSBeta])
}

// WindowsPath says whether a path is Windows' own: it begins with a drive.
func WindowsPath(path string) bool {
	return len(path) >= 3 && (path[0]|0x20 >= 'a' && path[0]|0x20 <= 'z') && path[1] == ':' && (path[2] == '\\' || path[2] == '/')
}

// HostPathOnWindows says whether Windows knows what a hostPath asks to find.
func HostPathOnWindows(kind corev1.HostPathType) bool {
	return kind != corev1.HostPathSocket && kind != corev1.HostPathCharDev && kind != corev1.HostPathBlockDev
}

// Dishonoured is the first field of a defaulted pod, as a path from its spec, that
// an OS can't honour; "": there is none. Where the text names the OS, the renderer
// has refused the field; where the images choose it, the scheduler keeps such a
// pod off that OS, so that no field is without effect.
func Dishonoured(s *corev1.PodSpec, os state.OS) string {
	var pod []finding
	var container func(*corev1.Container) []finding
	switch os {
	case state.Windows:
		pod, container = podOnWindows(s), containerOnWindows
	case state.Linux:
		pod, container = podOnLinux(s), containerOnLinux
	case state.AnyOS:
		return ""
	}
	if i := slices.IndexFunc(pod, func(f finding) bool { return f.set }); i >= 0 {
		return pod[i].field
	}
	for _, list := range []struct {
		name       string
		containers []corev1.Container
	}{{"initContainers", s.InitContainers}, {"containers", s.Containers}} {
		for i := range list.containers {
			found := container(&list.containers[i])
			if j := slices.IndexFunc(found, func(f finding) bool { return f.set }); j >= 0 {
				return fmt.Sprintf("%s[%d].%s", list.name, i, found[j].field)
			}
		}
	}
	return ""
}

// A finding is a field and whether it is set to something.
type finding struct {
	field string
	set   bool
}

func podOnWindows(s *corev1.PodSpec) []finding {
	out := []finding{
		{"hostAliases", len(s.HostAliases) > 0},
		{"hostNetwork", s.HostNetwork && !HostProcess(s)},
		{"hostPID", s.HostPID},
		{"hostIPC", s.HostIPC},
		{"shareProcessNamespace", s.ShareProcessNamespace != nil && *s.ShareProcessNamespace},
	}
	if sc := s.SecurityContext; sc != nil {
		out = append(out,
			finding{"securityContext.runAsUser", sc.RunAsUser != nil},
			finding{"securityContext.runAsGroup", sc.RunAsGroup != nil},
			finding{"securityContext.supplementalGroups", len(sc.SupplementalGroups) > 0},
			finding{"securityContext.fsGroup", sc.FSGroup != nil},
			finding{"securityContext.seccompProfile", sc.SeccompProfile != nil},
			finding{"securityContext.sysctls", len(sc.Sysctls) > 0},
		)
	}
	for i := range s.Volumes {
		v, at := &s.Volumes[i], fmt.Sprintf("volumes[%d].", i)
		switch {
		case v.EmptyDir != nil:
			out = append(out, finding{at + "emptyDir.medium", v.EmptyDir.Medium == corev1.StorageMediumMemory})
		case v.HostPath != nil:
			out = append(out, finding{at + "hostPath.type", v.HostPath.Type != nil && !HostPathOnWindows(*v.HostPath.Type)})
		default:
			out = append(out, modes(v, at)...)
		}
	}
	return out
}

// modes are the file modes that differ from what Kubernetes fills in.
func modes(v *corev1.Volume, at string) []finding {
	other := func(mode *int32) bool { return mode != nil && *mode != corev1.ConfigMapVolumeSourceDefaultMode }
	var out []finding
	keys := func(field string, items []corev1.KeyToPath) {
		out = append(out, finding{at + field + ".items", slices.ContainsFunc(items, func(k corev1.KeyToPath) bool { return k.Mode != nil })})
	}
	files := func(field string, items []corev1.DownwardAPIVolumeFile) {
		out = append(out, finding{at + field + ".items", slices.ContainsFunc(items, func(f corev1.DownwardAPIVolumeFile) bool { return f.Mode != nil })})
	}
	switch {
	case v.ConfigMap != nil:
		out = append(out, finding{at + "configMap.defaultMode", other(v.ConfigMap.DefaultMode)})
		keys("configMap", v.ConfigMap.Items)
	case v.Secret != nil:
		out = append(out, finding{at + "secret.defaultMode", other(v.Secret.DefaultMode)})
		keys("secret", v.Secret.Items)
	case v.DownwardAPI != nil:
		out = append(out, finding{at + "downwardAPI.defaultMode", other(v.DownwardAPI.DefaultMode)})
		files("downwardAPI", v.DownwardAPI.Items)
	case v.Projected != nil:
		out = append(out, finding{at + "projected.defaultMode", other(v.Projected.DefaultMode)})
		for i := range v.Projected.Sources {
			src, field := &v.Projected.Sources[i], fmt.Sprintf("projected.sources[%d]", i)
			switch {
			case src.ConfigMap != nil:
				keys(field+".configMap", src.ConfigMap.Items)
			case src.Secret != nil:
				keys(field+".secret", src.Secret.Items)
			case src.DownwardAPI != nil:
				files(field+".downwardAPI", src.DownwardAPI.Items)
			}
		}
	}
	return out
}

func containerOnWindows(c *corev1.Container) []finding {
	var out []finding
	for i := range c.VolumeMounts {
		m, at := &c.VolumeMounts[i], fmt.Sprintf("volumeMounts[%d].", i)
		out = append(out,
			finding{at + "subPath", m.SubPath != ""},
			finding{at + "subPathExpr", m.SubPathExpr != ""},
			finding{at + "mountPropagation", m.MountPropagation != nil},
		)
	}
	if sc := c.SecurityContext; sc != nil {
		out = append(out,
			finding{"securityContext.privileged", sc.Privileged != nil && *sc.Privileged},
			finding{"securityContext.capabilities", sc.Capabilities != nil},
			finding{"securityContext.runAsUser", sc.RunAsUser != nil},
			finding{"securityContext.runAsGroup", sc.RunAsGroup != nil},
			finding{"securityContext.seccompProfile", sc.SeccompProfile != nil},
			finding{"securityContext.readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem},
			finding{"securityContext.allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil},
		)
	}
	return out
}

func podOnLinux(s *corev1.PodSpec) []finding {
	out := []finding{{"securityContext.windowsOptions", s.SecurityContext != nil && s.SecurityContext.WindowsOptions != nil}}
	for i := range s.Volumes {
		if h := s.Volumes[i].HostPath; h != nil {
			out = append(out, finding{fmt.Sprintf("volumes[%d].hostPath.path", i), WindowsPath(h.Path)})
		}
	}
	return out
}

func containerOnLinux(c *corev1.Container) []finding {
	return []finding{{"securityContext.windowsOptions", c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil}}
}
