package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// object writes a ConfigMap or Secret of plain values: "key=value".
func object(kind, name string, pairs ...string) string {
	var b strings.Builder
	field := "data"
	if kind == "Secret" {
		field = "stringData"
	}
	fmt.Fprintf(&b, "apiVersion: v1\nkind: %s\nmetadata: {name: %s}\n%s:\n", kind, name, field)
	for _, p := range pairs {
		key, value, _ := strings.Cut(p, "=")
		fmt.Fprintf(&b, "  %q: %q\n", key, value)
	}
	return b.String()
}

// volume is a ConfigMap's or Secret's as a pod's volume.
func volume(kind, name string, items []corev1.KeyToPath, mode *int32, optional *bool) corev1.VolumeSource {
	if kind == "Secret" {
		return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, Items: items, DefaultMode: mode, Optional: optional}}
	}
	return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items, DefaultMode: mode, Optional: optional,
	}}
}

// with mounts a volume at /mnt.
func with(v corev1.VolumeSource, more ...func(p *corev1.Pod, c *corev1.Container)) func(p *corev1.Pod, c *corev1.Container) {
	return func(p *corev1.Pod, c *corev1.Container) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "mnt", VolumeSource: v})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "mnt", MountPath: "/mnt"})
		for _, f := range more {
			f(p, c)
		}
	}
}

// as makes a pod run as a user, its volumes a group's.
func as(uid, fsGroup int64) func(p *corev1.Pod, c *corev1.Container) {
	return func(p *corev1.Pod, _ *corev1.Container) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &uid}
		if fsGroup != 0 {
			p.Spec.SecurityContext.FSGroup = &fsGroup
		}
	}
}

