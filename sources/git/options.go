package git

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources/refs"
)

// Options say which repository to follow, and how.
type Options struct {
	// URL is https://…, http://…, ssh://…, user@host:path, file://…, a path on this
	// machine, or git://… (Auth.GitProtocol).
	URL string
	// Ref is a branch ("main") or a full name ("refs/tags/v1"). Empty follows the
	// branch that the repository's HEAD names.
	Ref string
	// Commit is a whole commit hash to stay at, instead of a Ref.
	Commit string
	// Tag is a tag's short name ("v1.4.0"), instead of a Ref. Where the tag is
	// moved, what it names now is followed.
	Tag string
	// Semver is a range ("1.x"), instead of a Ref: the tag with the highest version
	// in it is followed.
	Semver string
	// Cache is a directory for what is fetched. Each Source owns its own; it may
	// be deleted while nothing runs. Repositories on this machine need none.
	Cache string
	// Interval is the time between two looks at a remote repository; 0 means
	// DefaultInterval.
	Interval time.Duration
	// Auth is who we are.
	Auth Auth
	// Credentials are who we are to the hosts of submodules. Submodules are read
	// from the repository's own host and from those that are named here.
	Credentials Credentials
	// Logger tells what was tried again; nil discards it.
	Logger *slog.Logger

	idle time.Duration // without a byte, a transfer is given up; 0: idleTimeout
}

// Auth says who we are to the other side, and how it proves what it is. Secrets
// are read anew for every look, so that they can be rotated. They go to the
// repository's own host alone, never along with a redirect to another.
type Auth struct {
	Username     string // "git" where empty
	PasswordFile string // a file with a password or token
	PasswordEnv  string // or the environment variable that holds it
	Bearer       bool   // send the token as a bearer token, not as a password
	CAFile       string // certificates to trust besides the system's, PEM

	ClientCertFile string // a certificate of ours, PEM; its key
	ClientKeyFile  string

	SSHKeyFile        string // empty: the agent at $SSH_AUTH_SOCK, then ~/.ssh/id_*
	SSHPassphraseFile string
	KnownHostsFile    string // empty: ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts

	// GitProtocol allows git:// to a host other than this machine. Nothing proves
	// who serves there, and whoever is in between can change what is served.
	GitProtocol bool
}

// Times and limits of following a repository.
const (
	DefaultInterval = 15 * time.Second
	MaxPack         = 1 << 30  // bytes of one fetch
	maxAdvertised   = 64 << 20 // bytes of a list of refs
	longestBackOff  = 5 * time.Minute
	dialTimeout     = 20 * time.Second
	idleTimeout     = 60 * time.Second // without a byte, a transfer is given up
	localInterval   = 10 * time.Second // refs are watched; this is for file systems that tell nothing
)

type scheme uint8

const (
	local scheme = iota + 1
	overHTTP
	overSSH
	overDaemon // git://
)

// An address is a parsed Options.URL.
type address struct {
	scheme scheme
	url    *url.URL // overHTTP
	user   string   // overSSH
	host   string   // overSSH, overDaemon; with port
	path   string   // local, overSSH, overDaemon
	text   string   // for people; holds no secret
	idle   time.Duration
}

var scpLike = regexp.MustCompile(`^(?:([A-Za-z0-9._~+-]+)@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([^:].*)$`)

// Remote says whether the text names a repository on another machine.
func Remote(text string) bool {
	a, err := parse(text)
	return err != nil && strings.Contains(text, "://") || err == nil && a.scheme != local
}

func parse(text string) (address, error) {
	switch {
	case text == "":
		return address{}, state.Problem{Cause: "the repository's address is empty", Remedy: "give a path, or a URL such as https://git.example/shop.git"}
	case strings.HasPrefix(text, "-") || strings.ContainsAny(text, "\x00\r\n"):
		return address{}, state.Problem{Cause: fmt.Sprintf("%q is no repository's address", text), Remedy: "give a path, or a URL such as https://git.example/shop.git"}
	case strings.Contains(text, "://"):
		return parseURL(text)
	case strings.Contains(text, "::"):
		return address{}, state.Problem{Cause: fmt.Sprintf("%q asks for a program to be run", text), Remedy: "use https:// or ssh://"}
	}
	if m := scpLike.FindStringSubmatch(text); m != nil && !filepath.IsAbs(text) && len(m[2]) > 1 && !strings.HasPrefix(m[2], "-") {
		host := strings.Trim(m[2], "[]")
		return address{scheme: overSSH, user: or(m[1], "git"), host: net.JoinHostPort(host, "22"), path: m[3], text: text}, nil
	}
	return address{scheme: local, path: text, text: text}, nil
}

