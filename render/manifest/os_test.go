package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
)

// TestOSFieldsAgree: what is a Problem where the text names the OS is what the
// scheduler keeps a pod off that OS for where the images choose it.
func TestOSFieldsAgree(t *testing.T) {
	const ctr = "containers: [{name: c, image: i, %s}]"
	mount := fmt.Sprintf(ctr, "volumeMounts: [{name: v, mountPath: /v, %s}]") + "\n  volumes: [{name: v, emptyDir: {}}]"
	volume := fmt.Sprintf(ctr, "args: []") + "\n  volumes: [{name: v, %s}]"
	whole := "%s\n  " + fmt.Sprintf(ctr, "args: []")
	for _, one := range []struct{ os, form, text, field string }{
		{"windows", whole, "hostNetwork: true", "hostNetwork"},
		{"windows", whole, "shareProcessNamespace: true", "shareProcessNamespace"},
		{"windows", whole, "hostAliases: [{ip: 192.0.2.1, hostnames: [a]}]", "hostAliases"},
		{"windows", whole, "securityContext: {runAsUser: 1}", "securityContext.runAsUser"},
		{"windows", whole, "securityContext: {runAsGroup: 1}", "securityContext.runAsGroup"},
		{"windows", whole, "securityContext: {fsGroup: 1}", "securityContext.fsGroup"},
		{"windows", whole, "securityContext: {supplementalGroups: [1]}", "securityContext.supplementalGroups"},
		{"windows", whole, "securityContext: {seccompProfile: {type: RuntimeDefault}}", "securityContext.seccompProfile"},
		{"windows", whole, "securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}", "securityContext.sysctls"},
		{"linux", whole, "securityContext: {windowsOptions: {runAsUserName: A}}", "securityContext.windowsOptions"},
		{"windows", volume, "emptyDir: {medium: Memory}", "volumes[0].emptyDir.medium"},
		{"windows", volume, "configMap: {name: a, defaultMode: 0400}", "volumes[0].configMap.defaultMode"},
		{"windows", volume, "secret: {secretName: a, items: [{key: a, path: a, mode: 0400}]}", "volumes[0].secret.items"},
		{"windows", volume, "downwardAPI: {items: [{path: a, mode: 0400, fieldRef: {fieldPath: metadata.name}}]}", "volumes[0].downwardAPI.items"},
		{"windows", volume, "projected: {sources: [{configMap: {name: a, items: [{key: a, path: a, mode: 0400}]}}]}", "volumes[0].projected.sources[0].configMap.items"},
		{"windows", volume, "hostPath: {path: /a, type: Socket}", "volumes[0].hostPath.type"},
		{"windows", volume, "hostPath: {path: /a, type: BlockDevice}", "volumes[0].hostPath.type"},
		{"windows", volume, "hostPath: {path: /a, type: CharDevice}", "volumes[0].hostPath.type"},
		{"linux", volume, `hostPath: {path: 'C:\a'}`, "volumes[0].hostPath.path"},
		{"windows", mount, "subPath: a", "containers[0].volumeMounts[0].subPath"},
		{"windows", mount, "subPathExpr: a", "containers[0].volumeMounts[0].subPathExpr"},
		{"windows", mount, "mountPropagation: HostToContainer", "containers[0].volumeMounts[0].mountPropagation"},
		{"windows", ctr, "securityContext: {privileged: true}", "containers[0].securityContext.privileged"},
		{"windows", ctr, "securityContext: {capabilities: {drop: [ALL]}}", "containers[0].securityContext.capabilities"},
		{"windows", ctr, "securityContext: {runAsUser: 1}", "containers[0].securityContext.runAsUser"},
		{"windows", ctr, "securityContext: {runAsGroup: 1}", "containers[0].securityContext.runAsGroup"},
		{"windows", ctr, "securityContext: {readOnlyRootFilesystem: true}", "containers[0].securityContext.readOnlyRootFilesystem"},
		{"windows", ctr, "securityContext: {allowPrivilegeEscalation: false}", "containers[0].securityContext.allowPrivilegeEscalation"},
		{"windows", ctr, "securityContext: {seccompProfile: {type: RuntimeDefault}}", "containers[0].securityContext.seccompProfile"},
		{"linux", ctr, "securityContext: {windowsOptions: {runAsUserName: A}}", "containers[0].securityContext.windowsOptions"},
	} {
		text := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  " + fmt.Sprintf(one.form, one.text)
		free, problems := decode(t, text)
		if len(problems) > 0 {
			t.Errorf("%s: without an OS it is a Problem: %v", one.text, problems)
			continue
		}
		if got := platform.Dishonoured(&free.Body.(*corev1.Pod).Spec, state.OS(one.os)); got != one.field {
			t.Errorf("%s: the scheduler keeps it off %s for %q, want %q", one.text, one.os, got, one.field)
		}
		_, problems = decode(t, text+"\n  os: {name: "+one.os+"}")
		if len(problems) != 1 || !strings.HasPrefix(problems[0].Field, "spec."+one.field) {
			t.Errorf("%s: on %s want one Problem at spec.%s, got %v", one.text, one.os, one.field, problems)
		}
	}
}
