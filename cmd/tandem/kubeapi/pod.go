package kubeapi

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// uidOf is the UID of an object that isn't a pod: derived, as all of them are.
func uidOf(s *state.State, ref state.Ref, created state.Instant) types.UID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%x/%s/%d", s.LogID[:], ref, created.Wall))
	return types.UID(state.UID(sum[:16]).String())
}

func (a *api) scanPods(s *scan) {
	for _, p := range s.state.ByName {
		k := key{p.Key.Namespace, p.Key.Name}
		uid := p.UID.String()
		f := fingerStart.num(uint64(p.Changed)).num(uint64(p.PlacedSeq)).flag(p.Stopping)
		if s.same(k, uid, f) {
			continue
		}
		s.put(k, uid, f, a.pod(s.state, p))
	}
}

// pod is a pod as kubectl knows it.
func (a *api) pod(s *state.State, p *state.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Key.Name, Namespace: p.Key.Namespace, UID: types.UID(p.UID.String()), Labels: p.PodLabels(),
			CreationTimestamp: metav1.NewTime(p.Placed.Time()), Annotations: map[string]string{},
			OwnerReferences: owners(s, p),
		},
		Spec: *podSpec(p.PodSpec()),
	}
	maps.Copy(out.Annotations, p.Template.Spec.Annotations)
	if p.Isolation != state.NoIsolation {
		out.Annotations["tandem.dev/isolation"] = string(p.Isolation)
	}
	if w := s.Workloads[p.Workload]; w != nil {
		out.Annotations["tandem.dev/application"] = string(w.App)
		if set, ok := w.StatefulSet(); ok {
			out.Spec.Hostname, out.Spec.Subdomain = p.Key.Name, set.Spec.ServiceName
		}
	}
	if p.Workload.Kind == "Job" && p.Ordinal >= 0 {
		out.Annotations[batchv1.JobCompletionIndexAnnotation] = strconv.Itoa(int(p.Ordinal))
		out.Spec.Hostname = p.Workload.Name + "-" + strconv.Itoa(int(p.Ordinal))
		if n, ok := failuresBefore(s, p); ok {
			out.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(int(n))
		}
	}
	out.Spec.NodeName = string(p.Node)
	if out.Spec.OS == nil && p.OS != state.AnyOS {
		out.Spec.OS = &corev1.PodOS{Name: corev1.OSName(p.OS)}
	}
	if p.Stopping {
		grace := int64(p.Grace() / time.Second)
		at := metav1.NewTime(p.StopAt.Time().Add(p.Grace()))
		out.DeletionTimestamp, out.DeletionGracePeriodSeconds = &at, &grace
		out.Annotations["tandem.dev/stop"] = p.StopWhy.String()
	}
	out.Status = a.podStatus(s, p)
	return out
}

// failuresBefore is how often an index of a Job with backoffLimitPerIndex had failed
// when this pod of it began.
func failuresBefore(s *state.State, p *state.Pod) (n int32, ok bool) {
	w := s.Workloads[p.Workload]
	if w == nil || w.Job == nil {
		return 0, false
	}
	if j, is := w.BatchJob(); !is || j.Spec.BackoffLimitPerIndex == nil {
		return 0, false
	}
	n = w.Job.Failures(p.Ordinal).Failures
	for _, o := range w.Pods {
		// Those that failed since, this one included.
		if o.Ordinal == p.Ordinal && o.PlacedSeq >= p.PlacedSeq && o.Counted && o.Phase == state.Failed {
			n--
		}
	}
	return max(n, 0), true
}

// owners names what keeps the pod: the ReplicaSet of its template, or its StatefulSet.
func owners(s *state.State, p *state.Pod) []metav1.OwnerReference {
	w := s.Workloads[p.Workload]
	if w == nil {
		return nil
	}
	yes := true
	ref, created := p.Workload, w.Created
	version := "apps/v1"
	switch ref.Kind {
	case "Pod":
		return nil // nothing keeps it but the text
	case "Job":
		version = "batch/v1"
	}
	if ref.Kind == "Deployment" {
		ref = replicaSetRef(w, p.Template)
		created = state.Instant{}
	}
	return []metav1.OwnerReference{{APIVersion: version, Kind: ref.Kind, Name: ref.Name, UID: uidOf(s, ref, created), Controller: &yes, BlockOwnerDeletion: &yes}}
}

