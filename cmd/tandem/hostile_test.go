package main_test

import (
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestBadInputsAreHeld keeps testdata/HOSTILE.md and the tests together: each bad
// input names tests, and each of these is there.
func TestBadInputsAreHeld(t *testing.T) {
	list := read(t, "cmd/tandem/testdata/HOSTILE.md")
	tests := map[string]bool{} // "sources/git.TestHostilePacks"
	files := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	walk(t, func(name string) {
		files[name] = true
		if !strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, m := range function.FindAllStringSubmatch(read(t, name), -1) {
			tests[path.Dir(name)+"."+m[1]] = true
		}
	})
	lines := regexp.MustCompile("(?m)^- (.+?): (`.+)$").FindAllStringSubmatch(list, -1)
	if want := strings.Count(list, "\n- "); len(lines) != want || want < 75 {
		t.Errorf("%d of %d lines name a test; want 75 lines or more", len(lines), want)
	}
	for _, line := range lines {
		for named := range strings.SplitSeq(line[2], ", ") {
			if named = strings.Trim(named, "`"); !tests[named] && !files[named] {
				t.Errorf("%s: there is no test %s", line[1], named)
			}
		}
	}
	fuzz := 0
	for name := range tests {
		if strings.Contains(name, ".Fuzz") {
			fuzz++
		}
	}
	if fuzz < 12 {
		t.Errorf("there are %d fuzz targets, want 12 or more", fuzz)
	}
}
