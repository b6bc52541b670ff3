package access

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func TestAuthorizeTable(t *testing.T) {
	reads := []string{"get", "list", "watch"}
	resources := []string{
		"nodes", "pods", "pods/log", "deployments", "statefulsets", "replicasets", "controllerrevisions", "services",
		"endpointslices", "configmaps", "secrets", "namespaces", "events", "applications", "holds", "history",
	}
	type row struct {
		verb, resource string
		need           Role
	}
	var rows []row
	for _, r := range resources {
		for _, v := range reads {
			rows = append(rows, row{v, r, Viewer})
		}
		for _, v := range []string{"create", "update", "patch", "delete", "deletecollection"} {
			need := Admin
			if r == "nodes" && (v == "patch" || v == "update") || r == "pods" && v == "delete" {
				need = Operator
			}
			rows = append(rows, row{v, r, need})
		}
	}
	for _, v := range []string{"get", "create"} {
		for _, r := range []string{"pods/exec", "pods/attach", "pods/portforward", "pods/eviction"} {
			rows = append(rows, row{v, r, Operator})
		}
	}
	for _, v := range []string{"approve", "reject", "sync", "restart", "evict", "cordon", "uncordon", "drain", "suspend", "resume", "plan"} {
		rows = append(rows, row{v, "applications", Operator})
	}
	rows = append(rows,
		row{"down", "applications", Admin}, row{"remove node", "nodes", Admin}, row{"anything", "unknown", Admin},
		row{"create", "selfsubjectaccessreviews", Viewer},
	)
	rank := map[Role]int{Viewer: 0, Auditor: 0, ReleaseManager: 0, Operator: 1, Admin: 2}
	for _, r := range rows {
		for _, role := range Roles() {
			err := Authorize(User{Name: "eva", Role: role}, r.verb, r.resource, Where{Namespace: "prod", Name: "web"})
			if allowed := rank[role] >= rank[r.need]; allowed != (err == nil) {
				t.Errorf("%s %s as %s: allowed %v, want %v", r.verb, r.resource, role, err == nil, allowed)
			}
		}
		if Authorize(User{Name: "nobody"}, r.verb, r.resource, Where{}) == nil {
			t.Errorf("%s %s: allowed without a role", r.verb, r.resource)
		}
	}
	err := Authorize(User{Name: "eva", Role: Viewer}, "delete", "pods", Where{Namespace: "prod", Name: "web-1"})
	if want := "eva (viewer) may not delete pods web-1 in namespace prod: it needs the role operator"; err == nil || err.Error() != want {
		t.Errorf("refusal %v, want %s", err, want)
	}
}

func TestTokensAreKeptHashed(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := s.Issue(User{Name: "eva", Role: Operator})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, tokensFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), clear) {
		t.Error("the token is kept in clear")
	}
	s, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if _, err := s.Authenticate(r); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("no token: %v", err)
	}
	r.Header.Set("Authorization", "Bearer "+clear)
	if u, err := s.Authenticate(r); err != nil || !reflect.DeepEqual(u, User{Name: "eva", Role: Operator}) {
		t.Errorf("token of eva: %v, %v", u, err)
	}
	r.Header.Set("Authorization", "Bearer "+clear+"x")
	if _, err := s.Authenticate(r); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("wrong token: %v", err)
	}
	if _, err := s.Issue(User{Name: "eva", Role: Viewer}); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Token(clear); ok {
		t.Error("the replaced token is still good")
	}
	if _, err := s.Issue(User{Name: "a b", Role: Viewer}); err == nil {
		t.Error("a name with a space was taken")
	}
}

func TestClientCertificates(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		organization string
		want         Role
	}{{"tandem:viewer", Viewer}, {"tandem:admin", Admin}, {"tandem:nodes", ""}, {"system:masters", ""}} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		cert := &x509.Certificate{
			Subject: pkix.Name{CommonName: "sam", Organization: []string{c.organization}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		if _, err := s.Authenticate(r); err == nil {
			t.Errorf("%s: an unverified certificate was taken", c.organization)
		}
		r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
		u, err := s.Authenticate(r)
		if (err == nil) != (c.want != "") || u.Role != c.want {
			t.Errorf("%s: %v, %v; want role %q", c.organization, u, err, c.want)
		}
		cert.NotAfter = time.Now().Add(-time.Second) // while its connection was open
		if _, err := s.Authenticate(r); err == nil {
			t.Errorf("%s: an expired certificate was taken", c.organization)
		}
	}
}

