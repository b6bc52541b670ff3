package manifest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// gates are names that a person takes away again, in Git.
func (c *validator) gates(p Path, gates []corev1.PodSchedulingGate) {
	seen := map[string]bool{}
	for i, g := range gates {
		gp := p.At(i, g.Name).Key("name")
		c.labelKey(gp, g.Name)
		if seen[g.Name] {
			c.fail(gp, fmt.Sprintf("gate %q is there twice", clip(g.Name)), "remove one")
		}
		seen[g.Name] = true
	}
}

// podOS finds fields that the OS which the text says can't honour: what
// Windows has no notion of (Kubernetes's "Windows containers: field
// compatibility"), and windowsOptions on Linux.
func (c *validator) podOS(p Path, s *corev1.PodSpec) {
	if s.OS != nil {
		switch state.OS(s.OS.Name) {
		case state.Linux, state.Windows:
		case state.AnyOS:
			c.missing(p.Key("os", "name"), "os: {name: linux} or os: {name: windows}")
		default:
			c.fail(p.Key("os", "name"), fmt.Sprintf("want linux or windows, got %q", clip(string(s.OS.Name))), "os: {name: linux} or os: {name: windows}")
		}
		for _, label := range []string{corev1.LabelOSStable, state.LabelOSBeta} {
			if sel := s.NodeSelector[label]; sel != "" && sel != string(s.OS.Name) {
				c.fail(p.Key("nodeSelector", label), fmt.Sprintf("is %q, but os.name is %q", clip(sel), s.OS.Name), "remove one of them")
			}
		}
	}
	switch TemplateOS(s) {
	case state.Windows:
		c.onWindows(p, s)
	case state.Linux:
		c.onLinux(p, s)
	case state.AnyOS:
	}
	sp := p.Key("securityContext")
	c.id(sp.Key("runAsUser"), s.SecurityContext.RunAsUser)
	c.id(sp.Key("runAsGroup"), s.SecurityContext.RunAsGroup)
	c.id(sp.Key("fsGroup"), s.SecurityContext.FSGroup)
	for i := range s.SecurityContext.SupplementalGroups {
		c.id(sp.Key("supplementalGroups").At(i, ""), &s.SecurityContext.SupplementalGroups[i])
	}
	if s.SecurityContext.SeccompProfile != nil {
		c.seccomp(p.Key("securityContext", "seccompProfile"), s.SecurityContext.SeccompProfile)
	}
}

func (c *validator) cannot(p Path, set bool, os, remedy string) {
	if set {
		c.fail(p, "can't be honoured on "+os, remedy)
	}
}

func (c *validator) onWindows(p Path, s *corev1.PodSpec) {
	const move = "move it to the linux variant"
	sp := p.Key("securityContext")
	sc := s.SecurityContext
	c.cannot(sp.Key("runAsUser"), sc.RunAsUser != nil, "Windows", "use windowsOptions.runAsUserName, or "+move)
	c.cannot(sp.Key("runAsGroup"), sc.RunAsGroup != nil, "Windows", move)
	c.cannot(sp.Key("supplementalGroups"), len(sc.SupplementalGroups) > 0, "Windows", move)
	c.cannot(sp.Key("fsGroup"), sc.FSGroup != nil, "Windows", move)
	c.cannot(sp.Key("seccompProfile"), sc.SeccompProfile != nil, "Windows", move)
	c.cannot(sp.Key("sysctls"), len(sc.Sysctls) > 0, "Windows", move)
	c.cannot(sp.Key("seLinuxOptions"), sc.SELinuxOptions != nil, "Windows", move)
	c.cannot(p.Key("hostAliases"), len(s.HostAliases) > 0, "Windows", move)
	c.cannot(p.Key("hostNetwork"), s.HostNetwork, "Windows", move)
	c.cannot(p.Key("hostPID"), s.HostPID, "Windows", move)
	c.cannot(p.Key("hostIPC"), s.HostIPC, "Windows", move)
	c.cannot(p.Key("shareProcessNamespace"), s.ShareProcessNamespace != nil && *s.ShareProcessNamespace, "Windows", move)
	for i := range s.Volumes {
		v := &s.Volumes[i]
		vp := p.Key("volumes").At(i, v.Name)
		c.cannot(vp.Key("emptyDir", "medium"), v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory, "Windows", "remove medium")
		c.modes(vp, v)
	}
	eachContainer(p, s, func(cp Path, ct *corev1.Container, _ bool) {
		for j := range ct.VolumeMounts {
			m := &ct.VolumeMounts[j]
			mp := cp.Key("volumeMounts").At(j, m.Name)
			c.cannot(mp.Key("subPath"), m.SubPath != "", "Windows", "mount the whole volume")
			c.cannot(mp.Key("subPathExpr"), m.SubPathExpr != "", "Windows", "mount the whole volume")
			c.cannot(mp.Key("mountPropagation"), m.MountPropagation != nil, "Windows", move)
		}
		if ct.TerminationMessagePath != corev1.TerminationMessagePathDefault {
			c.note(cp.Key("terminationMessagePath"), "has no effect on Windows, which mounts no single files", "remove it, and write terminationMessagePolicy: FallbackToLogsOnError")
		}
		if ct.SecurityContext != nil {
			c.containerOnWindows(cp.Key("securityContext"), ct.SecurityContext)
		}
	})
}