// podSpec fills in what Kubernetes's API server would have: clients rely on it.
func podSpec(in *corev1.PodSpec) *corev1.PodSpec {
	out := in.DeepCopy()
	if out.RestartPolicy == "" {
		out.RestartPolicy = corev1.RestartPolicyAlways
	}
	if out.DNSPolicy == "" {
		out.DNSPolicy = corev1.DNSClusterFirst
	}
	if out.SecurityContext == nil {
		out.SecurityContext = &corev1.PodSecurityContext{}
	}
	if out.SchedulerName == "" {
		out.SchedulerName = "tandem"
	}
	if out.TerminationGracePeriodSeconds == nil {
		grace := int64(state.TerminationGrace(in) / time.Second)
		out.TerminationGracePeriodSeconds = &grace
	}
	for _, cs := range [][]corev1.Container{out.InitContainers, out.Containers} {
		for i := range cs {
			defaultContainer(&cs[i])
		}
	}
	return out
}

func defaultContainer(c *corev1.Container) {
	if c.TerminationMessagePath == "" {
		c.TerminationMessagePath = corev1.TerminationMessagePathDefault
	}
	if c.TerminationMessagePolicy == "" {
		c.TerminationMessagePolicy = corev1.TerminationMessageReadFile
	}
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = corev1.PullIfNotPresent
	}
	for i := range c.Ports {
		if c.Ports[i].Protocol == "" {
			c.Ports[i].Protocol = corev1.ProtocolTCP
		}
	}
}

func (a *api) podStatus(s *state.State, p *state.Pod) corev1.PodStatus {
	st := corev1.PodStatus{Phase: corev1.PodPhase(p.Phase.String()), QOSClass: qos(&p.Template.Spec.Spec)}
	start := metav1.NewTime(p.Placed.Time())
	st.StartTime = &start
	if p.Lost {
		st.Reason, st.Message = p.Reason.String(), "node "+string(p.Node)+" does not report; the pod may still run there"
	} else if !p.Detail.IsZero() {
		st.Message = a.Controller.Words(p.Detail)
	}
	if p.Phase == state.Failed && st.Reason == "" {
		st.Reason = p.Reason.String()
	}
	if p.IP.IsValid() {
		st.PodIP, st.PodIPs = p.IP.String(), []corev1.PodIP{{IP: p.IP.String()}}
	}
	if n := s.Nodes[p.Node]; n != nil && n.Facts.Address != "" {
		st.HostIP, st.HostIPs = n.Facts.Address, []corev1.HostIP{{IP: n.Facts.Address}}
	}
	condition := func(t corev1.PodConditionType, yes bool, since state.Instant, reason string) {
		c := corev1.PodCondition{Type: t, Status: truth(yes), LastTransitionTime: metav1.NewTime(since.Time())}
		if !yes {
			c.Reason = reason
		}
		st.Conditions = append(st.Conditions, c)
	}
	ready, since := p.Ready && !p.Lost, p.Placed // of one that is lost nobody knows
	if ready {
		since = p.ReadySince
	}
	condition(corev1.PodScheduled, true, p.Placed, "")
	condition(corev1.PodInitialized, initialized(p), p.Placed, "ContainersNotInitialized")
	condition(corev1.ContainersReady, ready, since, "ContainersNotReady")
	condition(corev1.PodReady, ready, since, "ContainersNotReady")
	st.ContainerStatuses = a.containers(p, p.Template.Spec.Spec.Containers, false)
	st.InitContainerStatuses = a.containers(p, p.Template.Spec.Spec.InitContainers, true)
	return st
}

// initialized says whether what begins before the others has done so.
func initialized(p *state.Pod) bool {
	begun := map[string]bool{}
	for i := range p.Containers {
		c := &p.Containers[i]
		begun[c.Name] = c.State == state.ContainerTerminated && c.ExitCode == 0 || c.State == state.ContainerRunning && c.Started
		if !c.Init && (c.State == state.ContainerRunning || c.LastEnd != 0) {
			return true // an agent may know no more of init containers once the others run
		}
	}
	for i := range p.Template.Spec.Spec.InitContainers {
		if !begun[p.Template.Spec.Spec.InitContainers[i].Name] {
			return false
		}
	}
	return p.Reported
}

func truth(yes bool) corev1.ConditionStatus {
	if yes {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// qos is Kubernetes's rule: guaranteed where every container's limits equal its
// requests for both resources, best effort where nobody asks for anything.
func qos(spec *corev1.PodSpec) corev1.PodQOSClass {
	guaranteed, any := true, false
	for _, cs := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range cs {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, hasLimit := cs[i].Resources.Limits[name]
				request, hasRequest := cs[i].Resources.Requests[name]
				any = any || hasLimit || hasRequest
				if !hasLimit || hasRequest && request.Cmp(limit) != 0 {
					guaranteed = false
				}
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	default:
		return corev1.PodQOSBurstable
	}
}

// containers are the statuses of the spec's containers: one that no agent has
// spoken of waits.
func (a *api) containers(p *state.Pod, specs []corev1.Container, init bool) []corev1.ContainerStatus {
	out := make([]corev1.ContainerStatus, 0, len(specs))
	for i := range specs {
		c := corev1.ContainerStatus{Name: specs[i].Name, Image: specs[i].Image, State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: waitingReason(p)},
		}}
		for j := range p.Containers {
			if p.Containers[j].Name == specs[i].Name && p.Containers[j].Init == init {
				a.fillContainer(&c, p, &p.Containers[j])
			}
		}
		out = append(out, c)
	}
	return out
}

