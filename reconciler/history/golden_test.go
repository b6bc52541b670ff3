package history_test

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

var update = flag.Bool("update", false, "write another golden log where a kind is in none")

// goldenRecords has every kind of fact, each field set to something; but for the
// one that the log itself has to have made, which older golden logs have.
func goldenRecords() []*state.Record {
	var out []*state.Record
	for _, k := range state.Kinds() {
		if k == state.KindSigningKeyRotated {
			continue
		}
		n := len(out) + 1
		r := &state.Record{
			Seq: state.Seq(n), Cause: state.Seq(n / 2), Actor: state.Text{byte(n)}, App: "shop-prod",
			At:   state.Instant{Mono: time.Duration(n) * time.Second, Wall: 1_795_000_000_000_000_000 + int64(n)*1e9},
			Fact: state.NewFact(k),
		}
		counter := 0
		set(reflect.ValueOf(r.Fact).Elem(), &counter)
		out = append(out, r)
	}
	return out
}

func set(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n) * 37 * int64(1-2*(*n%2)))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n%7 + 1))
	case reflect.String:
		v.SetString(fmt.Sprintf("text-%d", *n))
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64((*n + i) % 256))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		set(v.Index(0), n)
		set(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"a": "1", "b/c": "2"}))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("pb") != "" {
				set(v.Field(i), n)
			}
		}
	}
}

// Logs that earlier versions wrote are read for ever: same root, same records. A
// kind or field that came later isn't in them; nothing of them changes. Every
// kind is in one of them: -update writes the next where one is in none.
func TestGoldenLog(t *testing.T) {
	kinds := map[state.Kind]bool{}
	versions := goldenLogs(t)
	for _, dir := range versions {
		readGolden(t, dir, kinds)
	}
	var missing []string
	for _, k := range state.Kinds() {
		if !kinds[k] {
			missing = append(missing, k.String())
		}
	}
	switch {
	case len(missing) == 0:
	case *update:
		writeGolden(t, fmt.Sprintf("testdata/golden/v%d", len(versions)+1))
	default:
		t.Errorf("%s is in no golden log; write the next: go test ./reconciler/history -run TestGoldenLog -update", strings.Join(missing, ", "))
	}
}

func goldenLogs(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("testdata/golden/v*")
	if err != nil || len(dirs) < 2 && !*update {
		t.Fatalf("golden logs: %v, %v", dirs, err)
	}
	return dirs
}

func readGolden(t *testing.T, golden string, kinds map[state.Kind]bool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(golden, "root"))
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, history.Options{ReadOnly: true})
	h := s.Head()
	if got := fmt.Sprintf("%d %s\n", h.Seq, base64.StdEncoding.EncodeToString(h.Root[:])); got != string(want) {
		t.Errorf("%s: root %q, want %q", golden, got, want)
	}
	lines, err := os.ReadFile(filepath.Join(golden, "records.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for r, err := range s.Read(context.Background(), 1) {
		if err != nil {
			t.Fatal(err)
		}
		kinds[r.Fact.Kind()] = true
		b, err := history.JSON(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		got.Write(append(b, '\n'))
	}
	if got.String() != string(lines) {
		t.Errorf("%s: the records say something else:\ngot  %s\nwant %s", golden, got.String(), lines)
	}
}

func writeGolden(t *testing.T, golden string) {
	t.Helper()
	s, err := history.Open(golden, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for i, all := 0, goldenRecords(); i < len(all); i += 5 {
		batch := all[i:min(i+5, len(all))]
		if _, err := s.Append(context.Background(), s.Head(), batch); err != nil {
			t.Fatal(err)
		}
		for _, r := range batch {
			b, err := history.JSON(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			lines.Write(append(b, '\n'))
		}
	}
	h := s.Head()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"root": fmt.Sprintf("%d %s\n", h.Seq, base64.StdEncoding.EncodeToString(h.Root[:])), "records.jsonl": lines.String(),
	} {
		if err := os.WriteFile(filepath.Join(golden, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The key signs nothing more, and a repository is no place for keys.
	for _, name := range []string{"log.key", "lock", "texts"} {
		if err := os.Remove(filepath.Join(golden, name)); err != nil {
			t.Fatal(err)
		}
	}
}
