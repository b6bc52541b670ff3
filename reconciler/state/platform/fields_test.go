package platform

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func TestSelected(t *testing.T) {
	for _, one := range []struct {
		selector map[string]string
		want     state.OS
	}{
		{nil, state.AnyOS},
		{map[string]string{"kubernetes.io/os": "windows"}, state.Windows},
		{map[string]string{"beta.kubernetes.io/os": "windows"}, state.Windows},
		{map[string]string{"beta.kubernetes.io/os": "linux", "kubernetes.io/os": "linux"}, state.Linux},
		{map[string]string{"beta.kubernetes.io/arch": "amd64"}, state.AnyOS},
	} {
		if got := Selected(one.selector); got != one.want {
			t.Errorf("%v selects %q, want %q", one.selector, got, one.want)
		}
	}
}

func TestWindowsPath(t *testing.T) {
	for path, want := range map[string]bool{`C:\data`: true, "d:/data": true, "/data": false, "C:": false, `\\.\pipe\x`: false, "C:data": false, "1:/x": false, "": false} {
		if got := WindowsPath(path); got != want {
			t.Errorf("%q is Windows' own: %v, want %v", path, got, want)
		}
	}
}

// TestDishonoured: what the scheduler keeps off an OS, one field at a time. That
// the renderer refuses the same where the text names the OS is tested there.
func TestDishonoured(t *testing.T) {
	one, yes, mode, host := int64(1), true, int32(0o400), corev1.MountPropagationHostToContainer
	socket, plain := corev1.HostPathSocket, corev1.HostPathUnset
	filled := corev1.ConfigMapVolumeSourceDefaultMode
	volume := func(v corev1.VolumeSource) corev1.PodSpec {
		return corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: v}}}
	}
	container := func(c corev1.Container) corev1.PodSpec { return corev1.PodSpec{Containers: []corev1.Container{c}} }
	secured := func(sc corev1.SecurityContext) corev1.PodSpec {
		return container(corev1.Container{SecurityContext: &sc})
	}
	pod := func(sc corev1.PodSecurityContext) corev1.PodSpec { return corev1.PodSpec{SecurityContext: &sc} }
	for _, c := range []struct {
		spec           corev1.PodSpec
		linux, windows string
	}{
		{spec: corev1.PodSpec{}},
		{spec: corev1.PodSpec{HostNetwork: true}, windows: "hostNetwork"},
		{spec: corev1.PodSpec{HostPID: true}, windows: "hostPID"},
		{spec: corev1.PodSpec{HostIPC: true}, windows: "hostIPC"},
		{spec: corev1.PodSpec{ShareProcessNamespace: &yes}, windows: "shareProcessNamespace"},
		{spec: corev1.PodSpec{HostAliases: []corev1.HostAlias{{}}}, windows: "hostAliases"},
		{spec: pod(corev1.PodSecurityContext{RunAsUser: &one}), windows: "securityContext.runAsUser"},
		{spec: pod(corev1.PodSecurityContext{RunAsGroup: &one}), windows: "securityContext.runAsGroup"},
		{spec: pod(corev1.PodSecurityContext{FSGroup: &one}), windows: "securityContext.fsGroup"},
		{spec: pod(corev1.PodSecurityContext{SupplementalGroups: []int64{1}}), windows: "securityContext.supplementalGroups"},
		{spec: pod(corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{}}), windows: "securityContext.seccompProfile"},
		{spec: pod(corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{}}}), windows: "securityContext.sysctls"},
		{spec: pod(corev1.PodSecurityContext{RunAsNonRoot: &yes})},
		{spec: pod(corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{}}), linux: "securityContext.windowsOptions"},
		{spec: volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})},
		{spec: volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}), windows: "volumes[0].emptyDir.medium"},
		{spec: volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x", Type: &plain}})},
		{spec: volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x", Type: &socket}}), windows: "volumes[0].hostPath.type"},
		{spec: volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: `C:\x`, Type: &plain}}), linux: "volumes[0].hostPath.path"},
		{spec: volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{DefaultMode: &filled}})},
		{spec: volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{DefaultMode: &mode}}), windows: "volumes[0].configMap.defaultMode"},
		{spec: volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{Items: []corev1.KeyToPath{{Mode: &mode}}}}), windows: "volumes[0].secret.items"},
		{spec: volume(corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Mode: &mode}}}}), windows: "volumes[0].downwardAPI.items"},
		{spec: volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{}}, {Secret: &corev1.SecretProjection{Items: []corev1.KeyToPath{{Mode: &mode}}}},
		}}}), windows: "volumes[0].projected.sources[1].secret.items"},
		{spec: secured(corev1.SecurityContext{Privileged: &yes}), windows: "containers[0].securityContext.privileged"},
		{spec: secured(corev1.SecurityContext{Capabilities: &corev1.Capabilities{}}), windows: "containers[0].securityContext.capabilities"},
		{spec: secured(corev1.SecurityContext{RunAsUser: &one}), windows: "containers[0].securityContext.runAsUser"},
		{spec: secured(corev1.SecurityContext{RunAsGroup: &one}), windows: "containers[0].securityContext.runAsGroup"},
		{spec: secured(corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{}}), windows: "containers[0].securityContext.seccompProfile"},
		{spec: secured(corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}), windows: "containers[0].securityContext.readOnlyRootFilesystem"},
		{spec: secured(corev1.SecurityContext{AllowPrivilegeEscalation: &yes}), windows: "containers[0].securityContext.allowPrivilegeEscalation"},
		{spec: secured(corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{}}), linux: "containers[0].securityContext.windowsOptions"},
		{spec: container(corev1.Container{VolumeMounts: []corev1.VolumeMount{{}, {SubPath: "a"}}}), windows: "containers[0].volumeMounts[1].subPath"},
		{spec: container(corev1.Container{VolumeMounts: []corev1.VolumeMount{{SubPathExpr: "$(A)"}}}), windows: "containers[0].volumeMounts[0].subPathExpr"},
		{spec: container(corev1.Container{VolumeMounts: []corev1.VolumeMount{{MountPropagation: &host}}}), windows: "containers[0].volumeMounts[0].mountPropagation"},
		{spec: corev1.PodSpec{InitContainers: []corev1.Container{{}, {SecurityContext: &corev1.SecurityContext{RunAsUser: &one}}}}, windows: "initContainers[1].securityContext.runAsUser"},
	} {
		if got := Dishonoured(&c.spec, state.Linux); got != c.linux {
			t.Errorf("Linux doesn't honour %q, want %q", got, c.linux)
		}
		if got := Dishonoured(&c.spec, state.Windows); got != c.windows {
			t.Errorf("Windows doesn't honour %q, want %q", got, c.windows)
		}
		if got := Dishonoured(&c.spec, state.AnyOS); got != "" {
			t.Errorf("no OS was asked about, got %q", got)
		}
	}
}
