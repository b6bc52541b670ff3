package kubeapi

import (
	"net/http"
	goruntime "runtime"
	"slices"
	"strings"

	discoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
)

// kubeMinor is the minor version of Kubernetes whose API this one follows.
const kubeMinor = "37"

// aggregatedV2 is what a client accepts that understands aggregated discovery.
// Nothing less gets it: kubectl 1.27 asks for v2beta1 and breaks on v2.
const aggregatedV2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func (a *api) version(c *call) error {
	writeJSON(c.w, http.StatusOK, version.Info{
		Major: "1", Minor: kubeMinor, GitVersion: "v1." + kubeMinor + ".0+tandem-" + a.Version,
		GoVersion: goruntime.Version(), Compiler: goruntime.Compiler, Platform: goruntime.GOOS + "/" + goruntime.GOARCH,
	})
	return nil
}

// discover answers /api and /apis.
func (a *api) discover(c *call, path string) error {
	if accepts(c.r, aggregatedV2) {
		list := discoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}}
		for _, g := range a.groups() {
			if (g == "") == (path == "api") {
				list.Items = append(list.Items, a.aggregated(g))
			}
		}
		c.w.Header().Set("Vary", "Accept")
		c.w.Header().Set("Content-Type", aggregatedV2)
		writeRaw(c.w, list)
		return nil
	}
	if path == "api" {
		writeJSON(c.w, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
		return nil
	}
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, g := range a.groups() {
		if g != "" {
			list.Groups = append(list.Groups, apiGroup(g))
		}
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}

// accepts looks for a media type among those of the Accept header, whatever
// the spaces.
func accepts(r *http.Request, media string) bool {
	for _, accept := range r.Header.Values("Accept") {
		for m := range strings.SplitSeq(accept, ",") {
			if strings.ReplaceAll(m, " ", "") == media {
				return true
			}
		}
	}
	return false
}

// groups are the API groups, the core first.
func (a *api) groups() []string {
	gs := []string{"authentication.k8s.io", "authorization.k8s.io"}
	for _, r := range a.resources {
		gs = append(gs, r.group)
	}
	slices.Sort(gs)
	return slices.Compact(gs)
}

func apiGroup(group string) metav1.APIGroup {
	v := metav1.GroupVersionForDiscovery{GroupVersion: group + "/v1", Version: "v1"}
	return metav1.APIGroup{Name: group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}
}

func (a *api) aggregated(group string) discoveryv2.APIGroupDiscovery {
	v := discoveryv2.APIVersionDiscovery{Version: "v1", Freshness: discoveryv2.DiscoveryFreshnessCurrent}
	for _, r := range a.legacy(group).APIResources {
		if name, sub, ok := strings.Cut(r.Name, "/"); ok {
			i := slices.IndexFunc(v.Resources, func(x discoveryv2.APIResourceDiscovery) bool { return x.Resource == name })
			v.Resources[i].Subresources = append(v.Resources[i].Subresources, discoveryv2.APISubresourceDiscovery{
				Subresource: sub, Verbs: r.Verbs, ResponseKind: &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind},
			})
			continue
		}
		scope := discoveryv2.ScopeCluster
		if r.Namespaced {
			scope = discoveryv2.ScopeNamespace
		}
		v.Resources = append(v.Resources, discoveryv2.APIResourceDiscovery{
			Resource: r.Name, SingularResource: r.SingularName, Scope: scope, Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
			ResponseKind: &metav1.GroupVersionKind{Group: group, Version: "v1", Kind: r.Kind},
		})
	}
	return discoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: group}, Versions: []discoveryv2.APIVersionDiscovery{v}}
}

func (a *api) discoverGroup(c *call, group string) error {
	if group == "" || !slices.Contains(a.groups(), group) {
		return notFound(c.r.URL.Path)
	}
	g := apiGroup(group)
	g.Kind, g.APIVersion = "APIGroup", "v1"
	writeJSON(c.w, http.StatusOK, g)
	return nil
}

func (a *api) discoverVersion(c *call, group, version string) error {
	if version != "v1" || !slices.Contains(a.groups(), group) {
		return notFound(c.r.URL.Path)
	}
	writeJSON(c.w, http.StatusOK, a.legacy(group))
	return nil
}

// legacy is what a group holds in the form that every client understands.
func (a *api) legacy(group string) metav1.APIResourceList {
	gv := "v1"
	if group != "" {
		gv = group + "/v1"
	}
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv, APIResources: []metav1.APIResource{}}
	create := metav1.Verbs{"create"}
	switch group {
	case "authorization.k8s.io":
		list.APIResources = append(list.APIResources,
			metav1.APIResource{Name: "selfsubjectaccessreviews", SingularName: "selfsubjectaccessreview", Kind: "SelfSubjectAccessReview", Verbs: create},
			metav1.APIResource{Name: "selfsubjectrulesreviews", SingularName: "selfsubjectrulesreview", Kind: "SelfSubjectRulesReview", Verbs: create})
	case "authentication.k8s.io":
		list.APIResources = append(list.APIResources,
			metav1.APIResource{Name: "selfsubjectreviews", SingularName: "selfsubjectreview", Kind: "SelfSubjectReview", Verbs: create})
	}
	for _, r := range a.resources {
		if r.group != group {
			continue
		}
		list.APIResources = append(list.APIResources, metav1.APIResource{
			Name: r.plural, SingularName: r.singular, Namespaced: r.namespaced, Kind: r.kind, Verbs: r.verbs, ShortNames: r.short, Categories: r.categories,
		})
		for _, s := range r.subresources {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: r.plural + "/" + s.name, Namespaced: r.namespaced, Kind: s.kind, Verbs: s.verbs, Group: s.group, Version: s.version})
		}
	}
	return list
}

// openapi answers version 3 with paths and no schemas; kubectl explain says
// then that it knows no fields. Version 2 isn't served: every client may do
// without.
func (a *api) openapi(c *call, rest []string) error {
	if rest[0] != "v3" {
		return notFound(c.r.URL.Path)
	}
	if len(rest) == 1 {
		paths := map[string]any{}
		for _, g := range a.groups() {
			p := "api/v1"
			if g != "" {
				p = "apis/" + g + "/v1"
			}
			paths[p] = map[string]string{"serverRelativeURL": "/openapi/v3/" + p + "?hash=" + a.Version}
		}
		writeJSON(c.w, http.StatusOK, map[string]any{"paths": paths})
		return nil
	}
	writeJSON(c.w, http.StatusOK, map[string]any{
		"openapi": "3.0.0", "info": map[string]string{"title": "Tandem", "version": a.Version}, "paths": map[string]any{},
		"components": map[string]any{"schemas": map[string]any{}},
	})
	return nil
}
