package git

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// Credentials are who we are to each host. They name files and environment
// variables, and hold no secret themselves.
type Credentials struct {
	hosts map[string]hostCredentials // by "git.example" or "git.example:8443"
}

// hostCredentials is an Auth as it is written.
type hostCredentials struct {
	Username          string `yaml:"username"`
	PasswordFile      string `yaml:"passwordFile"`
	PasswordEnv       string `yaml:"passwordEnv"`
	Bearer            bool   `yaml:"bearer"`
	CAFile            string `yaml:"caFile"`
	ClientCertFile    string `yaml:"clientCertFile"`
	ClientKeyFile     string `yaml:"clientKeyFile"`
	SSHKeyFile        string `yaml:"sshKeyFile"`
	SSHPassphraseFile string `yaml:"sshPassphraseFile"`
	KnownHostsFile    string `yaml:"knownHostsFile"`
	GitProtocol       bool   `yaml:"gitProtocol"`
}

// ParseCredentials reads a file of credentials. Paths in it are relative to dir.
func ParseCredentials(raw []byte, dir string) (Credentials, error) {
	var in struct {
		Hosts map[string]hostCredentials `yaml:"hosts"`
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&in); err != nil && !errors.Is(err, io.EOF) {
		// The decoder quotes what it can't read: somebody may have written a
		// password where a file's name belongs.
		return Credentials{}, errors.New("it is not as it should be: want  hosts: {git.example: {username: …, passwordFile: …}}  and no other fields than the documented ones")
	}
	out := Credentials{hosts: map[string]hostCredentials{}}
	for name, h := range in.Hosts {
		if err := h.check(name); err != nil {
			return Credentials{}, fmt.Errorf("hosts.%s: %w", name, err)
		}
		v := reflect.ValueOf(&h).Elem()
		for i := range v.NumField() {
			if file := v.Field(i); strings.HasSuffix(v.Type().Field(i).Name, "File") && file.String() != "" && !filepath.IsAbs(file.String()) {
				file.SetString(filepath.Join(dir, file.String()))
			}
		}
		out.hosts[strings.ToLower(name)] = h
	}
	return out, nil
}

func (h *hostCredentials) check(name string) error {
	switch {
	case name == "" || strings.ContainsAny(name, "/@ \t"):
		return errors.New("want a host, such as git.example or git.example:8443")
	case h.PasswordFile != "" && h.PasswordEnv != "":
		return errors.New("has a passwordFile and a passwordEnv: keep one")
	case h.Bearer && h.PasswordFile == "" && h.PasswordEnv == "":
		return errors.New("bearer without a token: add passwordFile or passwordEnv")
	case (h.ClientCertFile == "") != (h.ClientKeyFile == ""):
		return errors.New("clientCertFile and clientKeyFile belong together")
	case h.SSHPassphraseFile != "" && h.SSHKeyFile == "":
		return errors.New("sshPassphraseFile without sshKeyFile: name the key")
	default:
		return nil
	}
}

// For is who we are to the host of a URL. A host that isn't named gets nothing
// of what others get.
func (c Credentials) For(url string) Auth {
	h, _ := c.find(url)
	return Auth(h)
}

// Knows says whether there is an entry for the host of a URL.
func (c Credentials) Knows(url string) bool {
	_, ok := c.find(url)
	return ok
}

func (c Credentials) find(url string) (hostCredentials, bool) {
	a, err := parse(url)
	if err != nil || a.scheme == local {
		return hostCredentials{}, false
	}
	h, ok := c.hosts[a.endpoint()]
	if !ok {
		h, ok = c.hosts[a.hostname()]
	}
	return h, ok
}

// endpoint is the host with the port, where one is given: "git.example:8443".
func (a *address) endpoint() string {
	if a.scheme == overHTTP {
		return strings.ToLower(a.url.Host)
	}
	return strings.ToLower(a.host)
}

// hostname is the host alone; "" on this machine.
func (a *address) hostname() string {
	if a.scheme == overHTTP {
		return strings.ToLower(a.url.Hostname())
	}
	host, _, err := net.SplitHostPort(a.host)
	if err != nil {
		host = a.host
	}
	return strings.ToLower(host)
}