// fileChecks are those that ConfigMaps and Secrets have in common.
func fileChecks(kind string) []check {
	title := func(words string) string {
		return "[sig-storage] " + kind + "s " + strings.ReplaceAll(words, "@", kind)
	}
	mode, octal := int32(0o400), int32(0o440)
	yes := true
	items := []corev1.KeyToPath{{Key: "data-2", Path: "path/to/data-2"}}
	show := func(k *kit, script, want string, change func(p *corev1.Pod, c *corev1.Container)) {
		k.apply(object(kind, "conf", "data-1=value-1", "data-2=value-2", "data-3=value-3"), k.once("web", script, change))
		k.equal("log", k.ends("web", corev1.PodSucceeded), want)
	}
	return []check{
		{title("should be consumable from pods in volume"), func(k *kit) {
			show(k, "cat /mnt/data-1; echo; stat -L -c %a /mnt/data-1", "value-1\n644\n", with(volume(kind, "conf", nil, nil, nil)))
		}},
		{title("should be consumable from pods in volume with defaultMode set"), func(k *kit) {
			show(k, "cat /mnt/data-1; echo; stat -L -c %a /mnt/data-1", "value-1\n400\n", with(volume(kind, "conf", nil, &mode, nil)))
		}},
		{title("should be consumable from pods in volume as non-root with defaultMode and fsGroup set"), func(k *kit) {
			show(k, "cat /mnt/data-1; echo; stat -L -c '%a %g' /mnt/data-1; id -u", "value-1\n440 1001\n1000\n", with(volume(kind, "conf", nil, &octal, nil), as(1000, 1001)))
		}},
		{title("should be consumable from pods in volume with mappings"), func(k *kit) {
			show(k, "cat /mnt/path/to/data-2; echo; ls /mnt", "value-2\npath\n", with(volume(kind, "conf", items, nil, nil)))
		}},
		{title("should be consumable from pods in volume with mappings and Item mode set"), func(k *kit) {
			with1 := []corev1.KeyToPath{{Key: "data-2", Path: "path/to/data-2", Mode: &mode}}
			show(k, "cat /mnt/path/to/data-2; echo; stat -L -c %a /mnt/path/to/data-2", "value-2\n400\n", with(volume(kind, "conf", with1, nil, nil)))
		}},
		{title("should be consumable in multiple volumes in the same pod"), func(k *kit) {
			show(k, "cat /mnt/data-1 /more/data-1", "value-1value-1", with(volume(kind, "conf", nil, nil, nil), func(p *corev1.Pod, c *corev1.Container) {
				p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "more", VolumeSource: volume(kind, "conf", nil, nil, nil)})
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "more", MountPath: "/more"})
			}))
		}},
		{title("updates should be reflected in volume"), func(k *kit) {
			k.write("conf.yaml", object(kind, "conf", "data-1=value-1"))
			k.apply(k.pod("web", with(volume(kind, "conf", nil, nil, nil))))
			k.ready("web")
			k.equal("first", k.exec("web", "cat /mnt/data-1"), "value-1")
			k.write("conf.yaml", object(kind, "conf", "data-1=value-2", "data-2=new"))
			k.eventually("web", "cat /mnt/data-1 /mnt/data-2 2>/dev/null", is("value-2new"))
			if p := k.ready("web"); status(p, "main").RestartCount != 0 {
				k.Errorf("restarted")
			}
		}},
		{title("optional updates should be reflected in volume"), func(k *kit) {
			k.write("some.yaml", object(kind, "some", "data-1=value-1"))
			k.apply(k.pod("web", with(volume(kind, "some", items, nil, &yes), func(p *corev1.Pod, c *corev1.Container) {
				p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "late", VolumeSource: volume(kind, "late", nil, nil, &yes)})
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "late", MountPath: "/late"})
			})))
			k.ready("web")
			k.equal("before", k.exec("web", "ls /mnt /late"), "/late:\n\n/mnt:")
			k.write("late.yaml", object(kind, "late", "data-1=value-1"))
			k.eventually("web", "cat /late/data-1 2>/dev/null", is("value-1"))
			k.write("some.yaml", object(kind, "some", "data-2=value-2"))
			k.eventually("web", "cat /mnt/path/to/data-2 2>/dev/null", is("value-2"))
			k.write("some.yaml", object(kind, "some", "data-1=value-1"))
			k.eventually("web", "ls /mnt", is(""))
		}},
		{title("should be consumable via environment variable"), func(k *kit) {
			show(k, "echo $ONE; tr '\\0' '\\n' </proc/1/environ | grep ^P_ | sort", "value-1\nP_data-1=value-1\nP_data-2=value-2\nP_data-3=value-3\n", func(_ *corev1.Pod, c *corev1.Container) {
				ref := corev1.LocalObjectReference{Name: "conf"}
				from := &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref, Key: "data-1"}}
				all := corev1.EnvFromSource{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref}}
				if kind == "Secret" {
					from = &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref, Key: "data-1"}}
					all = corev1.EnvFromSource{Prefix: "P_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref}}
				}
				c.Env, c.EnvFrom = []corev1.EnvVar{{Name: "ONE", ValueFrom: from}}, []corev1.EnvFromSource{all}
			})
		}},
		{title("a pod waits for one that is not optional and not there"), func(k *kit) {
			k.apply(k.pod("web", with(volume(kind, "missing", nil, nil, nil))))
			k.until("web", "waiting for its configuration", func(p *corev1.Pod) bool {
				w := status(p, "main").State.Waiting
				return w != nil && w.Reason == "CreateContainerConfigError"
			})
			k.apply(object(kind, "missing", "data-1=value-1"))
			k.ready("web")
			k.equal("file", k.exec("web", "cat /mnt/data-1"), "value-1")
		}},
	}
}