func TestKubeconfigKeepsItsToken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kubeconfig")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.WriteKubeconfig(path, "https://127.0.0.1:7443", []byte("ca"))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("kubeconfig: %v, %v: others can read it", info.Mode(), err)
	}
	again, err := s.WriteKubeconfig(path, "https://127.0.0.1:7444", []byte("ca"))
	if err != nil || again != first {
		t.Errorf("second start: token changed (%v)", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(raw), "7444") {
		t.Errorf("second start: the server's address wasn't written (%v)", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	third, err := s.WriteKubeconfig(path, "https://127.0.0.1:7444", []byte("ca"))
	if err != nil || third == first {
		t.Errorf("lost kubeconfig: token not replaced (%v)", err)
	}
	if _, ok := s.Token(first); ok {
		t.Error("lost kubeconfig: its token is still good")
	}
}

// A release manager and an operator each have what is theirs.
func TestReleaseManagers(t *testing.T) {
	for _, c := range []struct {
		verb, resource string
		roles          []Role
	}{
		{"get", "pipelines", []Role{Viewer, Auditor, ReleaseManager, Operator, Admin}},
		{"get", "history", []Role{Viewer, Auditor, ReleaseManager, Operator, Admin}},
		{"export", "history", []Role{Auditor, Admin}},
		{"promote", "pipelines", []Role{ReleaseManager, Admin}},
		{"rollback", "pipelines", []Role{ReleaseManager, Admin}},
		{"approve", "pipelines", []Role{ReleaseManager, Admin}},
		{"suspend", "pipelines", []Role{ReleaseManager, Admin}},
		{"delete", "pipelines", []Role{Admin}},
		{"approve", "holds", []Role{Operator, Admin}},
		{"cordon", "nodes", []Role{Operator, Admin}},
		{"create", "jointokens", []Role{Operator, Admin}},
		{"delete", "jointokens", []Role{Operator, Admin}},
		{"list", "jointokens", []Role{Viewer, Auditor, ReleaseManager, Operator, Admin}},
		{"get", "metrics", []Role{Viewer, Auditor, ReleaseManager, Operator, Admin}},
		{"create", "pods/exec", []Role{Operator, Admin}},
	} {
		for _, role := range Roles() {
			err := Authorize(User{Name: "x", Role: role}, c.verb, c.resource, Where{})
			if want := slices.Contains(c.roles, role); (err == nil) != want {
				t.Errorf("%s: %s %s: %v, want allowed %t", role, c.verb, c.resource, err, want)
			}
		}
	}
}

// A token that another process issues is good without a restart, with its groups.
func TestTokenOfAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	here, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	there, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := there.Issue(User{Name: "rita", Role: ReleaseManager, Teams: "release-managers,oslo"})
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := here.Token(clear); !ok || !slices.Equal(u.In(), []string{"release-managers", "oslo"}) {
		t.Errorf("rita's token: %v, %t", u, ok)
	}
	next, err := there.Issue(User{Name: "rita", Role: Viewer})
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := here.Token(clear); ok {
		t.Errorf("the token that rita had is still good: %v", u)
	}
	if u, ok := here.Token(next); !ok || u.Role != Viewer {
		t.Errorf("rita's next token: %v, %t", u, ok)
	}
	if err := there.Revoke("rita"); err != nil {
		t.Fatal(err)
	}
	if _, ok := here.Token(next); ok {
		t.Error("a token that another process ended is still good")
	}
	if err := there.Revoke("rita"); err == nil {
		t.Error("a user who isn't there was removed")
	}
}

// Who is given another token by another process is known by that one alone, from
// then on; and whoever was known stays so.
func TestAnotherTokenEndsTheFirst(t *testing.T) {
	dir := t.TempDir()
	here, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	leaked, err := here.Issue(User{Name: "rita", Role: Operator})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := here.Token(leaked); !ok {
		t.Fatal("rita isn't known")
	}
	there, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := there.Issue(User{Name: "rita", Role: Operator})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := here.Token(leaked); ok {
		t.Error("the token that was replaced is still good")
	}
	if _, ok := here.Token(fresh); !ok {
		t.Error("the new one isn't")
	}
	if _, err := here.Issue(User{Name: "otto", Role: Viewer}); err != nil {
		t.Fatal(err)
	}
	if _, err := there.Issue(User{Name: "eva", Role: Viewer}); err != nil {
		t.Fatal(err)
	}
	after, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range after.tokens {
		names = append(names, u.name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"eva", "otto", "rita"}) {
		t.Errorf("known are %v", names)
	}
}

// Where the root says who may do what, that counts, whatever the token says; but
// for an admin's token, which is made on the controller's machine.
func TestTheRootGoverns(t *testing.T) {
	who := func(name string) state.Text { return state.Text([]byte(name + strings.Repeat(" ", 16))[:16]) }
	a := &state.Access{
		Groups: []state.AccessGroup{{Name: "release", Members: []state.Text{who("rita"), who("sam")}}},
		Grants: []state.AccessGrant{
			{Role: state.RoleReleaseManager, Groups: []string{"release"}, Apps: []string{"shop-*"}},
			{Role: state.RoleOperator, Users: []state.Text{who("sam")}, Apps: []string{"shop-dev"}},
			{Role: state.RoleAuditor, Users: []state.Text{who("lee")}},
		},
	}
	for _, c := range []struct {
		user           User
		verb, resource string
		app            state.AppName
		why            string // of a refusal
	}{
		{User{Name: "rita", Role: Viewer}, "promote", "pipelines", "shop-prod", ""},
		{User{Name: "rita", Role: Viewer}, "promote", "pipelines", "pay", "rita (release-manager of shop-*) may not promote pipelines: it needs the role release-manager for application pay, given in the Access of the root in Git"},
		{User{Name: "rita", Role: Operator}, "restart", "deployments", "shop-prod", "rita (release-manager of shop-*) may not restart deployments: it needs the role operator for application shop-prod, given in the Access of the root in Git"},
		{User{Name: "sam"}, "restart", "deployments", "shop-dev", ""},
		{User{Name: "sam"}, "delete", "pods", "shop-prod", "sam (release-manager of shop-*, operator of shop-dev) may not delete pods: it needs the role operator for application shop-prod, given in the Access of the root in Git"},
		{User{Name: "sam"}, "cordon", "nodes", "", "sam (release-manager of shop-*, operator of shop-dev) may not cordon nodes: it needs the role operator, given in the Access of the root in Git"},
		{User{Name: "sam"}, "get", "secrets", "", ""},
		{User{Name: "lee"}, "export", "history", "", ""},
		{User{Name: "lee"}, "approve", "pipelines", "shop-dev", "lee (auditor) may not approve pipelines: it needs the role release-manager for application shop-dev, given in the Access of the root in Git"},
		{User{Name: "eva", Role: Operator}, "get", "pods", "", "eva (no role) may not get pods: it needs the role viewer, given in the Access of the root in Git"},
		{User{Name: "admin", Role: Admin}, "down", "applications", "", ""},
	} {
		u := Govern(c.user, a, who(c.user.Name))
		got := ""
		if err := Authorize(u, c.verb, c.resource, Where{App: c.app}); err != nil {
			got = err.Error()
		}
		if got != c.why {
			t.Errorf("%s %s %s of %q:\n got %q\nwant %q", c.user.Name, c.verb, c.resource, c.app, got, c.why)
		}
	}
	if u := Govern(User{Name: "rita", Teams: "operators"}, a, who("rita")); !slices.Equal(u.In(), []string{"release"}) {
		t.Errorf("rita is in %v", u.In())
	}
	if u := Govern(User{Name: "rita", Role: Viewer, Teams: "operators"}, nil, who("rita")); u.Governed || u.Teams != "operators" {
		t.Errorf("without an Access: %+v", u)
	}
}

// Who removes the file of the tokens ends all of them.
func TestTokensFileRemoved(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Issue(User{Name: "jane", Role: Viewer})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Token(token); !ok {
		t.Fatal("the token that was issued is not known")
	}
	if err := os.Remove(filepath.Join(dir, tokensFile)); err != nil {
		t.Fatal(err)
	}
	if u, ok := s.Token(token); ok {
		t.Errorf("%s still has a token", u.Name)
	}
	if users, err := s.Users(); err != nil || len(users) != 0 {
		t.Errorf("users %v, %v; want none", users, err)
	}
}
