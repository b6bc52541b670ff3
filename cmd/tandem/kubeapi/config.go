package kubeapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// mustJSON encodes what is made of types of k8s.io/api.
func mustJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("%T does not marshal: %v", v, err))
	}
	return raw
}

// scanOwned shows the objects of one kind that are as they were written.
func scanOwned(s *scan, kind string, build func(o *state.Owned) object) {
	for ref, o := range s.state.Objects {
		if ref.Kind != kind {
			continue
		}
		k, uid := key{ref.Namespace, ref.Name}, string(uidOf(s.state, ref, o.Created))
		f := fingerStart.num(uint64(o.Changed)).flag(o.Kept).flag(o.Retired)
		if !s.same(k, uid, f) {
			s.put(k, uid, f, build(o))
		}
	}
}

func scanConfigMaps(s *scan) {
	scanOwned(s, "ConfigMap", func(o *state.Owned) object {
		out := &corev1.ConfigMap{ObjectMeta: meta(s.state, o)}
		if c, ok := o.Object.First().(*corev1.ConfigMap); ok {
			out.Data, out.BinaryData, out.Immutable = c.Data, c.BinaryData, c.Immutable
		}
		return out
	})
}

// redacted stands for every value of a Secret: the API shows them to nobody.
const redacted = "(redacted)"

func scanSecrets(s *scan) {
	scanOwned(s, "Secret", func(o *state.Owned) object {
		out := &corev1.Secret{ObjectMeta: meta(s.state, o), Type: corev1.SecretTypeOpaque, Data: map[string][]byte{}}
		out.Annotations["tandem.dev/redacted"] = "true"
		if c, ok := o.Object.First().(*corev1.Secret); ok {
			if c.Type != "" {
				out.Type = c.Type
			}
			out.Immutable = c.Immutable
			for k := range c.Data {
				out.Data[k] = []byte(redacted)
			}
			for k := range c.StringData {
				out.Data[k] = []byte(redacted)
			}
		}
		return out
	})
}

func secretFields(o object) fields.Set {
	set := fields.Set{"type": ""}
	if c, ok := o.(*corev1.Secret); ok {
		set["type"] = string(c.Type)
	}
	return set
}

// scanNamespaces shows every namespace that something is in: one need not be
// written to exist.
func scanNamespaces(s *scan) {
	found := map[string]*state.Owned{"default": nil}
	for ref, o := range s.state.Objects {
		if ref.Kind == "Namespace" {
			found[ref.Name] = o
		} else if _, ok := found[ref.Namespace]; !ok && ref.Namespace != "" {
			found[ref.Namespace] = nil
		}
	}
	for _, p := range s.state.ByName {
		if _, ok := found[p.Key.Namespace]; !ok {
			found[p.Key.Namespace] = nil
		}
	}
	for name, o := range found {
		f := fingerStart.flag(o == nil)
		ns := &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: uidOf(s.state, state.Ref{Kind: "Namespace", Name: name}, state.Instant{})},
			Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
		}
		if o != nil {
			f = f.num(uint64(o.Changed))
			uid := ns.UID
			ns.ObjectMeta = meta(s.state, o)
			ns.UID = uid
		}
		if k := (key{"", name}); !s.same(k, string(ns.UID), f) {
			s.put(k, string(ns.UID), f, ns)
		}
	}
}

// withAddress puts what the machine gave a Service into its specification.
func withAddress(spec *corev1.ServiceSpec, a *state.ServiceAddress) {
	spec.ClusterIPs, spec.IPFamilies = nil, nil
	switch {
	case spec.ClusterIP == corev1.ClusterIPNone:
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
		return
	case a == nil || !a.IP.IsValid():
		spec.ClusterIP = "" // asked for, but not given
		return
	}
	single := corev1.IPFamilyPolicySingleStack
	spec.ClusterIP, spec.ClusterIPs = a.IP.String(), []string{a.IP.String()}
	spec.IPFamilies, spec.IPFamilyPolicy = []corev1.IPFamily{corev1.IPv4Protocol}, &single
	for i := range spec.Ports {
		for _, np := range a.Ports {
			if np.Port == spec.Ports[i].Port && np.Protocol == string(cmp.Or(spec.Ports[i].Protocol, corev1.ProtocolTCP)) {
				spec.Ports[i].NodePort = np.Node
			}
		}
	}
}

