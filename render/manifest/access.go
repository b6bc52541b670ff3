package manifest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// accessDoc is kind Access of tandem.dev/v1 as it is written.
type accessDoc struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              accessSpec `json:"spec,omitzero"`
}

type accessSpec struct {
	Groups map[string][]string `json:"groups,omitempty"`
	Grants []accessGrant       `json:"grants,omitempty"`
}

type accessGrant struct {
	Role         string   `json:"role,omitempty"`
	To           []string `json:"to,omitempty"`
	Applications []string `json:"applications,omitempty"`
}

// Limits of an Access.
const (
	maxGroups = 256
	maxGrants = 256
	maxNames  = 1500 // people, groups and applications in all: it is one record
)

// userName is what a person may be called: as in a token or a certificate.
var userName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

// appPattern is an Application's name, in which * stands for anything.
var appPattern = regexp.MustCompile(`^[a-z0-9*]([a-z0-9*-]{0,61}[a-z0-9*])?$`)

// access decodes an Access.
func (d *Decoder) access(v *Value, ref state.Ref, place Place) (Decoded, []state.Problem) {
	var in accessDoc
	val, problems := d.read(v, &in, ref, place)
	if len(problems) > 0 {
		return Decoded{Ref: ref}, problems
	}
	out := val.access(&in)
	out.At = place(Path(nil).Key("metadata", "name"), v.Find("metadata").Find("name"))
	return Decoded{Ref: ref, Access: &out}, val.problems
}

func (c *validator) access(in *accessDoc) state.Access {
	c.name(Path(nil).Key("metadata", "name"), in.Name, nameLabel)
	spec := Path(nil).Key("spec")
	var out state.Access
	switch {
	case len(in.Spec.Groups) > maxGroups:
		c.fail(spec.Key("groups"), fmt.Sprintf("has more than %d groups", maxGroups), "make them fewer")
		return out
	case len(in.Spec.Grants) > maxGrants:
		c.fail(spec.Key("grants"), fmt.Sprintf("has more than %d grants", maxGrants), "give roles to groups")
		return out
	case len(in.Spec.Grants) == 0:
		c.missing(spec.Key("grants"), "say who has which role; without Access, each token's own role counts")
	}
	if in.Spec.names() > maxNames {
		c.fail(spec, fmt.Sprintf("names more than %d people, groups and applications", maxNames), "give roles to fewer, larger groups")
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(in.Spec.Groups)) {
		at := spec.Key("groups", name)
		c.name(at, name, nameLabel)
		g := state.AccessGroup{Name: name}
		for i, who := range in.Spec.Groups[name] {
			g.Names = append(g.Names, c.user(at.At(i, ""), who))
		}
		slices.Sort(g.Names)
		g.Names = slices.Compact(g.Names)
		out.Groups = append(out.Groups, g)
	}
	for i := range in.Spec.Grants {
		out.Grants = append(out.Grants, c.grant(spec.Key("grants").At(i, ""), &in.Spec.Grants[i], in.Spec.Groups))
	}
	return out
}

// names is how many there are in all.
func (s *accessSpec) names() int {
	n := 0
	for _, members := range s.Groups {
		n += len(members)
	}
	for i := range s.Grants {
		n += len(s.Grants[i].To) + len(s.Grants[i].Applications)
	}
	return n
}

func (c *validator) user(at Path, who string) string {
	if !userName.MatchString(who) {
		c.fail(at, fmt.Sprintf("want a user's name, got %q", clip(who)), "write up to 64 letters, digits and ._@-, as given to tandem user add")
	}
	return who
}

func (c *validator) grant(at Path, in *accessGrant, groups map[string][]string) state.AccessGrant {
	g := state.AccessGrant{Role: in.Role}
	if !slices.Contains(state.Roles(), in.Role) {
		c.fail(at.Key("role"), fmt.Sprintf("want a role, got %q", clip(in.Role)), "write one of "+strings.Join(state.Roles(), ", "))
	}
	if len(in.To) == 0 {
		c.missing(at.Key("to"), "name who has the role: group:operators, or a user")
	}
	for i, who := range in.To {
		group, is := strings.CutPrefix(who, groupPrefix)
		if !is {
			g.Names = append(g.Names, c.user(at.Key("to").At(i, ""), who))
			continue
		}
		if _, ok := groups[group]; !ok {
			c.fail(at.Key("to").At(i, ""), fmt.Sprintf("there is no group %q in spec.groups", clip(group)), "add it there, or name another one")
		}
		g.Groups = append(g.Groups, group)
	}
	slices.Sort(g.Names)
	g.Names = slices.Compact(g.Names)
	slices.Sort(g.Groups)
	g.Groups = slices.Compact(g.Groups)
	for i, app := range in.Applications {
		if !appPattern.MatchString(app) {
			c.fail(at.Key("applications").At(i, ""), fmt.Sprintf("want an Application's name, got %q", clip(app)), "write shop-prod, or shop-* for several")
		}
	}
	if len(in.Applications) > 0 && (in.Role == state.RoleViewer || in.Role == state.RoleAuditor || in.Role == state.RoleAdmin) {
		c.fail(at.Key("applications"), "the role "+in.Role+" can't be limited to applications: what runs, and the history, are read as a whole", "remove it; nobody is shown the values of Secrets")
	}
	g.Apps = slices.Clone(in.Applications)
	slices.Sort(g.Apps)
	g.Apps = slices.Compact(g.Apps)
	return g
}
