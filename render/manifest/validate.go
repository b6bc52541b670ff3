package manifest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/plan/rollout"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// maxConfigBytes is Kubernetes's limit on the data of a ConfigMap or Secret.
const maxConfigBytes = 1 << 20

// validator finds what the API server of Kubernetes would refuse
// (k8s.io/kubernetes pkg/apis/{apps,core}/validation) in a decoded object.
type validator struct {
	object   state.Ref
	place    Place
	value    *Value
	problems []state.Problem
	notes    []state.Problem // fields without an effect

	templates []string // volumes that a StatefulSet's claim templates make
	everyNode bool     // a DaemonSet's pods
}

// fail reports a field; where the field isn't written, its place is that of the
// nearest thing around it that is.
func (c *validator) fail(p Path, cause, remedy string) {
	at := p
	val, _, _, ok := c.value.Lookup(at)
	for !ok && len(at) > 0 {
		at = at[:len(at)-1]
		val, _, _, ok = c.value.Lookup(at)
	}
	c.problems = append(c.problems, state.Problem{Object: c.object, Field: p.String(), At: c.place(at, val), Cause: cause, Remedy: remedy})
}

// note says that a field which is written has no effect.
func (c *validator) note(p Path, cause, remedy string) {
	if val, _, _, ok := c.value.Lookup(p); ok && val.Kind != Null {
		c.notes = append(c.notes, state.Problem{Object: c.object, Field: p.String(), At: c.place(p, val), Cause: cause, Remedy: remedy})
	}
}

func (c *validator) missing(p Path, remedy string) { c.fail(p, "is missing", remedy) }

type nameRule int

const (
	nameSubdomain nameRule = iota + 1 // RFC 1123 subdomain, 253 characters
	nameLabel                         // RFC 1123 label, 63 characters
	nameService                       // RFC 1035 label
)

func (c *validator) name(p Path, name string, rule nameRule) {
	if name == "" {
		c.missing(p, "give it a name")
		return
	}
	var wrong []string
	switch rule {
	case nameSubdomain:
		wrong = validation.IsDNS1123Subdomain(name)
	case nameLabel:
		wrong = validation.IsDNS1123Label(name)
	case nameService:
		wrong = validation.IsDNS1035Label(name)
	}
	if len(wrong) > 0 {
		c.fail(p, fmt.Sprintf("%q is no valid name: %s", clip(name), firstClause(wrong[0])), "use lower-case letters, digits and '-', with a letter first")
	}
}

// firstClause cuts the example and the regular expression off a message of
// apimachinery.
func firstClause(s string) string {
	s, _, _ = strings.Cut(s, " (e.g.")
	return s
}

func (c *validator) body(b state.Body) {
	meta := Path(nil).Key("metadata")
	rule := nameSubdomain
	switch b.(type) {
	case *corev1.Service:
		rule = nameService
	case *corev1.Namespace:
		rule = nameLabel
	}
	c.name(meta.Key("name"), b.GetName(), rule)
	if ns := b.GetNamespace(); ns != "" {
		c.name(meta.Key("namespace"), ns, nameLabel)
	}
	c.meta(meta, b.GetLabels(), b.GetAnnotations())
	spec := Path(nil).Key("spec")
	switch o := b.(type) {
	case *appsv1.Deployment:
		c.deployment(spec, &o.Spec)
		c.osOrder(meta, o.Annotations)
	case *appsv1.StatefulSet:
		c.statefulSet(spec, &o.Spec)
		c.setWords(meta, o)
		if word := o.Annotations[lease.Annotation]; word != "" {
			if _, ok := lease.Parse(word); !ok {
				c.fail(meta.Key("annotations", lease.Annotation), fmt.Sprintf("want %s, got %q", strings.Join(lease.Words(), ", "), clip(word)), lease.Annotation+": failover")
			}
		}
	case *appsv1.DaemonSet:
		c.daemonSet(spec, &o.Spec)
		c.osOrder(meta, o.Annotations)
	case *batchv1.Job:
		c.jobName(o.Name, validation.DNS1123LabelMaxLength)
		c.job(spec, &o.Spec)
	case *policyv1.PodDisruptionBudget:
		c.disruptionBudget(spec, &o.Spec)
	case *schedulingv1.PriorityClass:
		c.priorityClass(o)
	case *batchv1.CronJob:
		c.cronJob(spec, o)
	case *corev1.Pod:
		c.barePod(o)
	case *corev1.Service:
		c.service(spec, &o.Spec)
	case *corev1.PersistentVolumeClaim:
		c.claimSpec(spec, &o.Spec)
	case *corev1.ConfigMap:
		c.configMap(o)
	case *corev1.ServiceAccount:
		c.account(o)
	case *corev1.Secret:
		c.secret(o)
	}
}