// modes finds file modes that the text itself gives; the default means nothing
// on Windows.
func (c *validator) modes(p Path, v *corev1.Volume) {
	for _, key := range []string{"configMap", "secret", "projected", "downwardAPI"} {
		mp := p.Key(key, "defaultMode")
		if _, _, _, ok := c.value.Lookup(mp); ok {
			c.cannot(mp, true, "Windows", "move it to the linux variant")
		}
	}
	items := func(key string, list []corev1.KeyToPath) {
		for i := range list {
			c.cannot(p.Key(key, "items").At(i, "").Key("mode"), list[i].Mode != nil, "Windows", "move it to the linux variant")
		}
	}
	if v.ConfigMap != nil {
		items("configMap", v.ConfigMap.Items)
	}
	if v.Secret != nil {
		items("secret", v.Secret.Items)
	}
	downward := func(p Path, list []corev1.DownwardAPIVolumeFile) {
		for i := range list {
			c.cannot(p.Key("items").At(i, "").Key("mode"), list[i].Mode != nil, "Windows", "move it to the linux variant")
		}
	}
	if v.DownwardAPI != nil {
		downward(p.Key("downwardAPI"), v.DownwardAPI.Items)
	}
	if v.Projected == nil {
		return
	}
	for i := range v.Projected.Sources {
		s, sp := &v.Projected.Sources[i], p.Key("projected", "sources").At(i, "")
		if s.DownwardAPI != nil {
			downward(sp.Key("downwardAPI"), s.DownwardAPI.Items)
		}
		for key, list := range map[string][]corev1.KeyToPath{"configMap": keysOf(s.ConfigMap), "secret": secretKeysOf(s.Secret)} {
			for j := range list {
				c.cannot(sp.Key(key, "items").At(j, "").Key("mode"), list[j].Mode != nil, "Windows", "move it to the linux variant")
			}
		}
	}
}

func keysOf(c *corev1.ConfigMapProjection) []corev1.KeyToPath {
	if c == nil {
		return nil
	}
	return c.Items
}

func secretKeysOf(s *corev1.SecretProjection) []corev1.KeyToPath {
	if s == nil {
		return nil
	}
	return s.Items
}

func (c *validator) containerOnWindows(p Path, sc *corev1.SecurityContext) {
	const move = "move it to the linux variant"
	c.cannot(p.Key("privileged"), sc.Privileged != nil && *sc.Privileged, "Windows", move)
	c.cannot(p.Key("capabilities"), sc.Capabilities != nil, "Windows", move)
	c.cannot(p.Key("runAsUser"), sc.RunAsUser != nil, "Windows", "use windowsOptions.runAsUserName, or "+move)
	c.cannot(p.Key("runAsGroup"), sc.RunAsGroup != nil, "Windows", move)
	c.cannot(p.Key("seccompProfile"), sc.SeccompProfile != nil, "Windows", move)
	c.cannot(p.Key("seLinuxOptions"), sc.SELinuxOptions != nil, "Windows", move)
	c.cannot(p.Key("procMount"), sc.ProcMount != nil, "Windows", move)
	c.cannot(p.Key("readOnlyRootFilesystem"), sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem, "Windows", move)
	c.cannot(p.Key("allowPrivilegeEscalation"), sc.AllowPrivilegeEscalation != nil, "Windows", move)
}

func (c *validator) onLinux(p Path, s *corev1.PodSpec) {
	const move = "move it to the windows variant"
	c.cannot(p.Key("securityContext", "windowsOptions"), s.SecurityContext.WindowsOptions != nil, "Linux", move)
	eachContainer(p, s, func(cp Path, ct *corev1.Container, _ bool) {
		sc := ct.SecurityContext
		c.cannot(cp.Key("securityContext", "windowsOptions"), sc != nil && sc.WindowsOptions != nil, "Linux", move)
	})
}