func projectedChecks() []check {
	field := func(path string) *corev1.ObjectFieldSelector { return &corev1.ObjectFieldSelector{FieldPath: path} }
	limits := func(c *corev1.Container) {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1250m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
	}
	down := func(items ...corev1.DownwardAPIVolumeFile) corev1.VolumeSource {
		return corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: items}}
	}
	resourceFile := func(path, name, divisor string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: name, Divisor: resource.MustParse(divisor)}}
	}
	return []check{
		{"[sig-storage] Projected combined should project all components that make up the projection API", func(k *kit) {
			k.apply(object("ConfigMap", "conf", "c=from configmap"), object("Secret", "sec", "s=from secret"),
				k.once("web", "cd /mnt; cat c all/s name", with(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}},
					{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Items: []corev1.KeyToPath{{Key: "s", Path: "all/s"}}}},
					{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: field("metadata.name")}}}},
				}}})))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "from configmapfrom secretweb")
		}},
		{"[sig-storage] Projected configMap updates should be reflected in volume", func(k *kit) {
			k.write("conf.yaml", object("ConfigMap", "conf", "data-1=value-1"))
			k.apply(k.pod("web", with(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}},
			}}})))
			k.ready("web")
			k.write("conf.yaml", object("ConfigMap", "conf", "data-1=value-2"))
			k.eventually("web", "cat /mnt/data-1", is("value-2"))
		}},
		{"[sig-storage] Downward API volume should provide podname only", func(k *kit) {
			k.apply(k.once("web", "cat /mnt/name", with(down(corev1.DownwardAPIVolumeFile{Path: "name", FieldRef: field("metadata.name")}))))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "web")
		}},
		{"[sig-storage] Downward API volume should set mode on item file", func(k *kit) {
			mode := int32(0o400)
			k.apply(k.once("web", "stat -L -c %a /mnt/name", with(down(corev1.DownwardAPIVolumeFile{Path: "name", FieldRef: field("metadata.name"), Mode: &mode}))))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "400\n")
		}},
		{"[sig-storage] Downward API volume should provide labels and annotations", func(k *kit) {
			k.apply(k.once("web", "cat /mnt/labels; echo; cat /mnt/notes", with(
				down(corev1.DownwardAPIVolumeFile{Path: "labels", FieldRef: field("metadata.labels")}, corev1.DownwardAPIVolumeFile{Path: "notes", FieldRef: field("metadata.annotations")}),
				func(p *corev1.Pod, _ *corev1.Container) { p.Annotations = map[string]string{"builder": "bar"} },
			)))
			k.contains("log", k.ends("web", corev1.PodSucceeded), `app="web"`, `builder="bar"`)
		}},
		{"[sig-storage] Downward API volume should provide container's cpu and memory limits and requests", func(k *kit) {
			k.apply(k.once("web", "cd /mnt; for f in a b c d; do cat $f; echo; done", with(
				down(resourceFile("a", "limits.cpu", "1m"), resourceFile("b", "limits.memory", "1Mi"), resourceFile("c", "requests.cpu", "1m"), resourceFile("d", "requests.memory", "1Mi")),
				func(_ *corev1.Pod, c *corev1.Container) { limits(c) },
			)))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "1250\n64\n250\n32\n")
		}},
		{"[sig-storage] Downward API volume should provide node allocatable (memory) as default memory limit if the limit is not set", func(k *kit) {
			k.apply(k.once("web", "cat /mnt/m", with(down(resourceFile("m", "limits.memory", "1Mi")))))
			if out := k.ends("web", corev1.PodSucceeded); len(out) < 3 {
				k.Errorf("got %q MiB", out)
			}
		}},
		{"[sig-node] Downward API should provide pod name, namespace, IP address, UID, node name and host IP as env vars", func(k *kit) {
			k.apply(k.once("web", "echo $NAME $SPACE $IP $ID $NODE $HOST $SA", func(_ *corev1.Pod, c *corev1.Container) {
				for name, path := range map[string]string{
					"NAME": "metadata.name", "SPACE": "metadata.namespace", "IP": "status.podIP", "ID": "metadata.uid", "NODE": "spec.nodeName", "HOST": "status.hostIP",
				} {
					c.Env = append(c.Env, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: field(path)}})
				}
			}))
			out := k.ends("web", corev1.PodSucceeded)
			p := k.until("web", "succeeded", phase(corev1.PodSucceeded))
			k.equal("log", out, strings.Join([]string{"web", k.ns, p.Status.PodIP, string(p.UID), p.Spec.NodeName, p.Status.HostIP}, " ")+"\n")
		}},
		{"[sig-node] Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars", func(k *kit) {
			k.apply(k.once("web", "echo $A $B $C $D", func(p *corev1.Pod, c *corev1.Container) {
				limits(c)
				for name, what := range map[string]string{"A": "limits.cpu", "B": "limits.memory", "C": "requests.cpu", "D": "requests.memory"} {
					c.Env = append(c.Env, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: what}}})
				}
			}))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "2 67108864 1 33554432\n")
		}},
		{"[sig-node] Pods Set QOS Class should be set on Pods with matching resource requests and limits for memory and cpu", func(k *kit) {
			k.apply(k.pod("web", func(_ *corev1.Pod, c *corev1.Container) {
				c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
			}), k.pod("some", func(_ *corev1.Pod, c *corev1.Container) {
				c.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
			}), k.pod("none", nil))
			for name, want := range map[string]corev1.PodQOSClass{"web": corev1.PodQOSGuaranteed, "some": corev1.PodQOSBurstable, "none": corev1.PodQOSBestEffort} {
				k.equal("QoS class of "+name, string(k.ready(name).Status.QOSClass), string(want))
			}
			least := "-997"
			if caps, _ := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(own("CapEff"), "CapEff:")), 16, 64); caps&(1<<24) == 0 {
				raw, _ := os.ReadFile("/proc/self/oom_score_adj") // without CAP_SYS_RESOURCE nobody gets a lower one
				least = strings.TrimSpace(string(raw))
			}
			k.equal("OOM score of guaranteed", k.exec("web", "cat /proc/1/oom_score_adj"), least)
			k.equal("OOM score of best effort", k.exec("none", "cat /proc/1/oom_score_adj"), "1000")
		}},
	}
}

