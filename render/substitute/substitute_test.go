package substitute_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/render/substitute"
)

func vars() map[string]string {
	return map[string]string{"v": "abcABC123ABCabc", "empty": "", "file": "a/b.c.txt", "up": "ABC", "name": "world", "uni": "äöü"}
}

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain":                   "plain",
		"$name $(name)":           "$name $(name)",
		"hi ${name}!":             "hi world!",
		"${empty}":                "",
		"${name}${name}":          "worldworld",
		"$${name}":                "${name}",
		"$${x:=${name}}":          "${x:=world}",
		"a$${name}${name}$name$$": "a${name}world$name$$",
		"${no:=x}":                "x", "${no:-x}": "x", "${no=x}": "x", "${no-x}": "x",
		"${empty:=x}": "x", "${empty:-x}": "x", "${empty=x}": "", "${empty-x}": "",
		"${name:=x}": "world", "${no:=}": "", "${no:=a b: {c}": "a b: {c",
		"${no:=${name}}-s": "world-s", "${no:=p${name^^}s}": "pWORLDs", "${name:=${no}}": "world",
		"${#v}": "15", "${#uni}": "3",
		"${name^}": "World", "${name^^}": "WORLD", "${up,}": "aBC", "${up,,}": "abc", "${uni^}": "Äöü", "${empty^}": "",
		"${v:12}": "abc", "${v:3:3}": "ABC", "${v:99}": "", "${uni:1:1}": "ö", "${v:0:99}": "abcABC123ABCabc",
		"${file#*.}": "c.txt", "${file##*.}": "txt", "${file%.*}": "a/b.c", "${file%%.*}": "a/b", "${file#x}": "a/b.c.txt", "${file%x}": "a/b.c.txt",
		"${v/abc/X}": "XABC123ABCabc", "${v//abc/X}": "XABC123ABCX", "${v/#abc/X}": "XABC123ABCabc", "${v/%abc/X}": "abcABC123ABCX", "${v/123/}": "abcABCABCabc",
		`${file/\//-}`: "a-b.c.txt", "${name/#/p-}": "p-world", "${name/%/-s}": "world-s", "${v//[0-9]/}": "abcABCABCabc", "${v//[!0-9]/}": "123", "${file//./$1}": "a/b$1c$1txt",
	} {
		if got, err := substitute.Text(in, vars()); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"${", "${}", "${name", "${1x}", "${name:", "${no:=x", "${#name", "${#name^}", "${name+x}", "${name:+x}", "${name:?x}", "${name?x}", "${name:x}", "${name:1:-1}", "${name@Q}",
		"${name^^^}", "${name:=${no}", "${ name}", "${name }", "${name/[z-a]/}", strings.Repeat("${a:=", 20) + strings.Repeat("}", 20),
	} {
		if got, err := substitute.Text(in, vars()); err == nil {
			t.Errorf("%s: %q, want an error", in, got)
		}
	}
	for _, in := range []string{"${no}", "x ${no^^}", "${no:1}", "${#no}", "${no#x}", "${no/x/y}", "${other:=${no}}"} {
		var unset *substitute.UnsetError
		if _, err := substitute.Text(in, vars()); !errors.As(err, &unset) || unset.Name != "no" {
			t.Errorf("%s: %v, want to hear that no has no value", in, err)
		}
	}
	big := map[string]string{"x": strings.Repeat("x", 4000)}
	if _, err := substitute.Text("${x//x/"+strings.Repeat("y", 4000)+"}", big); err == nil {
		t.Error("16 MB of result: no error")
	}
	if _, err := substitute.Text(strings.Repeat("${x}", 4000), big); err == nil {
		t.Error("16 MB of result: no error")
	}
}

// No expression crashes or exceeds the limit, and text without one stays.
func FuzzText(f *testing.F) {
	for _, in := range []string{"${a:=b}", "$${a}", "${v//[a-c]/x}", "${v%%*b}", "${#v}", "${v:1:2}", "${v:=${a^^}}"} {
		f.Add(in, "abc")
	}
	f.Fuzz(func(t *testing.T, in, value string) {
		got, err := substitute.Text(in, map[string]string{"v": value, "a": "x"})
		if err == nil && len(got) > substitute.MaxBytes+len(in) {
			t.Errorf("%d bytes", len(got))
		}
		if !strings.Contains(in, "${") && got != in {
			t.Errorf("%q became %q", in, got)
		}
	})
}