// osOrder reads the OSes that a rollout finishes one after the other.
func (c *validator) osOrder(meta Path, annotations map[string]string) {
	text, ok := annotations[rollout.OSOrder]
	if _, err := rollout.ParseOSOrder(text); ok && err != nil {
		c.fail(meta.Key("annotations", rollout.OSOrder), err.Error(), rollout.OSOrder+": linux,windows")
	}
}

func (c *validator) meta(p Path, lbls, annotations map[string]string) {
	for _, k := range sortedKeys(lbls) {
		c.labelKey(p.Key("labels", k), k)
		c.label(p.Key("labels", k), k)
		if wrong := validation.IsValidLabelValue(lbls[k]); len(wrong) > 0 {
			c.fail(p.Key("labels", k), fmt.Sprintf("%q is no valid label value: %s", clip(lbls[k]), firstClause(wrong[0])), "use up to 63 letters, digits, '-', '_' or '.'; longer text goes into an annotation")
		}
	}
	size := 0
	for _, k := range sortedKeys(annotations) {
		c.labelKey(p.Key("annotations", k), strings.ToLower(k))
		c.annotation(p.Key("annotations", k), k)
		size += len(k) + len(annotations[k])
	}
	if size > 256<<10 {
		c.fail(p.Key("annotations"), "are larger than 256 KiB", "put the text into a ConfigMap")
	}
}

