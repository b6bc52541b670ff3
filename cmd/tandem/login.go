package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// A login is a server and who one is there, as it is remembered: in a file that
// its owner alone can read.
type login struct {
	Server string `json:"server"`
	CA     []byte `json:"ca,omitempty"` // PEM; empty: the system's authorities
	Token  string `json:"token,omitempty"`
	Cert   []byte `json:"cert,omitempty"` // of a client, PEM, instead of a token
	Key    []byte `json:"key,omitempty"`
}

// loginPath is where a login is remembered.
func loginPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the directory of settings: %w", err)
	}
	return filepath.Join(dir, "tandem", "login.json"), nil
}

// remembered is the login, if there is one. A file that others can read is
// refused: whoever read it is who one is.
func remembered() (*login, error) {
	path, err := loginPath()
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // no home: nobody logged in
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nobody logged in
	}
	if err != nil {
		return nil, fmt.Errorf("read the login: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (%v): its token may be known; log in again with another one: tandem logout, tandem login", path, info.Mode().Perm())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the login: %w", err)
	}
	l := &login{}
	if err := json.Unmarshal(raw, l); err != nil {
		return nil, fmt.Errorf("%s: %w; log in again: tandem logout, tandem login", path, err)
	}
	return l, nil
}

func (l *login) config() *rest.Config {
	c := &rest.Config{Host: l.Server, BearerToken: l.Token}
	c.CAData, c.CertData, c.KeyData = l.CA, l.Cert, l.Key
	return c
}

// loginFlags are those of login.
type loginFlags struct{ ca, token, cert, key string }

func (c *cli) loginCommand() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use: "login", Short: "remember a server and who you are there", Args: args(cobra.NoArgs),
		Long: `Ask a controller who a token or a client certificate stands for, and remember both in a
file that only you can read. Commands without --server, --data and TANDEM_SERVER then ask
that controller. The token is read from a file or standard input, never from the command
line. An administrator makes it with tandem user add.`,
		Example: `  tandem login --server https://tandem.example:7443 --ca ca.crt < token
  tandem login --server https://tandem.example:7443 --ca ca.crt --cert me.crt --key me.key
  tandem whoami && tandem logout`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.login(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.ca, "ca", "", "`FILE` of the controller's authority (ca.crt of its data directory); by default the system's are trusted")
	fl.StringVar(&f.token, "token-file", "-", "`FILE` with the token; -: standard input")
	fl.StringVar(&f.cert, "cert", "", "`FILE` of a client certificate, instead of a token")
	fl.StringVar(&f.key, "key", "", "`FILE` of its key")
	return cmd
}

func (c *cli) login(ctx context.Context, f *loginFlags) error {
	if c.server == "" {
		return usageError("login: give --server https://HOST:PORT")
	}
	u, err := url.Parse(c.server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return usageError("--server %s: want https://HOST:PORT", c.server)
	}
	if (f.cert == "") != (f.key == "") {
		return usageError("login: a client certificate takes both --cert and --key")
	}
	l := &login{Server: strings.TrimSuffix(c.server, "/")}
	for file, into := range map[string]*[]byte{f.ca: &l.CA, f.cert: &l.Cert, f.key: &l.Key} {
		if file == "" {
			continue
		}
		if *into, err = os.ReadFile(file); err != nil {
			return fmt.Errorf("log in: %w", err)
		}
	}
	if f.ca != "" && !x509.NewCertPool().AppendCertsFromPEM(l.CA) {
		return fmt.Errorf("--ca: %s holds no certificate", f.ca)
	}
	if f.cert == "" {
		if l.Token, err = c.readToken(f.token); err != nil {
			return err
		}
	}
	who, err := c.ask(ctx, l.config())
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	path, err := loginPath()
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(l, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = atomicfile.WriteDurable(path, append(raw, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember the login: %w", err)
	}
	_, err = fmt.Fprintf(c.out, "%s at %s\n", who, l.Server)
	return err
}

// tokenFrom reads what a file has, or what is piped in or typed without being shown.
func (c *cli) tokenFrom(file string) ([]byte, error) {
	if file != "-" {
		return os.ReadFile(file)
	}
	if stdin := int(os.Stdin.Fd()); term.IsTerminal(stdin) {
		_, _ = fmt.Fprint(c.errs, "token (it isn't shown): ")
		raw, err := term.ReadPassword(stdin)
		_, _ = fmt.Fprintln(c.errs)
		return raw, err
	}
	line, err := bufio.NewReader(io.LimitReader(os.Stdin, 4096)).ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return line, err
}

// readToken reads a token from a file, or what is typed or piped in.
func (c *cli) readToken(file string) (string, error) {
	raw, err := c.tokenFrom(file)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", usageError("login: want one token, as `tandem user add` printed it, in --token-file or on standard input")
	}
	return token, nil
}

// ask is who a controller takes the caller for.
func (c *cli) ask(ctx context.Context, config *rest.Config) (string, error) {
	tr, err := rest.TransportFor(config)
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	cl := &client{http: &http.Client{Transport: tr}, config: config}
	defer func() { _ = cl.Close() }()
	return cl.whoami(ctx)
}

// whoami is the user's name and roles.
func (c *client) whoami(ctx context.Context) (string, error) {
	var review authenticationv1.SelfSubjectReview
	review.Kind, review.APIVersion = "SelfSubjectReview", "authentication.k8s.io/v1"
	if err := c.ask(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews", nil, &review, &review); err != nil {
		return "", err
	}
	var roles []string
	for _, g := range review.Status.UserInfo.Groups {
		if role, ok := strings.CutPrefix(g, access.GroupPrefix); ok {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	if len(roles) == 0 {
		roles = []string{"no role"}
	}
	return review.Status.UserInfo.Username + " (" + strings.Join(roles, ", ") + ")", nil
}

func (c *cli) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "who the controller takes you for, and your roles", Args: args(cobra.NoArgs), Example: "  tandem whoami",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			who, err := cl.whoami(cmd.Context())
			if err := errors.Join(err, cl.Close()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s at %s\n", who, cl.config.Host)
			return err
		},
	}
}

func (c *cli) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "forget the server and the token", Args: args(cobra.NoArgs), Example: "  tandem logout",
		Long: `Forget what tandem login remembered. The token stays good: it ends when an administrator
gives you another one (tandem user add).`,
		RunE: func(*cobra.Command, []string) error {
			path, err := loginPath()
			if err == nil {
				err = os.Remove(path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return errors.New("nobody is logged in")
			}
			if err != nil {
				return fmt.Errorf("forget the login: %w", err)
			}
			_, err = fmt.Fprintln(c.out, "forgotten; the token itself stays good")
			return err
		},
	}
}
