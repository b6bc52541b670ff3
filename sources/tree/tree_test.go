package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

type contents map[string]string

func (c contents) Size(e *Entry) (int64, error) { return int64(len(c[e.Hash])), nil }
func (c contents) Read(e *Entry) ([]byte, error) {
	if len(c[e.Hash]) > MaxFileSize {
		return nil, errors.New("the store is asked for what is too big")
	}
	return []byte(c[e.Hash]), nil
}

func file(name, hash string) Entry { return Entry{Name: name, Kind: File, Hash: hash, Size: -1} }

func TestNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"app.yaml", ".gitignore", ".gitmodules", "git~2", "con-fig", "COM10.txt", "nulled", "a b", "ü", ".github"} {
		if err := errors.Join(checkHostile(name), checkPortable(name)); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "/a", "a\x00", "\xff", ".git", ".GIT", ".Git ", ".git.", "git~1", "GIT~1", ".git:x", ".g\u200cit", strings.Repeat("x", 256)} {
		if checkHostile(name) == nil {
			t.Errorf("%q is taken for honest", name)
		}
	}
	for _, name := range []string{`a\b`, `..\x`, "C:", "c:x", "a:stream", "CON", "con.yaml", "Nul", "aux .txt", "COM1", "lpt9.x", "COM¹", "a.", "a ", "a\x01", "a?", `a"`, "CONOUT$"} {
		if checkPortable(name) == nil {
			t.Errorf("%q is taken for portable", name)
		}
	}
}

// A name that one system can't have hinders its own file alone.
func TestUnportableName(t *testing.T) {
	t.Parallel()
	c := contents{"h": "x"}
	fsys := New(NewDir([]Entry{file("ok", "h"), file("con.yaml", "h"), file(`a\b`, "h")}), c, time.Time{})
	if data, err := fsys.ReadFile("ok"); err != nil || string(data) != "x" {
		t.Errorf("ok: %q, %v", data, err)
	}
	for _, name := range []string{"con.yaml", `a\b`} {
		_, err := fsys.ReadFile(name)
		var named *fs.PathError
		if !errors.As(err, &named) || named.Path != name || !strings.Contains(err.Error(), "Windows") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	nested := NewDir([]Entry{file("f", "h")})
	for range MaxDepth {
		nested = NewDir([]Entry{{Name: "d", Kind: Directory, Dir: nested}})
	}
	var many []Entry
	for i := range MaxFiles + 1 {
		many = append(many, file(fmt.Sprint(i), "h"))
	}
	for name, root := range map[string]*Dir{"tree.MaxDepth": nested, "tree.MaxFiles": NewDir(many)} {
		_, err := New(root, contents{}, time.Time{}).ReadDir(".")
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Name != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := contents{"big": strings.Repeat("x", MaxFileSize+1)}
	entries := []Entry{file("big", "big")}
	for i := range MaxTreeBytes/MaxFileSize + 1 {
		c[fmt.Sprint(i)] = c["big"][:MaxFileSize]
		entries = append(entries, file(fmt.Sprint(i), fmt.Sprint(i)))
	}
	fsys := New(NewDir(entries), c, time.Time{})
	var limit *LimitError
	if _, err := fsys.ReadFile("big"); !errors.As(err, &limit) || limit.Name != "tree.MaxFileSize" {
		t.Errorf("big: %v", err)
	}
	if info, err := fsys.Stat("big"); err != nil || info.Size() != MaxFileSize+1 {
		t.Errorf("Stat(big): %v, %v", info, err)
	}
	var last error
	for i := range MaxTreeBytes/MaxFileSize + 1 {
		for range 2 { // reading again costs nothing
			_, last = fsys.ReadFile(fmt.Sprint(i))
		}
		if full := i >= MaxTreeBytes/MaxFileSize; full != (last != nil) {
			t.Errorf("file %d: %v", i, last)
		}
	}
	if !errors.As(last, &limit) || limit.Name != "tree.MaxTreeBytes" {
		t.Errorf("all: %v", last)
	}
}

// Whatever names, links and paths are, nothing outside the tree is reached and
// nothing crashes; what the listing gives can be asked for.
func FuzzTree(f *testing.F) {
	f.Add("a", "../a", "a/b")
	f.Add("link", "link/../link", "link")
	f.Add(".git", "/etc/passwd", "x/../../y")
	f.Add("a\\b", "C:\\x", ".")
	f.Add("x:y", "d/f", "d/l")
	f.Fuzz(func(t *testing.T, name, target, path string) {
		c := contents{"f": "inside", "l": target}
		below := NewDir([]Entry{file("f", "f"), {Name: name, Kind: Link, Hash: "l", Size: -1}, {Name: "l", Kind: Link, Hash: "l", Size: -1}})
		root := NewDir([]Entry{{Name: "d", Kind: Directory, Dir: below}, file(name, "f"), {Name: "l", Kind: Link, Hash: "l", Size: -1}})
		fsys := New(root, c, time.Time{})
		for _, p := range []string{path, name, target, "l", "d/l", "d/" + name, "l/f"} {
			data, err := fsys.ReadFile(p)
			if err == nil && string(data) != "inside" {
				t.Errorf("ReadFile(%q) = %q", p, data)
			}
			if !fs.ValidPath(p) && err == nil {
				t.Errorf("the path %q is read", p)
			}
			if (fsys.Blob(p) != "") && err != nil && checkPortable(name) == nil {
				t.Errorf("Blob(%q) knows what can't be read: %v", p, err)
			}
		}
		list, err := fsys.ReadDir(".")
		if err != nil {
			return
		}
		for _, e := range list {
			if _, err := fsys.Lstat(e.Name()); err != nil {
				t.Errorf("%q is listed and not there: %v", e.Name(), err)
			}
		}
	})
}

func TestFS(t *testing.T) {
	t.Parallel()
	c := contents{"1": "one", "l": "d/a"}
	fsys := New(NewDir([]Entry{{Name: "d", Kind: Directory, Dir: NewDir([]Entry{file("a", "1")})}, {Name: "link", Kind: Link, Hash: "l", Size: -1}, file("d.x", "1")}), c, time.Unix(1, 0))
	if err := fstest.TestFS(fsys, "d/a", "d.x", "link"); err != nil {
		t.Error(err)
	}
	if target, err := fsys.ReadLink("link"); err != nil || target != "d/a" {
		t.Errorf("ReadLink = %q, %v", target, err)
	}
}
