package reconciler_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestUpstreamCasesAreTold keeps testdata/UPSTREAM.md and the stories together:
// each of Kubernetes's cases has one whose first line names it, and no story that
// says it is one is missing from the list.
func TestUpstreamCasesAreTold(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("testdata", "UPSTREAM.md"))
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	cases := regexp.MustCompile("(?m)^- (.+): `(.+)`$").FindAllStringSubmatch(string(list), -1)
	for _, c := range cases {
		name, story := c[1], c[2]
		told[story] = true
		text, err := os.ReadFile(filepath.Join("testdata", story+".txt"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if !strings.HasPrefix(first, "# Kubernetes ") || !strings.Contains(strings.ToLower(first), strings.ToLower(name)) {
			t.Errorf("%s: the first line of %s.txt names another case: %s", name, story, first)
		}
	}
	if len(cases) < 100 {
		t.Errorf("%d cases are listed: is the list read?", len(cases))
	}
	stories, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stories {
		story := strings.TrimSuffix(filepath.Base(path), ".txt")
		if strings.HasPrefix(story, "integration_statefulset_") && !told[story] {
			t.Errorf("%s is not in UPSTREAM.md", story)
		}
		for _, kind := range []string{"statefulset", "deployment", "daemonset", "job", "cronjob", "restart"} {
			if strings.HasPrefix(story, "e2e_"+kind+"_") && !told[story] {
				t.Errorf("%s is not in UPSTREAM.md", story)
			}
		}
	}
}