// placement validates what chooses a node.
func (c *validator) placement(p Path, s *corev1.PodSpec) {
	for _, k := range sortedKeys(s.NodeSelector) {
		c.labelKey(p.Key("nodeSelector", k), k)
		if wrong := validation.IsValidLabelValue(s.NodeSelector[k]); len(wrong) > 0 {
			c.fail(p.Key("nodeSelector", k), "is no valid label value: "+firstClause(wrong[0]), "give a label value that a node has")
		}
	}
	if s.Affinity != nil && s.Affinity.NodeAffinity != nil {
		c.nodeAffinity(p.Key("affinity", "nodeAffinity"), s.Affinity.NodeAffinity)
	}
	if s.Affinity != nil {
		c.podAffinity(p.Key("affinity"), s.Affinity)
	}
	c.preemption(p.Key("preemptionPolicy"), s.PreemptionPolicy)
	for i, t := range s.Tolerations {
		c.toleration(p.Key("tolerations").At(i, ""), &t)
	}
	for i := range s.TopologySpreadConstraints {
		t := &s.TopologySpreadConstraints[i]
		tp := p.Key("topologySpreadConstraints").At(i, "")
		if t.MaxSkew < 1 {
			c.fail(tp.Key("maxSkew"), fmt.Sprintf("must be 1 or more, is %d", t.MaxSkew), "maxSkew: 1")
		}
		if t.TopologyKey == "" {
			c.missing(tp.Key("topologyKey"), "topologyKey: kubernetes.io/hostname")
		}
		if t.WhenUnsatisfiable != corev1.DoNotSchedule && t.WhenUnsatisfiable != corev1.ScheduleAnyway {
			c.fail(tp.Key("whenUnsatisfiable"), fmt.Sprintf("want DoNotSchedule or ScheduleAnyway, got %q", clip(string(t.WhenUnsatisfiable))), "whenUnsatisfiable: ScheduleAnyway")
		}
		if t.MinDomains != nil && *t.MinDomains < 1 {
			c.fail(tp.Key("minDomains"), "must be 1 or more", "remove it")
		}
		c.labelSelector(tp.Key("labelSelector"), t.LabelSelector)
	}
}

func (c *validator) nodeAffinity(p Path, a *corev1.NodeAffinity) {
	if r := a.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
		rp := p.Key("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
		if len(r.NodeSelectorTerms) == 0 {
			c.missing(rp, "add a term, or remove the affinity")
		}
		for i := range r.NodeSelectorTerms {
			c.nodeTerm(rp.At(i, ""), &r.NodeSelectorTerms[i])
		}
	}
	for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
		t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]
		pp := p.Key("preferredDuringSchedulingIgnoredDuringExecution").At(i, "")
		if t.Weight < 1 || t.Weight > 100 {
			c.fail(pp.Key("weight"), fmt.Sprintf("must be between 1 and 100, is %d", t.Weight), "weight: 1")
		}
		c.nodeTerm(pp.Key("preference"), &t.Preference)
	}
}

func (c *validator) nodeTerm(p Path, t *corev1.NodeSelectorTerm) {
	check := func(ep Path, e *corev1.NodeSelectorRequirement) {
		c.labelKey(ep.Key("key"), e.Key)
		switch e.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(e.Values) == 0 {
				c.missing(ep.Key("values"), "give the values")
			}
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			if len(e.Values) > 0 {
				c.fail(ep.Key("values"), fmt.Sprintf("have no meaning with %s", e.Operator), "remove them")
			}
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			if len(e.Values) != 1 {
				c.fail(ep.Key("values"), "want exactly one", "give one number")
			}
		default:
			c.fail(ep.Key("operator"), fmt.Sprintf("there is no operator %q", clip(string(e.Operator))), "use In, NotIn, Exists, DoesNotExist, Gt or Lt")
		}
	}
	for i := range t.MatchExpressions {
		check(p.Key("matchExpressions").At(i, ""), &t.MatchExpressions[i])
	}
	for i := range t.MatchFields {
		if key := t.MatchFields[i].Key; key != "metadata.name" {
			c.fail(p.Key("matchFields").At(i, "").Key("key"), fmt.Sprintf("want metadata.name, got %q", clip(key)), "use matchExpressions for labels")
		}
		check(p.Key("matchFields").At(i, ""), &t.MatchFields[i])
	}
}

func (c *validator) toleration(p Path, t *corev1.Toleration) {
	switch t.Operator {
	case corev1.TolerationOpEqual:
		if t.Key == "" {
			c.missing(p.Key("key"), "give the taint's key, or operator: Exists")
		}
	case corev1.TolerationOpExists:
		if t.Value != "" {
			c.fail(p.Key("value"), "has no meaning with Exists", "remove it")
		}
	default:
		c.fail(p.Key("operator"), fmt.Sprintf("want Equal or Exists, got %q", clip(string(t.Operator))), "operator: Exists")
	}
	switch t.Effect {
	case "", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
	default:
		c.fail(p.Key("effect"), fmt.Sprintf("there is no effect %q", clip(string(t.Effect))), "use NoSchedule, PreferNoSchedule or NoExecute")
	}
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		c.fail(p.Key("tolerationSeconds"), "has a meaning with effect NoExecute alone", "remove it")
	}
}
