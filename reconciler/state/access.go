package state

import (
	"slices"
	"strings"
)

// The roles. Each but Admin may do what a viewer may, and nothing of the others'.
const (
	RoleViewer         = "viewer"          // reads what runs and what happened; secret values are shown to nobody
	RoleAuditor        = "auditor"         // also takes the whole history away, as a bundle
	RoleReleaseManager = "release-manager" // also promotes: pipelines, approvals and rollbacks of theirs
	RoleOperator       = "operator"        // acts on what runs: nodes, pods, approvals, exec
	RoleAdmin          = "admin"           // does everything; also takes everything down and removes nodes
)

// Roles are all roles.
func Roles() []string {
	return []string{RoleViewer, RoleAuditor, RoleReleaseManager, RoleOperator, RoleAdmin}
}

// Access is what `kind: Access` of tandem.dev/v1 says: who may do what. It is
// read at the root's ref. People are tokens in it, as everywhere in the log.
type Access struct {
	Groups []AccessGroup `json:"groups,omitempty" pb:"1"` // by name
	Grants []AccessGrant `json:"grants" pb:"2"`
	At     Origin        `json:"at,omitzero" pb:"3"`
}

// AccessGroup is a group of people.
type AccessGroup struct {
	Name    string `json:"name" pb:"1"`
	Members []Text `json:"members" pb:"2"`

	// Names are Members in clear, between the text and the shell that makes
	// tokens of them; they are in no record.
	Names []string `json:"-"`
}

// AccessGrant gives people a role.
type AccessGrant struct {
	Role   string   `json:"role" pb:"1"`
	Users  []Text   `json:"users,omitempty" pb:"2"`
	Groups []string `json:"groups,omitempty" pb:"3"`
	// Apps limits it to applications, by name or by a pattern with *; none: all,
	// and what belongs to no application.
	Apps []string `json:"applications,omitempty" pb:"4"`

	// Names are Users in clear, as in AccessGroup.
	Names []string `json:"-"`
}

// AccessDeclared says who may do what from now on, in place of all that was said
// before.
type AccessDeclared struct {
	Access Access `json:"access" pb:"1"`
	Commit Commit `json:"commit,omitzero" pb:"2"` // of the root, that says so
}

// AccessRemoved says that the root no longer says who may do what: each token's
// own role counts.
type AccessRemoved struct {
	Commit Commit `json:"commit,omitzero" pb:"1"`
}

// Kind implements Fact.
func (*AccessDeclared) Kind() Kind { return KindAccessDeclared }

// Kind implements Fact.
func (*AccessRemoved) Kind() Kind { return KindAccessRemoved }

// GroupsOf are the groups that somebody is in, by name.
func (a *Access) GroupsOf(who Text) []string {
	var out []string
	if who.IsZero() {
		return nil
	}
	for i := range a.Groups {
		if slices.Contains(a.Groups[i].Members, who) {
			out = append(out, a.Groups[i].Name)
		}
	}
	return out
}

// GrantsOf are the grants that reach somebody.
func (a *Access) GrantsOf(who Text) []AccessGrant {
	groups := a.GroupsOf(who)
	var out []AccessGrant
	for _, g := range a.Grants {
		if slices.Contains(g.Users, who) || slices.ContainsFunc(g.Groups, func(name string) bool { return slices.Contains(groups, name) }) {
			out = append(out, g)
		}
	}
	return out
}

// Covers says whether a grant reaches an application; an empty name is what
// belongs to none.
func (g *AccessGrant) Covers(app AppName) bool { return CoversApp(g.Apps, app) }

// CoversApp says whether a list of names and patterns reaches an application; an
// empty list reaches all, and what belongs to none.
func CoversApp(list []string, app AppName) bool {
	if len(list) == 0 {
		return true
	}
	return app != "" && slices.ContainsFunc(list, func(p string) bool { return matches(p, string(app)) })
}

// matches compares a name with a pattern in which * stands for anything.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(name, part)
		if !found {
			return false
		}
		name = after
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
}