func emptyDirChecks() []check {
	dir := func(medium corev1.StorageMedium) corev1.VolumeSource {
		return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}
	}
	var all []check
	for medium, word := range map[corev1.StorageMedium]string{corev1.StorageMediumDefault: "default", corev1.StorageMediumMemory: "tmpfs"} {
		for user, uid := range map[string]int64{"root": 0, "non-root": 1001} {
			all = append(all, check{fmt.Sprintf("[sig-storage] EmptyDir volumes should support (%s,0666,%s)", user, word), func(k *kit) {
				k.apply(k.once("web", "echo -n content >/mnt/f && chmod 666 /mnt/f && stat -c '%a %u' /mnt/f && cat /mnt/f && grep -c ' /mnt tmpfs ' /proc/mounts; true", with(dir(medium), as(uid, 0))))
				count := map[corev1.StorageMedium]string{corev1.StorageMediumMemory: "1"}[medium]
				if count == "" {
					count = "0"
				}
				k.equal("log", k.ends("web", corev1.PodSucceeded), fmt.Sprintf("666 %d\ncontent%s\n", uid, count))
			}})
		}
		all = append(all, check{fmt.Sprintf("[sig-storage] EmptyDir volumes volume on %s medium should have the correct mode", word), func(k *kit) {
			k.apply(k.once("web", "stat -c %a /mnt", with(dir(medium))))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "777\n")
		}})
	}
	return append(all, []check{
		{"[sig-storage] EmptyDir volumes pod should support shared volumes between containers", func(k *kit) {
			k.apply(k.pod("web", with(dir(""), func(p *corev1.Pod, c *corev1.Container) {
				other := *c.DeepCopy()
				other.Name = "other"
				sh(&other, "echo -n Hello from the other container >/mnt/f; "+idle)
				p.Spec.Containers = append(p.Spec.Containers, other)
			})))
			k.ready("web")
			k.eventually("web", "cat /mnt/f 2>/dev/null", is("Hello from the other container"))
		}},
		{"[sig-storage] EmptyDir volumes when FSGroup is specified files with FSGroup ownership should support (root,0644,tmpfs)", func(k *kit) {
			k.apply(k.once("web", "echo x >/mnt/f; stat -c '%g' /mnt/f; stat -c '%g %a' /mnt; id -G", with(dir(corev1.StorageMediumMemory), as(1000, 123))))
			k.contains("log", k.ends("web", corev1.PodSucceeded), "123\n123 2777\n")
		}},
		{"[sig-storage] EmptyDir volumes outlive a container's life", func(k *kit) {
			k.apply(k.pod("web", with(dir(""), func(_ *corev1.Pod, c *corev1.Container) {
				sh(c, "if [ -f /mnt/f ]; then cat /mnt/f; "+idle+"; fi; echo kept >/mnt/f; exit 1")
			})))
			k.until("web", "restarted", restarted)
			k.says("web", "kept\n", nil)
		}},
		{"[sig-storage] EmptyDir memory backed volumes of specified size", func(k *kit) {
			size := resource.MustParse("4Mi")
			v := dir(corev1.StorageMediumMemory)
			v.EmptyDir.SizeLimit = &size
			k.apply(k.once("web", "dd if=/dev/zero of=/mnt/f bs=1M count=8 2>/dev/null; stat -c %s /mnt/f", with(v)))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "4194304\n")
		}},
		{"[sig-node] LocalStorageSoftEviction an emptyDir on disk that exceeds its sizeLimit evicts its pod", func(k *kit) {
			size := resource.MustParse("1Mi")
			v := dir("")
			v.EmptyDir.SizeLimit = &size
			k.apply(k.pod("web", with(v)))
			k.ready("web")
			k.exec("web", "dd if=/dev/zero of=/mnt/f bs=1M count=2 2>/dev/null")
			p := k.until("web", "evicted", phase(corev1.PodFailed))
			k.equal("reason", p.Status.Reason, "Evicted")
			k.contains("message", p.Status.Message, "emptyDir volume mnt holds 2Mi, its sizeLimit is 1Mi")
		}},
		{"[sig-storage] HostPath should support r/w", func(k *kit) {
			at := filepath.Join(k.c.dir, "host-"+k.ns)
			kind := corev1.HostPathDirectoryOrCreate
			k.apply(k.once("web", "echo -n there >/mnt/f; cat /mnt/f", with(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: at, Type: &kind}})))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "there")
			if b, err := os.ReadFile(filepath.Join(at, "f")); err != nil || string(b) != "there" {
				k.Errorf("on the host: %q, %v", b, err)
			}
		}},
		{"[sig-storage] HostPathType File should fail to be mounted where there is none, and be once there is", func(k *kit) {
			at := filepath.Join(k.c.dir, "host-"+k.ns)
			kind := corev1.HostPathFile
			k.apply(k.pod("web", with(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: at, Type: &kind}})))
			k.until("web", "waiting for the file", func(p *corev1.Pod) bool { return strings.Contains(p.Status.Message, "no such file") })
			if err := os.WriteFile(at, []byte("now"), 0o644); err != nil {
				k.Fatal(err)
			}
			k.ready("web")
			k.equal("file", k.exec("web", "cat /mnt"), "now")
		}},
		{"[sig-storage] Subpath should support subpaths with configmap pod", func(k *kit) {
			k.apply(object("ConfigMap", "conf", "data-1=value-1", "data-2=value-2"), k.once("web", "cat /mnt", with(volume("ConfigMap", "conf", nil, nil, nil), func(_ *corev1.Pod, c *corev1.Container) {
				c.VolumeMounts[0].SubPath = "data-2"
			})))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "value-2")
		}},
		{"[sig-storage] Subpath should support existing directory and make one that is not there", func(k *kit) {
			k.apply(k.once("web", "echo -n x >/mnt/f; cat /all/a/b/f", with(dir(""), func(_ *corev1.Pod, c *corev1.Container) {
				c.VolumeMounts[0].SubPath = "a/b"
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "mnt", MountPath: "/all"})
			})))
			k.equal("log", k.ends("web", corev1.PodSucceeded), "x")
		}},
		{"[sig-storage] Subpath should be read-only where the mount is", func(k *kit) {
			k.apply(k.once("web", "touch /mnt/f 2>&1; touch /all/f && echo ok", with(dir(""), func(_ *corev1.Pod, c *corev1.Container) {
				c.VolumeMounts[0].ReadOnly = true
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "mnt", MountPath: "/all"})
			})))
			k.contains("log", k.ends("web", corev1.PodSucceeded), "Read-only file system", "ok")
		}},
	}...)
}