func scanServices(s *scan) {
	scanOwned(s, "Service", func(o *state.Owned) object {
		out := &corev1.Service{ObjectMeta: meta(s.state, o)}
		if c, ok := o.Object.First().(*corev1.Service); ok {
			out.Spec = *c.Spec.DeepCopy()
		}
		if out.Spec.Type == "" {
			out.Spec.Type = corev1.ServiceTypeClusterIP
		}
		if out.Spec.SessionAffinity == "" {
			out.Spec.SessionAffinity = corev1.ServiceAffinityNone
		}
		for i := range out.Spec.Ports {
			p := &out.Spec.Ports[i]
			if p.Protocol == "" {
				p.Protocol = corev1.ProtocolTCP
			}
			if p.TargetPort.IntVal == 0 && p.TargetPort.StrVal == "" {
				p.TargetPort.IntVal = p.Port
			}
		}
		withAddress(&out.Spec, s.state.Services[o.Object.Ref])
		return out
	})
}

// scanEndpointSlices shows, for each Service with a selector, the pods that it
// selects and that have an address.
func scanEndpointSlices(s *scan) {
	byNamespace := map[string][]*state.Pod{}
	for _, p := range s.state.SortedPods() {
		if s.state.ByName[p.Key] == p && p.IP.IsValid() && !p.Ended() {
			byNamespace[p.Key.Namespace] = append(byNamespace[p.Key.Namespace], p)
		}
	}
	for ref, o := range s.state.Objects {
		svc, ok := o.Object.First().(*corev1.Service)
		if !ok || len(svc.Spec.Selector) == 0 {
			continue
		}
		selector := labels.SelectorFromSet(svc.Spec.Selector)
		f := fingerStart.num(uint64(o.Changed))
		var pods []*state.Pod
		for _, p := range byNamespace[ref.Namespace] {
			if selector.Matches(labels.Set(p.PodLabels())) {
				pods = append(pods, p)
				f = f.str(p.UID.String()).flag(p.Ready && !p.Lost).flag(p.Stopping).str(p.IP.String())
			}
		}
		sliceRef := state.Ref{Kind: "EndpointSlice", Namespace: ref.Namespace, Name: ref.Name}
		k, uid := key{ref.Namespace, ref.Name}, uidOf(s.state, sliceRef, o.Created)
		if !s.same(k, string(uid), f) {
			s.put(k, string(uid), f, endpointSlice(s.state, o, svc, pods, uid))
		}
	}
}

func endpointSlice(s *state.State, o *state.Owned, svc *corev1.Service, pods []*state.Pod, uid types.UID) *discoveryv1.EndpointSlice {
	m := meta(s, o)
	out := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: m.Name, Namespace: m.Namespace, CreationTimestamp: m.CreationTimestamp, UID: uid,
			Labels: map[string]string{discoveryv1.LabelServiceName: m.Name, discoveryv1.LabelManagedBy: "tandem.dev"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		port := targetPort(p, pods)
		out.Ports = append(out.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &protocol, Port: &port})
	}
	for _, p := range pods {
		serving, gone := p.Ready && !p.Lost, p.Stopping
		ready := serving && !gone || svc.Spec.PublishNotReadyAddresses
		node := string(p.Node)
		e := discoveryv1.Endpoint{
			Addresses:  []string{p.IP.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &gone},
			NodeName:   &node,
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Key.Namespace, Name: p.Key.Name, UID: types.UID(p.UID.String())},
		}
		if p.Ordinal >= 0 {
			e.Hostname = &p.Key.Name
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	return out
}

