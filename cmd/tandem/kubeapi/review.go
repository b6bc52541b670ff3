package kubeapi

import (
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
)

func schemaNone() schema.GroupResource { return schema.GroupResource{} }

func schemaOf(t target) schema.GroupResource {
	return schema.GroupResource{Group: t.resource.group, Resource: t.resource.plural}
}

// review answers what a user asks about themselves: kubectl auth can-i, whoami.
func (a *api) review(c *call, group string, rest []string) error {
	if c.r.Method != http.MethodPost || len(rest) != 1 {
		return notFound(c.r.URL.Path)
	}
	switch group + "/" + rest[0] {
	case "authorization.k8s.io/selfsubjectaccessreviews":
		return a.accessReview(c)
	case "authorization.k8s.io/selfsubjectrulesreviews":
		return a.rulesReview(c)
	case "authentication.k8s.io/selfsubjectreviews":
		var v authenticationv1.SelfSubjectReview
		if err := a.decode(c, &v); err != nil {
			return err
		}
		v.TypeMeta = metav1.TypeMeta{Kind: "SelfSubjectReview", APIVersion: "authentication.k8s.io/v1"}
		v.Status.UserInfo = authenticationv1.UserInfo{Username: c.user.Name, Groups: c.user.Groups()}
		writeJSON(c.w, http.StatusCreated, v)
		return nil
	}
	return notFound(c.r.URL.Path)
}

func (a *api) accessReview(c *call) error {
	var v authorizationv1.SelfSubjectAccessReview
	if err := a.decode(c, &v); err != nil {
		return err
	}
	v.TypeMeta = metav1.TypeMeta{Kind: "SelfSubjectAccessReview", APIVersion: "authorization.k8s.io/v1"}
	x := v.Spec.ResourceAttributes
	switch x {
	case nil:
		v.Status.Allowed = v.Spec.NonResourceAttributes != nil && v.Spec.NonResourceAttributes.Verb == "get"
	default:
		what := x.Resource
		if x.Subresource != "" {
			what += "/" + x.Subresource
		}
		err := access.Authorize(c.user, x.Verb, what, a.reviewed(x))
		v.Status.Allowed = err == nil
		if err != nil {
			v.Status.Reason = err.Error()
		} else if r := a.find(x.Group, "v1", x.Resource); !isRead(x.Verb) && (r == nil || !r.acts[what+" "+x.Verb] && !streams(x.Subresource)) {
			v.Status.Allowed, v.Status.Denied = false, true
			v.Status.Reason = "what Git owns is changed in Git"
		}
	}
	writeJSON(c.w, http.StatusCreated, v)
	return nil
}

// reviewed is where a question about a resource is about.
func (a *api) reviewed(x *authorizationv1.ResourceAttributes) access.Where {
	if r := a.find(x.Group, "v1", x.Resource); r != nil {
		return a.where(target{resource: r, namespace: x.Namespace, name: x.Name})
	}
	return access.Where{Namespace: x.Namespace, Name: x.Name}
}

func (a *api) rulesReview(c *call) error {
	var v authorizationv1.SelfSubjectRulesReview
	if err := a.decode(c, &v); err != nil {
		return err
	}
	v.TypeMeta = metav1.TypeMeta{Kind: "SelfSubjectRulesReview", APIVersion: "authorization.k8s.io/v1"}
	for _, r := range a.resources {
		verbs := readVerbs()
		for _, verb := range []string{"patch", "delete"} {
			if r.acts[r.plural+" "+verb] && access.Authorize(c.user, verb, r.plural, access.Where{}) == nil {
				verbs = append(verbs, verb)
			}
		}
		v.Status.ResourceRules = append(v.Status.ResourceRules, authorizationv1.ResourceRule{Verbs: verbs, APIGroups: []string{r.group}, Resources: []string{r.plural}})
		for _, s := range r.subresources {
			if access.Authorize(c.user, s.verbs[0], r.plural+"/"+s.name, access.Where{}) == nil {
				v.Status.ResourceRules = append(v.Status.ResourceRules, authorizationv1.ResourceRule{Verbs: s.verbs, APIGroups: []string{r.group}, Resources: []string{r.plural + "/" + s.name}})
			}
		}
	}
	v.Status.NonResourceRules = []authorizationv1.NonResourceRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"*"}}}
	writeJSON(c.w, http.StatusCreated, v)
	return nil
}
