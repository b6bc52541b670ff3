package tree

import (
	"fmt"
	"io/fs"
	"path"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawDir is a directory of few names, so that two of them have much in common;
// shared has directories that both may have.
func drawDir(t *rapid.T, depth int, shared map[string]*Dir) *Dir {
	var entries []Entry
	for _, name := range []string{"a", "b", "c"} {
		switch kind := rapid.IntRange(0, 3).Draw(t, "kind"); {
		case kind == 0:
		case kind == 1 || depth == 0:
			entries = append(entries, file(name, fmt.Sprint(rapid.IntRange(0, 1).Draw(t, "content"))))
		default:
			key := fmt.Sprint(depth, rapid.IntRange(0, 2).Draw(t, "which"))
			if shared[key] == nil {
				shared[key] = drawDir(t, depth-1, shared)
			}
			entries = append(entries, Entry{Name: name, Kind: Directory, Dir: shared[key]})
		}
	}
	return NewDir(entries)
}

// What Changed doesn't name is as it was, whatever is asked of it.
func TestChanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shared := map[string]*Dir{}
		store := contents{"0": "x", "1": "y"}
		before := New(drawDir(t, 2, shared), store, time.Time{})
		now := New(drawDir(t, 2, shared), store, time.Time{})
		changed, ok := now.Changed(before)
		if !ok {
			t.Fatal("nobody knows what changed")
		}
		said := func(tree *Tree, p string) string {
			out := tree.Blob(p)
			if info, err := tree.Stat(p); err == nil {
				out += info.Mode().String()
			}
			if list, err := tree.ReadDir(p); err == nil {
				out += fmt.Sprint(len(list), list)
			}
			return out
		}
		var look func(p string, depth int)
		look = func(p string, depth int) {
			if was, is := said(before, p), said(now, p); was != is && !changed[p] {
				t.Fatalf("%s: was %q, is %q, and isn't named in %v", p, was, is, changed)
			}
			if depth > 0 {
				for _, name := range []string{"a", "b", "c"} {
					look(path.Join(p, name), depth-1)
				}
			}
		}
		look(".", 4)
	})
}

// A path behind a link changes with another path.
func TestChangedBehindALink(t *testing.T) {
	t.Parallel()
	made := func(hash string) *Tree {
		deep := NewDir([]Entry{{Name: "link", Kind: Link, Hash: "l", Size: -1}})
		return New(NewDir([]Entry{file("x", hash), {Name: "d", Kind: Directory, Dir: deep}}), contents{"l": "../x", "0": "", "1": "y"}, time.Time{})
	}
	if _, ok := made("1").Changed(made("0")); ok {
		t.Error("what changed behind a link is taken for known")
	}
	if _, err := fs.Stat(made("0"), "d/link"); err != nil {
		t.Error(err)
	}
}
