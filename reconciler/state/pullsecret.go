package state

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// AccountKind is the kind that has pull Secrets for pods that name none.
const AccountKind = "ServiceAccount"

// pullSecrets are the names in a list of references, in its order.
func pullSecrets(refs []corev1.LocalObjectReference) []string {
	var names []string
	for _, r := range refs {
		if r.Name != "" {
			names = append(names, r.Name)
		}
	}
	return names
}

// pullAccount is the ServiceAccount that a pod's pull Secrets come from. As
// Kubernetes's admission has it, one that names some itself takes none of its
// account's; unlike there, the account is read at each pull, so that what it
// says later counts for pods that run already.
func pullAccount(spec *corev1.PodSpec) string {
	switch {
	case len(pullSecrets(spec.ImagePullSecrets)) > 0:
		return ""
	case spec.ServiceAccountName != "":
		return spec.ServiceAccountName
	default:
		return "default"
	}
}

// AccountSecrets are the pull Secrets that a ServiceAccount names for an OS, in
// its order; AnyOS: for all of them.
func AccountSecrets(o *Object, os OS) []string {
	if o == nil {
		return nil
	}
	var names []string
	for i := range o.Variants {
		v := &o.Variants[i]
		account, ok := v.Body.(*corev1.ServiceAccount)
		if !ok || os != AnyOS && v.OS != AnyOS && v.OS != os {
			continue
		}
		for _, name := range pullSecrets(account.ImagePullSecrets) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// PullSecrets are the names of the Secrets with the credentials for a pod's
// images, in the order in which they are tried. find gives the ServiceAccount of
// a name.
func PullSecrets(spec *corev1.PodSpec, find func(account string) *Object) []string {
	if account := pullAccount(spec); account != "" {
		return AccountSecrets(find(account), AnyOS)
	}
	return pullSecrets(spec.ImagePullSecrets)
}

// PullSecrets are the names of the Secrets with the credentials for the pod's
// images, in the order in which they are tried.
func (p *AssignedPod) PullSecrets() []string {
	switch {
	case p.Template.Account == "":
		return pullSecrets(p.Template.Spec.Spec.ImagePullSecrets)
	case p.Given == "":
		return nil
	default:
		return strings.Split(p.Given, ",")
	}
}

// account finds a ServiceAccount; nil: there is none.
func (s *State) account(namespace, name string) *Object {
	if o := s.Objects[Ref{Kind: AccountKind, Namespace: namespace, Name: name}]; o != nil {
		return o.Object
	}
	return nil
}

// Uses says whether pods of a template in a namespace need an object: a
// ConfigMap or Secret that it names, its ServiceAccount, or a Secret of that.
func (s *State) Uses(namespace string, t *Template, config Ref) bool {
	if namespace != config.Namespace {
		return false
	}
	return t.names(config) ||
		config.Kind == "Secret" && t.Account != "" && slices.Contains(AccountSecrets(s.account(namespace, t.Account), AnyOS), config.Name)
}

// ImageSecrets are the pull Secrets of an application's workloads that name an
// image: by workload, and within one in their order.
func (s *State) ImageSecrets(app AppName, image string) []*Object {
	users := slices.DeleteFunc(slices.Clone(s.Inventory(app).Workloads), func(w *Workload) bool { return w.Deleting })
	slices.SortFunc(users, func(a, b *Workload) int { return a.Ref.Compare(b.Ref) })
	var out []*Object
	for _, w := range users {
		for _, v := range w.Variants {
			if !slices.Contains(ImageNames(&v.Spec.Spec), image) {
				continue
			}
			for _, name := range PullSecrets(&v.Spec.Spec, func(name string) *Object { return s.account(w.Ref.Namespace, name) }) {
				o := s.Objects[Ref{Kind: "Secret", Namespace: w.Ref.Namespace, Name: name}]
				if o != nil && !slices.Contains(out, o.Object) {
					out = append(out, o.Object)
				}
			}
		}
	}
	return out
}