func parseURL(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return address{}, state.Problem{Cause: "the repository's URL can't be read", Remedy: "write it as https://git.example/shop.git"} // err holds the URL, and so perhaps a password
	}
	if _, secret := u.User.Password(); secret {
		return address{}, state.Problem{Cause: "the URL of " + u.Redacted() + " holds a password, and URLs end in logs", Remedy: "leave it out and name a file or an environment variable that holds it"}
	}
	if strings.HasPrefix(u.Host, "-") {
		return address{}, state.Problem{Cause: fmt.Sprintf("%q is no host", u.Host), Remedy: "write the URL as https://git.example/shop.git"}
	}
	if strings.ContainsFunc(u.Host+u.Path+u.User.Username(), unicode.IsControl) {
		return address{}, state.Problem{Cause: fmt.Sprintf("%q holds a character that no name has", text), Remedy: "write the URL as https://git.example/shop.git"}
	}
	switch u.Scheme {
	case "file":
		return address{scheme: local, path: filepath.FromSlash(u.Path), text: text}, nil
	case "http", "https":
		if u.Host == "" {
			return address{}, state.Problem{Cause: fmt.Sprintf("%q names no host", text), Remedy: "write the URL as https://git.example/shop.git"}
		}
		return address{scheme: overHTTP, url: u, text: u.Redacted()}, nil
	case "ssh", "git+ssh", "ssh+git":
		if u.Hostname() == "" || len(u.Path) < 2 {
			return address{}, state.Problem{Cause: fmt.Sprintf("%q names no host and path", text), Remedy: "write the URL as ssh://git@git.example/shop.git"}
		}
		path := u.Path
		if strings.HasPrefix(path, "/~") {
			path = path[1:]
		}
		return address{scheme: overSSH, user: or(u.User.Username(), "git"), host: net.JoinHostPort(u.Hostname(), or(u.Port(), "22")), path: path, text: text}, nil
	case "git":
		if u.Hostname() == "" || len(u.Path) < 2 || u.User != nil {
			return address{}, state.Problem{Cause: fmt.Sprintf("%q is no host and path alone", text), Remedy: "write the URL as git://git.example/shop.git"}
		}
		return address{scheme: overDaemon, host: net.JoinHostPort(u.Hostname(), or(u.Port(), "9418")), path: u.Path, text: text}, nil
	default:
		return address{}, state.Problem{Cause: fmt.Sprintf("repositories are not read over %s://", u.Scheme), Remedy: "use https://, ssh:// or a path"}
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// check refuses what can't be followed, before anything is tried.
func (o *Options) check(a address) error {
	var given []string
	for _, what := range [][2]string{{"a ref", o.Ref}, {"a tag", o.Tag}, {"a range of versions", o.Semver}, {"a commit", o.Commit}} {
		if what[1] != "" {
			given = append(given, fmt.Sprintf("%s (%s)", what[0], what[1]))
		}
	}
	if len(given) > 1 {
		return state.Problem{Cause: strings.Join(given, " and ") + " are given", Remedy: "give the one that is to be followed"}
	}
	if o.Tag != "" {
		if err := refs.CheckTag(o.Tag); err != nil {
			return err
		}
	}
	if o.Semver != "" {
		if err := refs.CheckRange(o.Semver); err != nil {
			return err
		}
	}
	if o.Commit != "" {
		if !plumbing.IsHash(o.Commit) || len(o.Commit) != 40 {
			return state.Problem{Cause: fmt.Sprintf("%q is not a whole commit hash", o.Commit), Remedy: "give all 40 digits, as git rev-parse prints them"}
		}
	}
	if o.Ref != "" && !refs.Valid(o.Ref) {
		return state.Problem{Cause: fmt.Sprintf("%q is no name of a branch", o.Ref), Remedy: "give a branch such as main, or a full name such as refs/tags/v1"}
	}
	if a.scheme == overDaemon && !o.Auth.GitProtocol && !loopback(a.hostname()) {
		return state.Problem{Cause: "git:// proves neither who serves nor what is served", Remedy: "use https:// or ssh://; where the way to " + a.hostname() + " is trusted all the same, say  gitProtocol: true  at this host in the credentials (--git-credentials)"}
	}
	if a.scheme != local && o.Cache == "" {
		return fmt.Errorf("follow %s: Options.Cache is empty", a.text)
	}
	withSecret := o.Auth.PasswordEnv != "" || o.Auth.PasswordFile != ""
	if a.scheme == overHTTP && a.url.Scheme == "http" && withSecret && !loopback(a.url.Hostname()) {
		return state.Problem{Cause: "a password would go to " + a.url.Host + " in clear", Remedy: "use https://"}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// name is the full name of the ref that the options ask for among those that
// there are; "" asks for the one that HEAD names.
func (o *Options) name(names []string) (string, error) {
	switch {
	case o.Tag != "":
		return refs.Tags + o.Tag, nil
	case o.Semver != "":
		return refs.Newest(o.Semver, names)
	case o.Ref != "":
		return fullName(o.Ref), nil
	default:
		return "", nil
	}
}

// fullName is "refs/heads/main" for "main", and "refs/pull/12/head" for
// "pull/12/head".
func fullName(ref string) string {
	switch {
	case strings.HasPrefix(ref, "refs/"):
		return ref
	case isRequest(ref):
		return "refs/" + ref
	}
	return refs.Branches + ref
}

// shortName is "main" for "refs/heads/main", "pull/12/head" for "refs/pull/12/head".
func shortName(full string) string {
	if request, ok := strings.CutPrefix(full, "refs/"); ok && isRequest(request) {
		return request
	}
	return strings.TrimPrefix(full, refs.Branches)
}

// isRequest says whether a name is what a host keeps of a request to merge: GitHub,
// Gitea and Forgejo "pull/12/head" and "pull/12/merge", GitLab
// "merge-requests/12/head", Bitbucket "pull-requests/12/from".
func isRequest(ref string) bool {
	kind, rest, _ := strings.Cut(ref, "/")
	number, end, ok := strings.Cut(rest, "/")
	if _, err := strconv.ParseUint(number, 10, 32); err != nil || !ok {
		return false
	}
	switch kind {
	case "pull", "merge-requests":
		return end == "head" || end == "merge"
	case "pull-requests":
		return end == "from" || end == "merge"
	default:
		return false
	}
}
