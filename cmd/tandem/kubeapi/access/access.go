// Package access says who calls and what they may do.
//
//	request ──► [ access: Authenticate, Authorize ] ──► kubeapi ──► reconciler
//
// In: a bearer token or a client certificate, and what is asked for. Out: a
// user, and yes or a refusal in words. It refuses to know what a resource holds.
package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// ErrUnauthenticated means that a request says nobody, or nobody known.
var ErrUnauthenticated = errors.New("no valid bearer token or client certificate")

// A Role is what a user may do; each role may do what the one before it may.
type Role string

// The roles. Each but Admin may do what a viewer may, and nothing of the others'.
const (
	Viewer         Role = state.RoleViewer
	Auditor        Role = state.RoleAuditor
	ReleaseManager Role = state.RoleReleaseManager
	Operator       Role = state.RoleOperator
	Admin          Role = state.RoleAdmin
)

// Roles are all roles, the least first.
func Roles() []Role {
	var out []Role
	for _, r := range state.Roles() {
		out = append(out, Role(r))
	}
	return out
}

// GroupPrefix stands before a role where Kubernetes wants a group, and in the
// organization of a client certificate: "tandem:operator".
const GroupPrefix = "tandem:"

// A User is who calls.
type User struct {
	Name  string
	Role  Role   // that the token or certificate says
	Teams string // groups that a pipeline's approvals may name, with commas between

	// Grants are what the root in Git gives the user. Where it says who may do
	// what (Governed), Role and Teams count for nothing, but for an admin's: whoever
	// has the controller's data directory is not kept out by a commit.
	Grants   []Grant
	Governed bool
}

// A Grant is a role for some applications, or for everything.
type Grant struct {
	Role Role
	Apps []string // names and patterns; empty: all, and what belongs to none
}

// Govern gives a user what the root says of them, and nothing else.
func Govern(u User, a *state.Access, who state.Text) User {
	if a == nil {
		return u
	}
	u.Governed, u.Teams = true, strings.Join(a.GroupsOf(who), ",")
	for _, g := range a.GrantsOf(who) {
		u.Grants = append(u.Grants, Grant{Role: Role(g.Role), Apps: g.Apps})
	}
	return u
}

// grants are all that count for the user.
func (u User) grants() []Grant {
	if u.Governed && u.Role != Admin {
		return u.Grants
	}
	return append(slices.Clip(u.Grants), Grant{Role: u.Role})
}

// roles are the user's roles in words.
func (u User) roles() string {
	var out []string
	for _, g := range u.grants() {
		role := string(g.Role)
		if len(g.Apps) > 0 {
			role += " of " + strings.Join(g.Apps, " and ")
		}
		out = append(out, role)
	}
	if len(out) == 0 {
		return "no role"
	}
	return strings.Join(out, ", ")
}

// Where is what something is asked for.
type Where struct {
	App             state.AppName // that it belongs to; empty: none, or all of them
	Namespace, Name string
}

// In are the groups that a pipeline's approvals may name.
func (u User) In() []string {
	if u.Teams == "" {
		return nil
	}
	return strings.Split(u.Teams, ",")
}

// Groups are the user's groups as Kubernetes shows them.
func (u User) Groups() []string {
	var out []string
	for _, g := range u.grants() {
		if name := GroupPrefix + string(g.Role); !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return append(out, "system:authenticated")
}

// tokensFile has one line a token: role, the token's SHA-256, name, and groups
// where there are any.
const tokensFile = "tokens"

// A Store keeps the hashes of tokens in the data directory.
type Store struct {
	path string

	mu     sync.RWMutex
	tokens []token
	read   os.FileInfo // of the file that they are from; nil: there was none
}

type token struct {
	role  Role
	hash  [sha256.Size]byte
	name  string
	teams string
}

// Open reads the tokens of a data directory; there need not be any yet.
func Open(dir string) (*Store, error) {
	s := &Store{path: filepath.Join(dir, tokensFile)}
	info, err := os.Stat(s.path) // before it is read: what is written meanwhile is read again
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	raw, err := os.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	s.read = info
	for i, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		if line == "" {
			continue
		}
		t, err := parseToken(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", s.path, i+1, err)
		}
		s.tokens = append(s.tokens, t)
	}
	return s, nil
}