func (c *validator) labelKey(p Path, k string) {
	if wrong := validation.IsQualifiedName(k); len(wrong) > 0 {
		c.fail(p, fmt.Sprintf("%q is no valid key: %s", clip(k), firstClause(wrong[0])), "write one such as app or example.com/app")
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (c *validator) notNegative(p Path, n int64) {
	if n < 0 {
		c.fail(p, fmt.Sprintf("must be 0 or more, is %d", n), fmt.Sprintf("set %s to 0 or more", p))
	}
}

func (c *validator) selector(p Path, sel *metav1.LabelSelector, template map[string]string) {
	if sel == nil || (len(sel.MatchLabels) == 0 && len(sel.MatchExpressions) == 0) {
		remedy := "add  selector: {matchLabels: {app: NAME}}, the labels of the template"
		if len(template) > 0 {
			k := sortedKeys(template)[0]
			remedy = fmt.Sprintf("add  selector: {matchLabels: {%s: %s}}, the labels of the template", k, template[k])
		}
		c.missing(p.Key("selector"), remedy)
		return
	}
	s, err := metav1.LabelSelectorAsSelector(sel)
	if err != nil {
		c.fail(p.Key("selector"), "is no valid selector: "+err.Error(), "compare it with the Kubernetes reference")
		return
	}
	if !s.Matches(labels.Set(template)) {
		c.fail(p.Key("selector"), "does not match the labels of the template, "+labels.Set(template).String(), "give spec.template.metadata.labels what the selector asks for")
	}
}

func (c *validator) deployment(p Path, s *appsv1.DeploymentSpec) {
	c.notNegative(p.Key("replicas"), int64(*s.Replicas))
	c.notNegative(p.Key("minReadySeconds"), int64(s.MinReadySeconds))
	c.notNegative(p.Key("revisionHistoryLimit"), int64(*s.RevisionHistoryLimit))
	if *s.ProgressDeadlineSeconds <= s.MinReadySeconds {
		c.fail(p.Key("progressDeadlineSeconds"), "must be more than minReadySeconds", "raise it")
	}
	c.selector(p, s.Selector, s.Template.Labels)
	st := p.Key("strategy")
	switch s.Strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.Strategy.RollingUpdate != nil {
			c.fail(st.Key("rollingUpdate"), "has no meaning with type Recreate", "remove one of them")
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		surge := c.countOrPercent(st.Key("rollingUpdate", "maxSurge"), s.Strategy.RollingUpdate.MaxSurge, false)
		gone := c.countOrPercent(st.Key("rollingUpdate", "maxUnavailable"), s.Strategy.RollingUpdate.MaxUnavailable, true)
		if surge && gone {
			c.fail(st.Key("rollingUpdate"), "maxSurge and maxUnavailable are both 0: no pod could ever be replaced", "set maxUnavailable to 1")
		}
	default:
		c.fail(st.Key("type"), fmt.Sprintf("want RollingUpdate or Recreate, got %q", clip(string(s.Strategy.Type))), "type: RollingUpdate")
	}
	c.template(p.Key("template"), &s.Template, corev1.RestartPolicyAlways)
}

// countOrPercent validates such a field and says whether it is zero.
func (c *validator) countOrPercent(p Path, v *intstr.IntOrString, max100 bool) (zero bool) {
	if v == nil {
		return false
	}
	if v.Type == intstr.Int {
		c.notNegative(p, int64(v.IntVal))
		return v.IntVal == 0
	}
	if wrong := validation.IsValidPercent(v.StrVal); len(wrong) > 0 {
		c.fail(p, fmt.Sprintf("want a number or a percentage, got %q", clip(v.StrVal)), "write one such as 1 or 25%")
		return false
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, true)
	if err == nil && max100 && n > 100 {
		c.fail(p, "is more than 100%", "write 100% or less")
	}
	return n == 0
}

func (c *validator) statefulSet(p Path, s *appsv1.StatefulSetSpec) {
	c.notNegative(p.Key("replicas"), int64(*s.Replicas))
	c.notNegative(p.Key("minReadySeconds"), int64(s.MinReadySeconds))
	c.notNegative(p.Key("revisionHistoryLimit"), int64(*s.RevisionHistoryLimit))
	if s.Ordinals != nil {
		c.notNegative(p.Key("ordinals", "start"), int64(s.Ordinals.Start))
	}
	if s.ServiceName != "" {
		c.name(p.Key("serviceName"), s.ServiceName, nameLabel)
	}
	c.selector(p, s.Selector, s.Template.Labels)
	switch s.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		c.fail(p.Key("podManagementPolicy"), fmt.Sprintf("want OrderedReady or Parallel, got %q", clip(string(s.PodManagementPolicy))), "podManagementPolicy: OrderedReady")
	}
	up := p.Key("updateStrategy")
	switch s.UpdateStrategy.Type {
	case appsv1.OnDeleteStatefulSetStrategyType:
		if s.UpdateStrategy.RollingUpdate != nil {
			c.fail(up.Key("rollingUpdate"), "has no meaning with type OnDelete", "remove one of them")
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if r := s.UpdateStrategy.RollingUpdate; r != nil {
			c.notNegative(up.Key("rollingUpdate", "partition"), int64(*r.Partition))
			if c.countOrPercent(up.Key("rollingUpdate", "maxUnavailable"), r.MaxUnavailable, true) {
				c.fail(up.Key("rollingUpdate", "maxUnavailable"), "is 0: no pod could ever be replaced", "set it to 1")
			}
		}
	case appsv1.RecreateStatefulSetStrategyType:
		if s.UpdateStrategy.RollingUpdate != nil {
			c.fail(up.Key("rollingUpdate"), "has no meaning with type Recreate", "remove one of them")
		}
	default:
		c.fail(up.Key("type"), fmt.Sprintf("want RollingUpdate, OnDelete or Recreate, got %q", clip(string(s.UpdateStrategy.Type))), "type: RollingUpdate")
	}
	c.claims(p, s)
	c.template(p.Key("template"), &s.Template, corev1.RestartPolicyAlways)
}

func (c *validator) port(p Path, n int64) {
	if n < 1 || n > 65535 {
		c.fail(p, fmt.Sprintf("must be between 1 and 65535, is %d", n), "give a port in that range")
	}
}

func (c *validator) portName(p Path, name string) {
	if wrong := validation.IsValidPortName(name); len(wrong) > 0 {
		c.fail(p, fmt.Sprintf("%q is no valid port name: %s", clip(name), wrong[0]), "use up to 15 lower-case letters, digits and '-'")
	}
}

func (c *validator) protocol(p Path, proto corev1.Protocol) {
	if proto != corev1.ProtocolTCP && proto != corev1.ProtocolUDP && proto != corev1.ProtocolSCTP {
		c.fail(p, fmt.Sprintf("want TCP, UDP or SCTP, got %q", clip(string(proto))), "protocol: TCP")
	}
}

func (c *validator) configMap(o *corev1.ConfigMap) {
	size := 0
	for _, k := range sortedKeys(o.Data) {
		c.dataKey(Path(nil).Key("data", k), k)
		size += len(o.Data[k])
		if _, both := o.BinaryData[k]; both {
			c.fail(Path(nil).Key("binaryData", k), "is under data too", "keep one of them")
		}
	}
	for _, k := range sortedKeys(o.BinaryData) {
		c.dataKey(Path(nil).Key("binaryData", k), k)
		size += len(o.BinaryData[k])
	}
	c.dataSize(size)
}

func (c *validator) secret(o *corev1.Secret) {
	if o.Type == corev1.SecretTypeServiceAccountToken {
		c.fail(Path(nil).Key("type"), "asks for a token of a ServiceAccount: there are none, since there is no Kubernetes API server inside", "remove the Secret")
	}
	c.secretKeys(o)
	size := 0
	for _, k := range sortedKeys(o.Data) {
		c.dataKey(Path(nil).Key("data", k), k)
		size += len(o.Data[k])
	}
	c.dataSize(size)
}

// secretKeys wants what the types that Kubernetes knows promise to their readers.
func (c *validator) secretKeys(o *corev1.Secret) {
	data := Path(nil).Key("data")
	needs := map[corev1.SecretType][]string{
		corev1.SecretTypeTLS: {corev1.TLSCertKey, corev1.TLSPrivateKeyKey}, corev1.SecretTypeSSHAuth: {corev1.SSHAuthPrivateKey},
		corev1.SecretTypeDockerConfigJson: {corev1.DockerConfigJsonKey}, corev1.SecretTypeDockercfg: {corev1.DockerConfigKey},
	}
	for _, key := range needs[o.Type] {
		if _, ok := o.Data[key]; !ok {
			c.missing(data.Key(key), fmt.Sprintf("add %s, which type %s has; or type: Opaque", key, o.Type))
		} else if (o.Type == corev1.SecretTypeDockerConfigJson || o.Type == corev1.SecretTypeDockercfg) && !json.Valid(o.Data[key]) {
			c.fail(data.Key(key), "is not JSON", "make it with `kubectl create secret docker-registry NAME --docker-server … --dry-run=client -o yaml`")
		}
	}
	_, user := o.Data[corev1.BasicAuthUsernameKey]
	_, password := o.Data[corev1.BasicAuthPasswordKey]
	if o.Type == corev1.SecretTypeBasicAuth && !user && !password {
		c.missing(data.Key(corev1.BasicAuthUsernameKey), fmt.Sprintf("add username or password, which type %s has; or type: Opaque", o.Type))
	}
}

// account validates a ServiceAccount.
func (c *validator) account(o *corev1.ServiceAccount) {
	for i, r := range o.ImagePullSecrets {
		if r.Name == "" {
			c.missing(Path(nil).Key("imagePullSecrets").At(i, "").Key("name"), "name the Secret")
		}
	}
}

func (c *validator) dataKey(p Path, k string) {
	if wrong := validation.IsConfigMapKey(k); len(wrong) > 0 {
		c.fail(p, "is no valid key: "+firstClause(wrong[0]), "use letters, digits, '-', '_' and '.'")
	}
}

func (c *validator) dataSize(size int) {
	if size > maxConfigBytes {
		c.fail(Path(nil).Key("data"), fmt.Sprintf("is larger than %d bytes", maxConfigBytes), "put large files into the image")
	}
}

// labelSelector validates a selector inside a pod spec.
func (c *validator) labelSelector(p Path, sel *metav1.LabelSelector) {
	for _, e := range metavalidation.ValidateLabelSelector(sel, metavalidation.LabelSelectorValidationOptions{}, field.NewPath("labelSelector")) {
		c.fail(p, e.ErrorBody(), "compare it with the Kubernetes reference")
	}
}
