package main_test

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are the texts for people, by name.
func documents(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	walk(t, func(name string) {
		if strings.HasSuffix(name, ".md") && !strings.Contains(name, "testdata/") {
			docs[name] = read(t, name)
		}
	})
	if docs["README.md"] == "" || docs["docs/architecture.md"] == "" {
		t.Fatal("no documents found; the test looks in the wrong place")
	}
	return docs
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := fs.ReadFile(repository(), name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// consoleCommands are the lines "$ tandem …" of a document's console blocks.
func consoleCommands(doc string) []string {
	var commands []string
	console := false
	for line := range strings.Lines(doc) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			console = line == "```console"
		case console && strings.HasPrefix(line, "$ "):
			commands = append(commands, normalCommand(strings.TrimPrefix(line, "$ ")))
		}
	}
	return commands
}

// normalCommand drops what a shell or testscript adds to a command.
func normalCommand(line string) string {
	line, _, _ = strings.Cut(line, " #")
	words := strings.Fields(line)
	for len(words) > 0 && slices.Contains([]string{"!", "?", "exec"}, words[0]) {
		words = words[1:]
	}
	if n := len(words); n > 0 && strings.HasPrefix(words[n-1], "&") {
		words = words[:n-1]
	}
	return strings.Join(words, " ")
}

// snippetCommands are the commands of Tandem in a document's yaml blocks, as CI
// systems run them.
func snippetCommands(doc string) []string {
	var commands []string
	snippet := false
	for line := range strings.Lines(doc) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "- ")
		switch {
		case strings.HasPrefix(line, "```"):
			snippet = line == "```yaml"
		case snippet && strings.HasPrefix(line, "tandem "):
			line, _, _ = strings.Cut(line, " > ")
			commands = append(commands, normalCommand(line))
		}
	}
	return commands
}

// whichData says on a command line which server is meant; people also say it
// once, in the environment.
var whichData = regexp.MustCompile(` --data \S+`)

// A command that a document shows is one that a script runs, word for word.
func TestDocumentsShowCommandsThatScriptsRun(t *testing.T) {
	run := map[string]bool{}
	walk(t, func(name string) {
		if !strings.HasPrefix(name, "cmd/tandem/testdata/script/") {
			return
		}
		script, _, _ := strings.Cut(read(t, name), "\n-- ")
		for line := range strings.Lines(script) {
			command := normalCommand(line)
			run[command] = true
			run[whichData.ReplaceAllString(command, "")] = true
		}
	})
	shown := 0
	for name, doc := range documents(t) {
		for _, command := range append(consoleCommands(doc), snippetCommands(doc)...) {
			shown++
			if !run[command] {
				t.Errorf("%s shows a command that no script in cmd/tandem/testdata/script runs:\n\t%s", name, command)
			}
		}
	}
	if shown == 0 {
		t.Error("no document shows a command")
	}
}

func TestDocumentsLinkToWhatIsThere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	for name, doc := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(doc, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := path.Join(path.Dir(name), m[1])
			if _, err := fs.Stat(repository(), target); err != nil {
				t.Errorf("%s links to %s, which isn't there", name, m[1])
			}
		}
	}
}

func TestDocumentsNameTargetsThatMakeHas(t *testing.T) {
	makefile := read(t, "Makefile")
	target := regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)\\b")
	for name, doc := range documents(t) {
		for _, m := range target.FindAllStringSubmatch(doc, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s says make %s; the Makefile has no such target", name, m[1])
			}
		}
	}
}

// Every variable that steers Tandem or its tests is explained, and none that
// is explained has gone.
func TestVariablesAreDocumented(t *testing.T) {
	variable := regexp.MustCompile(`\bTANDEM_[A-Z][A-Z_]*\b`)
	const private = "TANDEM_TEST_" // between a test and the process that it makes of itself
	used, explained := map[string]string{}, map[string]string{}
	walk(t, func(name string) {
		switch {
		case strings.HasSuffix(name, ".md"):
			for _, v := range variable.FindAllString(read(t, name), -1) {
				explained[v] = name
			}
		case strings.HasSuffix(name, ".go"), name == "Makefile", strings.HasPrefix(name, ".config/"):
			for _, v := range variable.FindAllString(read(t, name), -1) {
				used[v] = name
			}
		}
	})
	for v, where := range used {
		if explained[v] == "" && !strings.HasPrefix(v, private) {
			t.Errorf("%s uses %s, which no document explains", where, v)
		}
	}
	for v, where := range explained {
		if used[v] == "" {
			t.Errorf("%s explains %s, which nothing uses", where, v)
		}
	}
}
