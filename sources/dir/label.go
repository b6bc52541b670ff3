package dir

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // Git's own hash, compared with Git's own hashes
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"

	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/tree"
)

// uncommitted counts the files of the directory that differ from HEAD's: changed,
// removed, or added and not ignored.
func (s *scanner) uncommitted(root string, head *git.Head, now *tree.Dir) int {
	below, err := filepath.Rel(head.WorkTree, root)
	if err != nil {
		return 0
	}
	c := comparison{contents: s.contents, links: head.Links, domain: splitPath(filepath.ToSlash(below))}
	c.exclude(filepath.Join(head.GitDir, "info", "exclude"), nil)
	for i := range len(c.domain) {
		c.exclude(filepath.Join(head.WorkTree, filepath.Join(c.domain[:i]...), ".gitignore"), c.domain[:i])
	}
	then := head.Tree
	if then == nil {
		then = tree.NewDir(nil)
	}
	c.dirs(then, now, c.domain)
	return c.differ
}

type comparison struct {
	contents map[string][]byte
	links    tree.Store
	domain   []string // the directory's path in the work tree
	patterns []gitignore.Pattern
	differ   int
}

func splitPath(p string) []string {
	if p == "." || p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

// exclude adds the patterns of a file, if there is one, for what is below domain.
func (c *comparison) exclude(file string, domain []string) {
	if text, err := os.ReadFile(file); err == nil {
		c.parse(text, domain)
	}
}

func (c *comparison) parse(text []byte, domain []string) {
	for line := range strings.SplitSeq(string(text), "\n") {
		line = strings.TrimRight(line, "\r")
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			c.patterns = append(c.patterns, gitignore.ParsePattern(line, domain))
		}
	}
}

func (c *comparison) dirs(then, now *tree.Dir, at []string) {
	before := map[string]*tree.Entry{}
	for i := range then.Entries() {
		e := &then.Entries()[i]
		before[e.Name] = e
	}
	list := now.Entries()
	outer := len(c.patterns)
	for i := range list {
		if list[i].Name == ".gitignore" && list[i].Kind == tree.File {
			c.parse(c.contents[list[i].Hash], at)
		}
	}
	for i := range list {
		e := &list[i]
		old := before[e.Name]
		delete(before, e.Name)
		here := make([]string, 0, len(at)+1)
		here = append(append(here, at...), e.Name)
		switch {
		case e.Kind == tree.Directory && old != nil && old.Kind == tree.Directory:
			c.dirs(old.Dir, e.Dir, here)
		case e.Kind == tree.Directory && old != nil && old.Kind == tree.Submodule:
		case old == nil && c.ignored(here, e.Kind == tree.Directory):
		case e.Kind == tree.Directory:
			if old != nil {
				c.differ++
			}
			c.dirs(tree.NewDir(nil), e.Dir, here)
		case old == nil:
			c.differ++
		case old.Kind == tree.Directory:
			c.differ += 1 + old.Dir.Files()
		case !c.same(old, e):
			c.differ++
		}
	}
	for _, gone := range before {
		switch gone.Kind {
		case tree.Directory:
			c.differ += gone.Dir.Files()
		case tree.Submodule: // its directory is empty or absent where it isn't used
		default:
			c.differ++
		}
	}
	c.patterns = c.patterns[:outer]
}

func (c *comparison) ignored(at []string, dir bool) bool {
	return gitignore.NewMatcher(c.patterns).Match(at, dir)
}

// same says whether a file has the content that Git knows. A work tree may have
// CRLF where the repository has LF.
func (c *comparison) same(old, e *tree.Entry) bool {
	if old.Kind != e.Kind {
		return false
	}
	data, ok := c.contents[e.Hash]
	if !ok { // too big to be kept: the size has to do
		size, err := c.links.Size(old)
		return err == nil && size == e.Size
	}
	return old.Hash == blob(data) || bytes.Contains(data, []byte("\r\n")) && old.Hash == blob(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
}

func blob(data []byte) string {
	h := sha1.New() //nolint:gosec // as above
	fmt.Fprintf(h, "blob %d\x00", len(data))
	h.Write(data)
	return "sha1:" + hex.EncodeToString(h.Sum(nil))
}