func parseToken(line string) (token, error) {
	f := strings.Fields(line)
	if len(f) < 3 || len(f) > 4 || !slices.Contains(Roles(), Role(f[0])) {
		return token{}, errors.New("want ROLE SHA256 NAME [GROUPS]")
	}
	raw, err := hex.DecodeString(f[1])
	if err != nil || len(raw) != sha256.Size {
		return token{}, errors.New("want 64 hexadecimal digits in the second place")
	}
	t := token{role: Role(f[0]), hash: [sha256.Size]byte(raw), name: f[2]}
	if len(f) == 4 {
		t.teams = f[3]
	}
	return t, nil
}

// Issue makes a token for a user, in place of the one that the user had. Only
// its hash is kept.
func (s *Store) Issue(u User) (string, error) {
	if !slices.Contains(Roles(), u.Role) {
		return "", fmt.Errorf("role %q: want one of %v", u.Role, Roles())
	}
	if !regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`).MatchString(u.Name) {
		return "", fmt.Errorf("user %q: want up to 64 letters, digits and ._@-", u.Name)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9._@,-]{0,512}$`).MatchString(u.Teams) {
		return "", fmt.Errorf("groups %q: want letters, digits and ._@-", u.Teams)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	clear := base64.RawURLEncoding.EncodeToString(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed() { // another process's tokens are to stay
		if err := s.reread(); err != nil {
			return "", err
		}
	}
	tokens := slices.DeleteFunc(slices.Clone(s.tokens), func(t token) bool { return t.name == u.Name })
	tokens = append(tokens, token{role: u.Role, hash: sha256.Sum256([]byte(clear)), name: u.Name, teams: u.Teams})
	return clear, s.replace(tokens)
}

// Users are those that have a token, by name.
func (s *Store) Users() ([]User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed() {
		if err := s.reread(); err != nil {
			return nil, err
		}
	}
	users := make([]User, 0, len(s.tokens))
	for _, t := range s.tokens {
		users = append(users, User{Name: t.name, Role: t.role, Teams: t.teams})
	}
	slices.SortFunc(users, func(a, b User) int { return strings.Compare(a.Name, b.Name) })
	return users, nil
}

// Revoke ends a user's token, here and in every process that has the file.
func (s *Store) Revoke(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed() {
		if err := s.reread(); err != nil {
			return err
		}
	}
	tokens := slices.DeleteFunc(slices.Clone(s.tokens), func(t token) bool { return t.name == name })
	if len(tokens) == len(s.tokens) {
		return fmt.Errorf("there is no user %s", name)
	}
	return s.replace(tokens)
}

// replace puts tokens in the place of those that were; mu is held.
func (s *Store) replace(tokens []token) error {
	if err := write(s.path, tokens); err != nil {
		return err
	}
	s.tokens = tokens // what is on the disk is read again when it is asked for next
	return nil
}

func write(path string, tokens []token) error {
	var b strings.Builder
	for _, t := range tokens {
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(fmt.Sprintf("%s %x %s %s", t.role, t.hash, t.name, t.teams)))
	}
	return replaceFile(path, []byte(b.String()))
}

// replaceFile writes a file that only its owner reads, whole or not at all.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// Token finds the user of a token. Another process may have issued it, or another
// one in its place: the file is read again where it changed.
func (s *Store) Token(clear string) (User, bool) {
	s.mu.RLock()
	stale := s.changed()
	s.mu.RUnlock()
	if stale {
		s.mu.Lock()
		_ = s.reread() // what is known stays known
		s.mu.Unlock()
	}
	return s.find(clear)
}

