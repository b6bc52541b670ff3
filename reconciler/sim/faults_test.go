package sim

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFaultsAreBroughtAbout keeps testdata/FAULTS.md true: every fault is there,
// once, and what brings it about is a word of a scenario or a test that there is.
func TestFaultsAreBroughtAbout(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("testdata", "FAULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := everyTest(t)
	var words []string
	for _, s := range Scenarios() {
		text, err := s.Text()
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, strings.Fields(text)...)
	}
	lines := regexp.MustCompile("(?m)^- ([0-9]+) (.+): (`.+`)$").FindAllStringSubmatch(string(list), -1)
	const faults = 55
	if len(lines) != faults {
		t.Errorf("%d faults are listed, want %d", len(lines), faults)
	}
	for i, l := range lines {
		if want := i + 1; l[1] != itoa(want) {
			t.Errorf("fault %s is at the place of %d", l[1], want)
		}
		for _, word := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(l[3], -1) {
			if what := word[1]; strings.HasPrefix(what, "Test") && !tests[what] || !strings.HasPrefix(what, "Test") && !slices.Contains(words, what) {
				t.Errorf("%s: %q is no test, and no scenario has it", l[2], what)
			}
		}
	}
	for i, l := range Laws()[:15] {
		if want := "I" + itoa(i+1); l.Number != want {
			t.Errorf("law %s is at the place of %s", l.Number, want)
		}
	}
}

func itoa(n int) string { return written(&n) }

// everyTest is every test of the repository, by name.
func everyTest(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	names := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, m := range names.FindAllStringSubmatch(string(raw), -1) {
			out[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