func waitingReason(p *state.Pod) string {
	if p.Reason == state.ReasonNone {
		return state.ReasonContainerCreating.String()
	}
	return p.Reason.String()
}

func (a *api) fillContainer(c *corev1.ContainerStatus, p *state.Pod, from *state.ContainerStatus) {
	started := from.Started
	c.Ready, c.Started, c.RestartCount = from.Ready && !p.Lost, &started, from.Restarts
	if !from.Image.IsZero() {
		c.ImageID = c.Image + "@" + from.Image.String()
	}
	c.ContainerID = "tandem://" + p.UID.String() + "/" + from.Name + "/" + strconv.Itoa(int(from.Restarts))
	c.State = corev1.ContainerState{}
	at := func(wall int64) metav1.Time {
		if wall == 0 {
			return metav1.Time{}
		}
		return metav1.NewTime(time.Unix(0, wall).UTC())
	}
	since := at(from.Since)
	said := ""
	if !from.LastSaid.IsZero() {
		said = a.Controller.Words(from.LastSaid)
	}
	switch from.State {
	case state.ContainerRunning:
		c.State.Running = &corev1.ContainerStateRunning{StartedAt: since}
	case state.ContainerTerminated:
		c.State.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: from.ExitCode, Reason: ended(from.Reason, from.ExitCode), Message: said, StartedAt: at(from.LastFrom), FinishedAt: since, ContainerID: c.ContainerID,
		}
	case state.ContainerWaiting:
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: from.Reason.String()}
	default:
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: waitingReason(p)}
	}
	if from.LastEnd != 0 && c.State.Terminated == nil {
		c.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: from.LastExit, Reason: ended(from.LastWhy, from.LastExit), Message: said, StartedAt: at(from.LastFrom), FinishedAt: at(from.LastEnd),
		}
	}
}

func ended(why state.PodReason, exit int32) string {
	switch {
	case why != state.ReasonNone:
		return why.String()
	case exit == 0:
		return state.ReasonCompleted.String()
	default:
		return state.ReasonError.String()
	}
}

// podFields are what pods can be selected by, as in Kubernetes.
func podFields(o object) fields.Set {
	set := fields.Set{"spec.nodeName": "", "status.phase": "", "status.podIP": "", "spec.restartPolicy": "", "spec.schedulerName": "", "spec.serviceAccountName": "", "spec.hostNetwork": ""}
	if p, ok := o.(*corev1.Pod); ok {
		set["spec.nodeName"], set["status.phase"], set["status.podIP"] = p.Spec.NodeName, string(p.Status.Phase), p.Status.PodIP
		set["spec.restartPolicy"], set["spec.schedulerName"], set["spec.serviceAccountName"] = string(p.Spec.RestartPolicy), p.Spec.SchedulerName, p.Spec.ServiceAccountName
		set["spec.hostNetwork"] = strconv.FormatBool(p.Spec.HostNetwork)
	}
	return set
}

func podColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Ready", "Status", "Restarts", "Age", "+IP", "+Node", "+OS")
}

func podRow(o object, now time.Time) []any {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	v := viewPod(p)
	os := "<none>"
	if p.Spec.OS != nil {
		os = string(p.Spec.OS.Name)
	}
	return []any{
		p.Name, fmt.Sprintf("%d/%d", v.ready, v.all), v.word, strconv.Itoa(v.restarts), age(p.CreationTimestamp, now),
		orNone(p.Status.PodIP), orNone(p.Spec.NodeName), os,
	}
}

// columns makes definitions of names; a + before one shows it with -o wide only.
func columns(names ...string) []metav1.TableColumnDefinition {
	var cols []metav1.TableColumnDefinition
	for _, n := range names {
		c := metav1.TableColumnDefinition{Name: n, Type: "string"}
		if n[0] == '+' {
			c.Name, c.Priority = n[1:], 1
		}
		if n == "Name" {
			c.Format = "name"
		}
		cols = append(cols, c)
	}
	return cols
}

func age(since metav1.Time, now time.Time) string {
	if since.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(since.Time))
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