func (s *Store) find(clear string) (User, bool) {
	hash := sha256.Sum256([]byte(clear))
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.tokens {
		if subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 {
			return User{Name: t.name, Role: t.role, Teams: t.teams}, true
		}
	}
	return User{}, false
}

// changed says whether the file is another one than was read; mu is held.
func (s *Store) changed() bool {
	info, err := os.Stat(s.path)
	if err != nil { // what can't be looked at is as it was; what is gone has no tokens
		return errors.Is(err, os.ErrNotExist) && len(s.tokens) > 0
	}
	return s.read == nil || !os.SameFile(info, s.read) || !info.ModTime().Equal(s.read.ModTime()) || info.Size() != s.read.Size()
}

// reread takes what the file has; mu is held.
func (s *Store) reread() error {
	fresh, err := Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	s.tokens, s.read = fresh.tokens, fresh.read
	return nil
}

// Authenticate says who sent a request: by its bearer token, else by a client
// certificate that TLS verified. A certificate names its role in its
// organization; one without (an agent's) is no user.
func (s *Store) Authenticate(r *http.Request) (User, error) {
	if clear, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if u, ok := s.Token(clear); ok {
			return u, nil
		}
		return User{}, ErrUnauthenticated
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return User{}, ErrUnauthenticated
	}
	leaf := r.TLS.VerifiedChains[0][0]
	if now := time.Now(); now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return User{}, ErrUnauthenticated // it ended while the connection was open
	}
	subject := leaf.Subject
	for _, o := range subject.Organization {
		if role, ok := strings.CutPrefix(o, GroupPrefix); ok && slices.Contains(Roles(), Role(role)) && subject.CommonName != "" {
			return User{Name: subject.CommonName, Role: Role(role)}, nil
		}
	}
	return User{}, ErrUnauthenticated
}

// Authorize is the one place that says what a user may do. Verbs and resources
// are Kubernetes's ("get", "pods/log") and Tandem's own ("approve", "holds").
// What Git owns may be changed by nobody: that is refused elsewhere, with the
// file to change.
func Authorize(u User, verb, resource string, at Where) error {
	need := needed(verb, resource)
	for _, g := range u.grants() {
		// Reading isn't limited to applications: lists and the log are one.
		if covers(g.Role, need) && (need == Viewer || state.CoversApp(g.Apps, at.App)) {
			return nil
		}
	}
	what := resource
	if at.Name != "" {
		what += " " + at.Name
	}
	if at.Namespace != "" {
		what += " in namespace " + at.Namespace
	}
	role := "the role " + string(need)
	if at.App != "" && need != Viewer {
		role += " for application " + string(at.App)
	}
	if u.Governed {
		role += ", given in the Access of the root in Git"
	}
	return fmt.Errorf("%s (%s) may not %s %s: it needs %s", u.Name, u.roles(), verb, what, role)
}

// covers says whether a role may do what another one is needed for.
func covers(have, need Role) bool {
	return slices.Contains(Roles(), have) && (have == need || have == Admin || need == Viewer)
}

// needed is the least role for a verb on a resource. What isn't known needs the
// highest.
func needed(verb, resource string) Role {
	switch resource {
	case "jointokens":
		if verb == "create" || verb == "delete" {
			return Operator
		}
	case "pods/exec", "pods/attach", "pods/portforward", "pods/eviction":
		return Operator
	case "selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews":
		if verb == "create" {
			return Viewer
		}
	}
	switch verb {
	case "get", "list", "watch":
		return Viewer
	case "export":
		return Auditor
	case "promote", "rollback":
		return ReleaseManager
	}
	if resource == "pipelines" && verb != "delete" && verb != "patch" && verb != "update" {
		return ReleaseManager
	}
	switch verb {
	case "approve", "reject", "sync", "restart", "evict", "cordon", "uncordon", "drain", "suspend", "resume", "plan":
		return Operator
	case "patch", "update":
		if resource == "nodes" {
			return Operator
		}
	case "delete":
		if resource == "pods" {
			return Operator
		}
	}
	return Admin
}
