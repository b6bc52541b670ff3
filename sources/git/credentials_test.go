package git_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

const credentials = `
hosts:
  git.example: {username: ada, passwordFile: token}
  Git.example:8443: {passwordEnv: TOKEN, bearer: true, caFile: /etc/ca.pem}
  "::1": {sshKeyFile: key, sshPassphraseFile: phrase}
`

// Each host gets what is written for it, and another one nothing.
func TestCredentials(t *testing.T) {
	t.Parallel()
	c, err := git.ParseCredentials([]byte(credentials), "/secrets")
	if err != nil {
		t.Fatal(err)
	}
	password := git.Auth{Username: "ada", PasswordFile: filepath.Join("/secrets", "token")}
	for url, want := range map[string]git.Auth{
		"https://git.example/shop.git":       password,
		"https://GIT.example:443/shop.git":   password,
		"git@git.example:shop.git":           password,
		"https://git.example:8443/x":         {PasswordEnv: "TOKEN", Bearer: true, CAFile: "/etc/ca.pem"},
		"ssh://git@[::1]:2222/x":             {SSHKeyFile: filepath.Join("/secrets", "key"), SSHPassphraseFile: filepath.Join("/secrets", "phrase")},
		"https://git.example.evil/shop.git":  {},
		"https://evil/git.example":           {},
		"https://git.example@evil/shop.git":  {},
		"https://sub.git.example/shop.git":   {},
		"./git.example":                      {},
		"ext::sh -c touch% /tmp/git.example": {},
	} {
		if diff := cmp.Diff(want, c.For(url)); diff != "" {
			t.Errorf("%s: %s", url, diff)
		}
	}
}

func TestCredentialsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"hosts: {git.example: {password: hunter2}}":                         "passwordFile",
		"hosts: {git.example: hunter2}":                                     "passwordFile",
		"git.example: {}":                                                   "hosts:",
		"hosts: {https://git.example/x: {}}":                                "want a host",
		"hosts: {git.example: {passwordFile: a, passwordEnv: B}}":           "keep one",
		"hosts: {git.example: {bearer: true}}":                              "token",
		"hosts: {git.example: {clientCertFile: a}}":                         "belong together",
		"hosts: {git.example: {sshPassphraseFile: a}}":                      "sshKeyFile",
		"hosts: {git.example: {username: a}}\nhosts: {other.example: {}}\n": "hosts:",
	} {
		_, err := git.ParseCredentials([]byte(text), ".")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want it to say %q and no password", text, err, want)
		}
	}
}

// A host that wants our certificate gets it; one that a redirect leads to doesn't.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1"})
	server := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{TLS: true, ClientCert: true})
	auth := git.Auth{CAFile: server.CAFile, ClientCertFile: server.CAFile, ClientKeyFile: server.CertKeyFile}
	sourcetest.Await(t, open(t, git.Options{URL: server.URL, Auth: auth}), "")
	auth.ClientCertFile, auth.ClientKeyFile = "", ""
	if _, err := open(t, git.Options{URL: server.URL, Auth: auth}).Next(t.Context(), ""); err == nil {
		t.Error("it was let in without a certificate")
	}
	auth.ClientCertFile, auth.ClientKeyFile = server.CAFile, server.CertKeyFile
	base := strings.TrimSuffix(server.URL, "/"+filepath.Base(repo.Dir))
	first := sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{Redirect: base})
	if _, err := open(t, git.Options{URL: first.URL, Auth: auth}).Next(t.Context(), ""); err == nil {
		t.Error("the certificate went along with a redirect to another host")
	}
	auth.ClientKeyFile = filepath.Join(t.TempDir(), "none")
	if _, err := open(t, git.Options{URL: server.URL, Auth: auth}).Next(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "certificate") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the key: %v", err)
	}
}
