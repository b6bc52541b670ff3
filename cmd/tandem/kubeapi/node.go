package kubeapi

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func (a *api) scanNodes(s *scan) {
	for _, n := range s.state.Nodes {
		k := key{"", string(n.Name)}
		uid := string(uidOf(s.state, nodeRef(n.Name), n.Joined))
		f := nodeFinger(n)
		if s.same(k, uid, f) {
			continue
		}
		s.put(k, uid, f, node(s.state, n))
	}
}

func nodeRef(name state.NodeName) state.Ref { return state.Ref{Kind: "Node", Name: string(name)} }

func nodeFinger(n *state.Node) finger {
	x := &n.Facts
	f := fingerStart.flag(x.Fences).flag(x.Unfenced).flag(x.Simulated).flag(n.Ready).flag(n.Cordoned).flag(n.Parked).str(n.PodRange).at(n.ReadyChange).str(n.BootID).
		str(x.Arch).str(x.OSVersion).str(x.Runtime).str(x.Kernel).str(x.OSImage).str(x.Agent).str(x.Address)
	for _, r := range []state.Resources{x.Capacity, x.Allocatable} {
		f = f.num(uint64(r.MilliCPU)).num(uint64(r.Memory)).num(uint64(r.Ephemeral)).num(uint64(r.Pods))
	}
	for _, l := range slices.Sorted(maps.Keys(x.Labels)) {
		f = f.str(l).str(x.Labels[l])
	}
	for _, t := range x.Taints {
		f = f.str(t.Key).str(t.Value).str(t.Effect)
	}
	for _, i := range x.Isolations {
		f = f.str(string(i))
	}
	return f
}

// node is a node as kubectl knows it.
func node(s *state.State, n *state.Node) *corev1.Node {
	x := &n.Facts
	out := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: string(n.Name), UID: uidOf(s, nodeRef(n.Name), n.Joined), CreationTimestamp: metav1.NewTime(n.Joined.Time()),
		Labels: map[string]string{}, Annotations: map[string]string{},
	}}
	maps.Copy(out.Labels, x.Labels)
	for _, l := range state.KnownLabels() {
		if v, ok := n.Label(l); ok {
			out.Labels[l] = v
		}
	}
	if x.Simulated {
		out.Annotations["tandem.dev/simulated"] = "true"
	}
	if len(x.Isolations) > 0 {
		var is []string
		for _, i := range x.Isolations {
			is = append(is, string(i))
		}
		out.Annotations["tandem.dev/isolations"] = strings.Join(is, ",")
	}
	out.Spec.Unschedulable = n.Cordoned
	out.Spec.ProviderID = "tandem://" + string(n.Name)
	if n.PodRange != "" {
		out.Spec.PodCIDR, out.Spec.PodCIDRs = n.PodRange, []string{n.PodRange}
	}
	for _, t := range x.Taints {
		out.Spec.Taints = append(out.Spec.Taints, corev1.Taint{Key: t.Key, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)})
	}
	if n.Cordoned {
		out.Spec.Taints = append(out.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	out.Status = corev1.NodeStatus{
		Capacity: quantities(x.Capacity), Allocatable: quantities(x.Allocatable),
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: string(n.Name)}},
		NodeInfo: corev1.NodeSystemInfo{
			BootID: n.BootID, KernelVersion: x.Kernel, OSImage: osImage(x), ContainerRuntimeVersion: x.Runtime, KubeletVersion: x.Agent,
			OperatingSystem: string(x.OS), Architecture: x.Arch,
		},
		Conditions: []corev1.NodeCondition{readyCondition(n)},
	}
	if x.Fences {
		out.Status.Conditions = append(out.Status.Conditions, fencedCondition(n))
	}
	if x.Address != "" {
		out.Status.Addresses = append(out.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: x.Address})
	}
	return out
}

func osImage(x *state.NodeFacts) string {
	switch {
	case x.OSImage != "":
		return x.OSImage
	case x.OSVersion != "":
		return string(x.OS) + " " + x.OSVersion
	default:
		return string(x.OS)
	}
}

func readyCondition(n *state.Node) corev1.NodeCondition {
	at := metav1.NewTime(n.ReadyChange.Time())
	c := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: at, LastHeartbeatTime: at, Reason: "AgentReady", Message: "the agent reports"}
	switch {
	case n.Ready && n.Parked:
		c.Reason, c.Message = "Parked", "the controller stopped cleanly; the agent has not reported since"
	case !n.Ready:
		c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "AgentLost", "the agent's lease lapsed"
	}
	return c
}

// conditionFenced says whether identities end in time also where the agent hangs.
const conditionFenced corev1.NodeConditionType = "tandem.dev/Fenced"

func fencedCondition(n *state.Node) corev1.NodeCondition {
	at := metav1.NewTime(n.ReadyChange.Time())
	c := corev1.NodeCondition{Type: conditionFenced, Status: corev1.ConditionTrue, LastTransitionTime: at, LastHeartbeatTime: at, Reason: "FencerRuns", Message: "the fencer ends identities in time if the agent can't"}
	if n.Facts.Unfenced {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "FencerDown", "the fencer does not run: this node takes no StatefulSet's pods but those of class wait"
	}
	return c
}

func quantities(r state.Resources) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *quantity.NewMilliQuantity(r.MilliCPU, quantity.DecimalSI),
		corev1.ResourceMemory:           *quantity.NewQuantity(r.Memory, quantity.BinarySI),
		corev1.ResourceEphemeralStorage: *quantity.NewQuantity(r.Ephemeral, quantity.BinarySI),
		corev1.ResourcePods:             *quantity.NewQuantity(r.Pods, quantity.DecimalSI),
	}
}

func nodeFields(o object) fields.Set {
	set := fields.Set{"spec.unschedulable": ""}
	if n, ok := o.(*corev1.Node); ok {
		set["spec.unschedulable"] = strconv.FormatBool(n.Spec.Unschedulable)
	}
	return set
}

func nodeColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Status", "OS", "Age", "Version", "+Internal-IP", "+OS-Image", "+Kernel-Version", "+Container-Runtime")
}

func nodeRow(o object, now time.Time) []any {
	n, ok := o.(*corev1.Node)
	if !ok {
		return nil
	}
	status := "NotReady"
	if n.Status.Conditions[0].Status == corev1.ConditionTrue {
		status = "Ready"
	}
	if n.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	if n.Annotations["tandem.dev/simulated"] != "" {
		status += ",Simulated"
	}
	address := ""
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			address = a.Address
		}
	}
	i := &n.Status.NodeInfo
	return []any{
		n.Name, status, i.OperatingSystem + "/" + i.Architecture, age(n.CreationTimestamp, now), orNone(i.KubeletVersion),
		orNone(address), i.OSImage, orNone(i.KernelVersion), orNone(i.ContainerRuntimeVersion),
	}
}
