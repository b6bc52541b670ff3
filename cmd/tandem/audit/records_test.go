package audit_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// docs/design/0003-records.md says of each kind of record when it is written
// and what its cause is. A new kind needs a row.
func TestEveryKindOfRecordIsDescribed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "design", "0003-records.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([A-Z][A-Za-z]+) \| [^|]+ \| [^|]+ \|$`).FindAllSubmatch(text, -1) {
		rows[string(m[1])]++
	}
	for _, k := range state.Kinds() {
		if rows[k.String()] != 1 {
			t.Errorf("%s has %d rows in docs/design/0003-records.md, want one: when it is written, and its cause", k, rows[k.String()])
		}
		delete(rows, k.String())
	}
	for name := range rows {
		t.Errorf("docs/design/0003-records.md describes %s, and there is no such kind", name)
	}
}
