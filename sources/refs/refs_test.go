package refs_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/refs"
)

func TestValid(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"main", "team/main", "refs/tags/v1", "refs/heads/a/b", "v1.4.0+build.2", "ünï"} {
		if !refs.Valid(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{
		"", "-x", "a..b", "refs/heads/../../x", "a b", "a\nb", "a\x00b", "a\x7fb", "a@b", "@", "@{-1}", "a~1", "a^", "a:b", "a?", "a*", "a[b", `a\b`, "/a", "a/", "a//b",
		".a", "a/.b", "a.lock", "a.lock/b", "a.", "refs/x", strings.Repeat("a", 251),
	} {
		if refs.Valid(name) {
			t.Errorf("%q is taken", name)
		}
	}
}

func TestNewest(t *testing.T) {
	t.Parallel()
	names := []string{
		"refs/heads/9.9.9", "refs/tags/v1.2.0", "refs/tags/v1.10.0", "refs/tags/v1.9.9", "refs/tags/v2.0.0-rc.1", "refs/tags/2.0.0", "refs/tags/v2.0.0",
		"refs/tags/latest", "refs/tags/v3.0.0-beta", "refs/tags/app-9.0.0", "refs/tags/v1.11.0@x",
	}
	for text, want := range map[string]string{
		"1.x": "v1.10.0", "~1.2": "v1.2.0", "^1": "v1.10.0", ">=1.0.0": "v2.0.0", ">=1.4.0 <2.0.0": "v1.10.0", ">=3.0.0-0": "v3.0.0-beta",
		"*": "v2.0.0", "1.9.9": "v1.9.9", "1.2.0 || 1.9.x": "v1.9.9",
	} {
		got, err := refs.Newest(text, names)
		if err != nil || got != "refs/tags/"+want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	if _, err := refs.Newest(">=4", names); !errors.Is(err, sources.ErrNotFound) || !strings.Contains(err.Error(), "7 tags") {
		t.Errorf("nothing in the range: %v", err)
	}
	for _, bad := range []string{"", "x.y", ">=", "1.0.0 &&", "latest", strings.Repeat("1", 300)} {
		if _, err := refs.Newest(bad, names); err == nil || errors.Is(err, sources.ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Whatever a server or a person says, the answer is one of the names or an error.
func FuzzNewest(f *testing.F) {
	f.Add("1.x", "v1.0.0 v1.2.0 main")
	f.Add(">=1.0.0-0 <2", "1.0.0-rc.1 v01.0 v1")
	f.Fuzz(func(t *testing.T, text, tags string) {
		var names []string
		for tag := range strings.FieldsSeq(tags) {
			names = append(names, refs.Tags+tag)
		}
		got, err := refs.Newest(text, names)
		if err == nil && (!strings.Contains(" "+strings.Join(names, " ")+" ", " "+got+" ") || !refs.Valid(got)) {
			t.Errorf("%q of %q: %q", text, tags, got)
		}
	})
}
