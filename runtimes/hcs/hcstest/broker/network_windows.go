package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The network service's objects are kept as the documents that made them, with
// what the service adds.
type objectRef struct{ kind, id string }

func (b *broker) networkCalls() map[string]handler {
	calls := map[string]handler{}
	for one, many := range map[string]string{
		"Network": "Networks", "Endpoint": "Endpoints", "Namespace": "Namespaces", "LoadBalancer": "LoadBalancers", "SdnRoute": "SdnRoutes",
	} {
		calls["HcnEnumerate"+many] = func(r *request) (uint32, []any) { return b.enumerateObjects(many, r) }
		calls["HcnOpen"+one] = func(r *request) (uint32, []any) { return b.openObject(many, r) }
		calls["HcnQuery"+one] = b.queryObject
		calls["HcnModify"+one] = b.modifyObject
		calls["HcnDelete"+one] = func(r *request) (uint32, []any) { return b.deleteObject(many, r) }
		calls["HcnClose"+one] = b.closeHandle
		calls["HcnCreate"+one] = func(r *request) (uint32, []any) {
			if many == "Networks" {
				b.route(r.text(1))
			}
			return b.createObject(many, r.text(1), nil)
		}
	}
	calls["HcnCreateEndpoint"] = func(r *request) (uint32, []any) {
		b.mu.Lock()
		ref, isObject := b.handles[r.number(0)].(objectRef)
		b.mu.Unlock()
		if !isObject {
			return refuse(networkNotFound, none{})
		}
		return b.createObject("Endpoints", r.text(2), &ref)
	}
	return calls
}

func key(id string) string { return strings.ToLower(strings.Trim(id, "{}")) }

// object finds one; the caller holds mu.
func (b *broker) object(kind, id string) map[string]any { return b.kept.Objects[kind][key(id)] }

// refuse answers with the outs of a call and the service's own words last.
func refuse(hr uint32, outs ...any) (uint32, []any) {
	raw := fmt.Sprintf(`{"Success":false,"Error":"the double says so","ErrorCode":%d}`, hr)
	return hr, append(outs, raw)
}

func missingCode(kind string) uint32 {
	switch kind {
	case "Networks":
		return networkNotFound
	case "Endpoints":
		return endpointNotFound
	}
	return elementNotFound
}

