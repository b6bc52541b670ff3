package main_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// repository is the root of the work tree: tests run in their package's directory.
func repository() fs.FS { return os.DirFS(filepath.Join("..", "..")) }

// walk calls visit with every file of the repository that Git would keep.
func walk(t *testing.T, visit func(name string)) {
	t.Helper()
	root := repository()
	ignored := ignoredDirs(t, root)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || slices.Contains(ignored, name)):
			return fs.SkipDir
		case d.Type().IsRegular():
			visit(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ignoredDirs reads the top-level directories that .gitignore names.
func ignoredDirs(t *testing.T, root fs.FS) []string {
	t.Helper()
	text, err := fs.ReadFile(root, ".gitignore")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		names = append(names, strings.Trim(line, "/\n"))
	}
	return names
}

func TestTopLevelHoldsNothingElse(t *testing.T) {
	root := repository()
	allowed := append(ignoredDirs(t, root),
		"cmd", "sources", "render", "reconciler", "runtimes", "examples", "docs",
		"go.mod", "go.sum", "Makefile", "README.md", "LICENSE")
	entries, err := fs.ReadDir(root, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s: the top level holds the data flow's directories and nothing else", e.Name())
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	root := repository()
	packages := map[string][]string{} // directory → files that aren't tests
	walk(t, func(name string) {
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") && !strings.Contains(name, "testdata/") {
			packages[path.Dir(name)] = append(packages[path.Dir(name)], name)
		}
	})
	vague := []string{"internal", "pkg", "util", "utils", "common", "helpers", "manager", "base", "types"}
	for dir, files := range packages {
		if slices.Contains(vague, path.Base(dir)) {
			t.Errorf("%s: a package's name says what it does", dir)
		}
		doc := packageComment(t, root, files)
		if doc == "" {
			t.Errorf("%s: no package comment", dir)
			continue
		}
		if strings.Contains(dir+"/", "test/") {
			continue // a suite stands beside the flow
		}
		stage, _, _ := strings.Cut(dir, "/")
		if slices.Contains([]string{"sources", "render", "reconciler", "runtimes"}, stage) &&
			(!strings.Contains(doc, "──►") || !strings.Contains(doc, "[ ")) {
			t.Errorf("%s: the package comment shows the flow and marks its own box: [ %s ]", dir, path.Base(dir))
		}
	}
	if len(packages) < 10 {
		t.Fatalf("found %d packages; the test looks in the wrong place", len(packages))
	}
}

func packageComment(t *testing.T, root fs.FS, files []string) string {
	t.Helper()
	var doc strings.Builder
	for _, name := range files {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		doc.WriteString(file.Doc.Text())
	}
	return doc.String()
}

// A file that names one machine's directories or a package mirror works there alone.
func TestNoFileNamesOneMachine(t *testing.T) {
	foreign := regexp.MustCompile(`/(` + `work|home/runner)/(main|shared|\.library)|(goproxy|` + `proxy\.golang|deb\.debian)\.[a-z]+`)
	root := repository()
	walk(t, func(name string) {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			t.Fatal(err)
		}
		if at := foreign.Find(text); at != nil && !bytes.Contains(text[:min(len(text), 8000)], []byte{0}) {
			t.Errorf("%s names %s", name, at)
		}
	})
}
