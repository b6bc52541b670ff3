package sops_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/sops"
)

// Files that sops 3.13.3 itself wrote come out as they went in, line for line.
func TestWrittenBySOPS(t *testing.T) {
	t.Parallel()
	key, err := os.ReadFile(filepath.Join("testdata", "age.key"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := sops.ParseKeys(key)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*.yaml"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs, problems := manifest.Parse(state.Origin{Path: file}, raw)
		if len(problems) > 0 || !sops.Encrypted(docs) {
			t.Fatalf("%s: %v", file, problems)
		}
		clear, err := keys.Decrypt(raw, docs)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if bytes.Count(clear, []byte("\n")) != bytes.Count(raw, []byte("\n")) {
			t.Errorf("%s: lines have moved", file)
		}
		got, problems := manifest.Parse(state.Origin{Path: file}, clear)
		if len(problems) > 0 || len(got) != 2 {
			t.Fatalf("%s: %v\n%s", file, problems, clear)
		}
		values := map[string]string{}
		for _, field := range append(got[0].Find("stringData").Fields, got[0].Find("data").Fields...) {
			if field.Value.Kind != manifest.String {
				t.Errorf("%s: %s is no string", file, field.Key)
			}
			values[field.Key] = field.Value.Text
		}
		want := map[string]string{"password": `sword: "fish"`, "lines": "one\n  two # no comment\n", "number": "0123", "empty": "", "yes": "on", "raw": "AAEC"}
		if diff := cmp.Diff(want, values); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
		if got[0].Find("sops") != nil || !got[0].Find("immutable").Is(true) || got[1].Find("stringData").Str("token") != "ümläut" {
			t.Errorf("%s: the rest differs:\n%s", file, clear)
		}
		docs[0].Find("metadata").Fields[0].Value.Text = "other"
		if _, err := keys.Decrypt(raw, docs); strings.Contains(file, "regex") && err == nil {
			t.Errorf("%s: another name is taken", file)
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "swordfish", "AGE-SECRET-KEY-1SWORDFISH"} {
		if _, err := sops.ParseKeys([]byte(text)); err == nil || strings.Contains(strings.ToLower(err.Error()), "swordfish") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