func (b *broker) enumerateObjects(kind string, r *request) (uint32, []any) {
	var query struct{ Filter string }
	filter := map[string]string{}
	if r.text(0) != "" {
		if err := json.Unmarshal([]byte(r.text(0)), &query); err != nil {
			return refuse(invalidJSON, none{})
		}
	}
	if query.Filter != "" {
		if err := json.Unmarshal([]byte(query.Filter), &filter); err != nil {
			return refuse(invalidJSON, none{})
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := []string{}
	for id, o := range b.kept.Objects[kind] {
		if matches(o, filter) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	raw, err := json.Marshal(ids)
	if err != nil {
		return refuse(invalidJSON, none{})
	}
	return ok, []any{string(raw), none{}}
}

func matches(o map[string]any, filter map[string]string) bool {
	for name, want := range filter {
		switch name {
		case "VirtualNetwork":
			name = "HostComputeNetwork"
		case "VirtualNetworkName":
			return false
		}
		if have, _ := o[name].(string); !strings.EqualFold(have, want) {
			return false
		}
	}
	return true
}

func (b *broker) openObject(kind string, r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.object(kind, r.text(0)) == nil {
		return refuse(missingCode(kind), uint64(0))
	}
	return ok, []any{b.handle(objectRef{kind, key(r.text(0))}), none{}}
}

func (b *broker) queryObject(r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ref, _ := b.handles[r.number(0)].(objectRef)
	o := b.object(ref.kind, ref.id)
	if o == nil {
		return refuse(missingCode(ref.kind), none{})
	}
	raw, err := json.Marshal(o)
	if err != nil {
		return refuse(invalidJSON, none{})
	}
	return ok, []any{string(raw), none{}}
}

func (b *broker) createObject(kind, settings string, network *objectRef) (uint32, []any) {
	o := map[string]any{}
	if err := json.Unmarshal([]byte(settings), &o); err != nil {
		return refuse(invalidJSON, uint64(0))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	id := guidText(guidOf(fmt.Sprint(kind, settings, b.last, time.Now().UnixNano())))
	o["ID"] = id
	if name, _ := o["Name"].(string); kind == "Networks" && name != "" {
		for _, other := range b.kept.Objects[kind] {
			if other["Name"] == name {
				return refuse(networkExists, uint64(0))
			}
		}
	}
	if kind == "Endpoints" {
		o["HostComputeNetwork"] = network.id
		if o["IpConfigurations"] == nil {
			if hr := b.address(o, network.id); hr != ok {
				return refuse(hr, uint64(0))
			}
		}
		if b.portTaken(o) {
			return refuse(portExists, uint64(0))
		}
	}
	if kind == "LoadBalancers" && b.frontTaken(o) {
		return refuse(portExists, uint64(0))
	}
	if b.kept.Objects[kind] == nil {
		b.kept.Objects[kind] = map[string]map[string]any{}
	}
	b.kept.Objects[kind][id] = o
	b.save()
	return ok, []any{b.handle(objectRef{kind, id}), none{}}
}

// address gives an endpoint the lowest free one of its network, after the
// gateway's.
func (b *broker) address(o map[string]any, network string) uint32 {
	var n struct {
		Ipams []struct {
			Subnets []struct{ IPAddressPrefix string }
		}
	}
	raw, err := json.Marshal(b.object("Networks", network))
	if err != nil || json.Unmarshal(raw, &n) != nil || len(n.Ipams) == 0 || len(n.Ipams[0].Subnets) == 0 {
		return networkNotFound
	}
	prefix, err := netip.ParsePrefix(n.Ipams[0].Subnets[0].IPAddressPrefix)
	if err != nil {
		return badAddress
	}
	used := map[string]bool{}
	for _, e := range b.kept.Objects["Endpoints"] {
		for _, c := range e["IpConfigurations"].([]any) {
			used[c.(map[string]any)["IpAddress"].(string)] = true
		}
	}
	for a := prefix.Masked().Addr().Next().Next(); prefix.Contains(a.Next()); a = a.Next() {
		if !used[a.String()] {
			o["IpConfigurations"] = []any{map[string]any{"IpAddress": a.String(), "PrefixLength": prefix.Bits()}}
			o["MacAddress"] = fmt.Sprintf("00-15-5D-00-%02X-%02X", a.As4()[2], a.As4()[3])
			return ok
		}
	}
	return badAddress
}

// portTaken says whether another endpoint has one of the new one's host ports.
func (b *broker) portTaken(o map[string]any) bool {
	ports := func(o map[string]any) map[string]bool {
		found := map[string]bool{}
		policies, _ := o["Policies"].([]any)
		for _, p := range policies {
			if m, _ := p.(map[string]any); m["Type"] == "PortMapping" {
				s, _ := m["Settings"].(map[string]any)
				found[fmt.Sprint(s["Protocol"], s["ExternalPort"])] = true
			}
		}
		return found
	}
	wanted := ports(o)
	for _, e := range b.kept.Objects["Endpoints"] {
		for p := range ports(e) {
			if wanted[p] {
				return true
			}
		}
	}
	return false
}

// frontTaken says whether another load balancer is at one of the addresses and
// ports of the new one.
func (b *broker) frontTaken(o map[string]any) bool {
	fronts := func(o map[string]any) map[string]bool {
		found := map[string]bool{}
		vips, _ := o["FrontendVIPs"].([]any)
		if len(vips) == 0 {
			vips = []any{""}
		}
		mappings, _ := o["PortMappings"].([]any)
		for _, vip := range vips {
			for _, m := range mappings {
				m, _ := m.(map[string]any)
				found[fmt.Sprint(vip, m["Protocol"], m["ExternalPort"])] = true
			}
		}
		return found
	}
	wanted := fronts(o)
	for _, other := range b.kept.Objects["LoadBalancers"] {
		for f := range fronts(other) {
			if wanted[f] {
				return true
			}
		}
	}
	return false
}

// modifyObject adds endpoints to namespaces and takes them away; other changes
// are kept with the object.
func (b *broker) modifyObject(r *request) (uint32, []any) {
	var m struct {
		ResourceType, RequestType string
		Settings                  map[string]any
	}
	if err := json.Unmarshal([]byte(r.text(1)), &m); err != nil {
		return refuse(invalidJSON)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	ref, _ := b.handles[r.number(0)].(objectRef)
	o := b.object(ref.kind, ref.id)
	if o == nil {
		return refuse(missingCode(ref.kind))
	}
	endpoint, _ := m.Settings["EndpointId"].(string)
	if ref.kind != "Namespaces" || m.ResourceType != "Endpoint" {
		o["Modified"] = m.Settings
		b.save()
		return ok, []any{none{}}
	}
	e := b.object("Endpoints", endpoint)
	if e == nil {
		return refuse(endpointNotFound)
	}
	resources, _ := o["Resources"].([]any)
	resources = slices.DeleteFunc(resources, func(x any) bool {
		data, _ := x.(map[string]any)["Data"].(map[string]any)
		id, _ := data["Id"].(string)
		return key(id) == key(endpoint)
	})
	delete(e, "HostComputeNamespace")
	if m.RequestType == "Add" {
		resources = append(resources, map[string]any{"Type": "Endpoint", "Data": map[string]any{"Id": key(endpoint)}})
		e["HostComputeNamespace"] = ref.id
	}
	o["Resources"] = resources
	b.save()
	return ok, []any{none{}}
}

func (b *broker) deleteObject(kind string, r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := key(r.text(0))
	if b.object(kind, id) == nil {
		return refuse(missingCode(kind))
	}
	delete(b.kept.Objects[kind], id)
	b.save()
	return ok, []any{none{}}
}

// resetNetworks forgets everything, as the service does in bad moments.
func (b *broker) resetNetworks(*request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept.Objects = map[string]map[string]map[string]any{}
	b.save()
	return ok, nil
}

// reach makes addresses of networks this machine's from now on.
func (b *broker) reach(*request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept.Reached = true
	b.save()
	return ok, nil
}

// route has the test's side make the addresses of a new network this machine's;
// it creates a file when it has.
func (b *broker) route(settings string) {
	b.mu.Lock()
	reached := b.kept.Reached
	b.mu.Unlock()
	var n struct {
		Ipams []struct {
			Subnets []struct{ IPAddressPrefix string }
		}
	}
	if err := json.Unmarshal([]byte(settings), &n); err != nil || !reached || len(n.Ipams) == 0 || len(n.Ipams[0].Subnets) == 0 {
		return
	}
	prefix := n.Ipams[0].Subnets[0].IPAddressPrefix
	fmt.Println("network", prefix)
	file := filepath.Join(root, "route-"+strings.ReplaceAll(prefix, "/", "-"))
	for range 1000 {
		if _, err := os.Stat(file); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "broker: nobody made the addresses of", prefix, "this machine's")
}

// drop forgets all objects of a kind, as the service does by itself.
func (b *broker) drop(r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.kept.Objects, r.text(0))
	b.save()
	return ok, nil
}

// leak makes an object that no program asked for.
func (b *broker) leak(r *request) (uint32, []any) {
	hr, _ := b.createObject(r.text(0), r.text(1), nil)
	return hr, nil
}

// objects are all of a kind.
func (b *broker) objects(r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := []map[string]any{}
	for _, id := range slices.Sorted(maps.Keys(b.kept.Objects[r.text(0)])) {
		all = append(all, b.kept.Objects[r.text(0)][id])
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return invalidJSON, nil
	}
	return ok, []any{string(raw)}
}

// own is what a process finds itself by, in its environment, where mend.c looks:
// its pod's address, if this machine has it, and its host name.
func (b *broker) own(s *system) map[string]string {
	env := map[string]string{}
	if name := s.document.Container.GuestOs.HostName; name != "" {
		env["HCSTEST_HOSTNAME"], env["COMPUTERNAME"] = name, strings.ToUpper(name)
	}
	if !b.kept.Reached {
		return env
	}
	for id, e := range b.kept.Objects["Endpoints"] {
		namespace, _ := e["HostComputeNamespace"].(string)
		n := s.document.Container.Networking
		shared := n != nil && namespace != "" && key(namespace) == key(n.Namespace)
		if !shared && !slices.ContainsFunc(s.document.endpoints, func(e string) bool { return key(e) == id }) {
			continue
		}
		for _, c := range e["IpConfigurations"].([]any) {
			if a, err := netip.ParseAddr(c.(map[string]any)["IpAddress"].(string)); err == nil {
				env["HCSTEST_ADDRESS"] = a.String()
			}
		}
	}
	return env
}
