// Package sourcetest has real Git repositories and servers for tests, and the
// conformance suite that every sources.Source passes.
//
//	[ sourcetest: repository ──HTTP(S), SSH, git://, path──► ] sources ──► render
//
// Some servers run in the test's process and hand the requests to git's own
// http-backend and upload-pack: they can be made to misbehave at any byte. On
// Linux there are `git daemon` and OpenSSH's sshd as well, as people run them. It
// is imported by tests alone.
package sourcetest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// A Repo is a bare repository in the test's temporary directory.
type Repo struct {
	Dir string

	t       testing.TB
	home    string
	clock   int
	mirrors []string
}

// A File is one entry of a commit.
type File struct {
	Path string
	Mode Mode
	Data string // a file's content, a link's target, a submodule's commit
}

// Mode is what a File is, as Git writes it.
type Mode string

// The modes of files.
const (
	Regular    Mode = "100644"
	Executable Mode = "100755"
	Link       Mode = "120000"
	Submodule  Mode = "160000"
	Gone       Mode = "" // the commit removes it
)

// NewRepo makes an empty bare repository whose HEAD names main.
func NewRepo(t testing.TB) *Repo {
	t.Helper()
	hosttest.Need(t, "git")
	r := &Repo{t: t, Dir: filepath.Join(t.TempDir(), "repo.git"), home: t.TempDir(), clock: 1_750_000_000}
	r.run(nil, "init", "--quiet", "--bare", "--initial-branch=main", r.Dir)
	return r
}

// Run runs a git command in the repository and returns what it prints.
func (r *Repo) Run(args ...string) string {
	r.t.Helper()
	return r.run(nil, append([]string{"--git-dir", r.Dir}, args...)...)
}

// RunWith is Run with something on the command's standard input.
func (r *Repo) RunWith(stdin string, args ...string) string {
	r.t.Helper()
	return r.run([]byte(stdin), append([]string{"--git-dir", r.Dir}, args...)...)
}

func (r *Repo) run(stdin []byte, args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", args...)
	cmd.Env = environment(r.home)
	cmd.Dir = r.home
	cmd.Stdin = bytes.NewReader(stdin)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, said.String())
	}
	return strings.TrimSpace(out.String())
}

// environment keeps the machine's own Git configuration out.
func environment(home string) []string {
	return []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Grace", "GIT_COMMITTER_EMAIL=grace@example.com",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
}

// Commit adds a commit with these files on top of a branch, which it makes if
// need be, and returns its hash. Files that it doesn't name stay.
func (r *Repo) Commit(branch string, files map[string]string) string {
	r.t.Helper()
	var list []File
	for _, path := range slices.Sorted(maps.Keys(files)) {
		list = append(list, File{Path: path, Mode: Regular, Data: files[path]})
	}
	return r.CommitFiles(branch, list...)
}

// CommitFiles is Commit with links, submodules and removals.
func (r *Repo) CommitFiles(branch string, files ...File) string {
	r.t.Helper()
	r.clock++
	var b bytes.Buffer
	message := fmt.Sprintf("change %d files\n\nAll of them at once.\n", len(files))
	fmt.Fprintf(&b, "commit refs/heads/%s\nauthor Ada <ada@example.com> %d +0100\ncommitter Grace <grace@example.com> %d +0000\ndata %d\n%s\n", branch, r.clock, r.clock+5, len(message), message)
	if r.Has(branch) {
		fmt.Fprintf(&b, "from refs/heads/%s^0\n", branch)
	}
	for _, f := range files {
		switch f.Mode {
		case Gone:
			fmt.Fprintf(&b, "D %s\n", f.Path)
		case Submodule:
			fmt.Fprintf(&b, "M 160000 %s %s\n", f.Data, f.Path)
		case Regular, Executable, Link:
			fmt.Fprintf(&b, "M %s inline %s\ndata %d\n%s\n", f.Mode, f.Path, len(f.Data), f.Data)
		default:
			r.t.Fatalf("file %s has the mode %q", f.Path, f.Mode)
		}
	}
	r.run(b.Bytes(), "--git-dir", r.Dir, "fast-import", "--quiet", "--force")
	r.mirror()
	return r.Head(branch)
}

// Has says whether there is a branch.
func (r *Repo) Has(branch string) bool {
	r.t.Helper()
	return r.Run("for-each-ref", "--format=%(refname)", "refs/heads/"+branch) != ""
}

// Head is a branch's commit.
func (r *Repo) Head(branch string) string {
	r.t.Helper()
	return r.Run("rev-parse", "refs/heads/"+branch)
}

// Reset moves a branch to any commit, as a forced push does.
func (r *Repo) Reset(branch, commit string) {
	r.t.Helper()
	r.Run("update-ref", "refs/heads/"+branch, commit)
	r.mirror()
}

// Delete removes a branch.
func (r *Repo) Delete(branch string) {
	r.t.Helper()
	r.Run("update-ref", "-d", "refs/heads/"+branch)
}

// Mirror keeps a directory equal to what main has, now and after every change.
func (r *Repo) Mirror(dir string) {
	r.t.Helper()
	r.mirrors = append(r.mirrors, dir)
	r.mirror()
}

func (r *Repo) mirror() {
	r.t.Helper()
	if len(r.mirrors) == 0 || !r.Has("main") {
		return
	}
	for _, dir := range r.mirrors {
		cmd := []string{"--git-dir", r.Dir, "--work-tree", dir, "-c", "core.bare=false"}
		r.run(nil, append(cmd, "read-tree", "-u", "--reset", "main")...)
	}
}

// Object writes one object without any check and returns its hash, for trees
// that no honest program makes.
func (r *Repo) Object(kind, data string) string {
	r.t.Helper()
	return r.run([]byte(data), "--git-dir", r.Dir, "hash-object", "-t", kind, "-w", "--stdin", "--literally")
}

// Hash is the name that Git gives an object, without writing it.
func (r *Repo) Hash(kind, data string) string {
	r.t.Helper()
	return r.run([]byte(data), "hash-object", "-t", kind, "--stdin")
}