// targetPort is the number of a Service's port on its pods; a name is looked
// up in the first pod that has it.
func targetPort(p *corev1.ServicePort, pods []*state.Pod) int32 {
	if p.TargetPort.StrVal == "" {
		if p.TargetPort.IntVal != 0 {
			return p.TargetPort.IntVal
		}
		return p.Port
	}
	for _, pod := range pods {
		spec := &pod.Template.Spec.Spec
		all := slices.Clone(spec.Containers)
		for i := range spec.InitContainers {
			if c := &spec.InitContainers[i]; state.Sidecar(c) {
				all = append(all, *c)
			}
		}
		for i := range all {
			for _, cp := range all[i].Ports {
				if cp.Name == p.TargetPort.StrVal {
					return cp.ContainerPort
				}
			}
		}
	}
	return 0
}

func scanServiceAccounts(s *scan) {
	scanOwned(s, "ServiceAccount", func(o *state.Owned) object {
		out := &corev1.ServiceAccount{ObjectMeta: meta(s.state, o)}
		if a, ok := o.Object.First().(*corev1.ServiceAccount); ok {
			out.AutomountServiceAccountToken, out.ImagePullSecrets = a.AutomountServiceAccountToken, a.ImagePullSecrets
		}
		return out
	})
}

func serviceAccountColumns() []metav1.TableColumnDefinition { return columns("Name", "Age") }

func serviceAccountRow(o object, now time.Time) []any {
	a, ok := o.(*corev1.ServiceAccount)
	if !ok {
		return nil
	}
	return []any{a.Name, age(a.CreationTimestamp, now)}
}

func configMapColumns() []metav1.TableColumnDefinition { return columns("Name", "Data", "Age") }

func configMapRow(o object, now time.Time) []any {
	c, ok := o.(*corev1.ConfigMap)
	if !ok {
		return nil
	}
	return []any{c.Name, strconv.Itoa(len(c.Data) + len(c.BinaryData)), age(c.CreationTimestamp, now)}
}

func secretColumns() []metav1.TableColumnDefinition { return columns("Name", "Type", "Data", "Age") }

func secretRow(o object, now time.Time) []any {
	c, ok := o.(*corev1.Secret)
	if !ok {
		return nil
	}
	return []any{c.Name, string(c.Type), strconv.Itoa(len(c.Data)), age(c.CreationTimestamp, now)}
}

func namespaceColumns() []metav1.TableColumnDefinition { return columns("Name", "Status", "Age") }

func namespaceRow(o object, now time.Time) []any {
	n, ok := o.(*corev1.Namespace)
	if !ok {
		return nil
	}
	return []any{n.Name, string(n.Status.Phase), age(n.CreationTimestamp, now)}
}

func serviceColumns() []metav1.TableColumnDefinition {
	return columns("Name", "Type", "Cluster-IP", "Ports", "Age", "+Selector")
}

func serviceRow(o object, now time.Time) []any {
	v, ok := o.(*corev1.Service)
	if !ok {
		return nil
	}
	var ports []string
	for _, p := range v.Spec.Ports {
		port := strconv.Itoa(int(p.Port))
		if p.NodePort != 0 {
			port += ":" + strconv.Itoa(int(p.NodePort))
		}
		ports = append(ports, port+"/"+string(p.Protocol))
	}
	ip := v.Spec.ClusterIP
	if ip == "" {
		ip = "<pending>"
	}
	return []any{v.Name, string(v.Spec.Type), ip, orNone(strings.Join(ports, ",")), age(v.CreationTimestamp, now), orNone(labels.FormatLabels(v.Spec.Selector))}
}

func endpointSliceColumns() []metav1.TableColumnDefinition {
	return columns("Name", "AddressType", "Ports", "Endpoints", "Age")
}

func endpointSliceRow(o object, now time.Time) []any {
	e, ok := o.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil
	}
	var ports, ips []string
	for _, p := range e.Ports {
		ports = append(ports, strconv.Itoa(int(*p.Port)))
	}
	for i := range e.Endpoints {
		ips = append(ips, e.Endpoints[i].Addresses...)
	}
	if len(ips) > 3 {
		ips = append(slices.Clone(ips[:3]), fmt.Sprintf("+ %d more...", len(ips)-3))
	}
	return []any{e.Name, string(e.AddressType), orNone(strings.Join(ports, ",")), orNone(strings.Join(ips, ",")), age(e.CreationTimestamp, now)}
}
