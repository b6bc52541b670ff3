package output

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(second int) time.Time { return time.Date(2026, 11, 23, 10, 0, second, 0, time.UTC) }

func write(t testing.TB, dir, stream, text string) {
	t.Helper()
	path, errs := RawPaths(dir)
	if stream == Stderr {
		path = errs
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, dir string, req Request) string {
	t.Helper()
	r, err := Read(dir, req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all bytes.Buffer
	for {
		b, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			return all.String()
		}
		all.Write(b)
	}
}

func open(t testing.TB, dir string, limits Limits) *Life {
	t.Helper()
	l, err := Open(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func take(t testing.TB, l *Life, second int) {
	t.Helper()
	if err := l.Take(at(second)); err != nil {
		t.Fatal(err)
	}
}

func TestLinesHaveTimeAndStream(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Kubernetes())
	write(t, dir, Stdout, "one\ntw")
	take(t, l, 1)
	write(t, dir, Stderr, "oops\n")
	take(t, l, 2)
	write(t, dir, Stdout, "o\nno end")
	take(t, l, 3)
	if err := l.Seal(at(4)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		req  Request
		want string
	}{
		{Request{}, "one\noops\ntwo\nno end"},
		{Request{Stream: Stderr}, "oops\n"},
		{Request{Stream: Stdout}, "one\ntwo\nno end"},
		{Request{Since: at(2)}, "oops\ntwo\nno end"},
		{Request{Tail: 2}, "two\nno end"},
		{Request{Tail: 1, Stream: Stderr}, "oops\n"},
		{Request{Tail: 100}, "one\noops\ntwo\nno end"},
		{Request{Tail: -1}, ""},
		{Request{Times: true, Tail: 3}, "2026-11-23T10:00:02.000000000Z oops\n2026-11-23T10:00:03.000000000Z two\n2026-11-23T10:00:04.000000000Z no end"},
	} {
		if got := read(t, dir, c.req); got != c.want {
			t.Errorf("%+v: %q, want %q", c.req, got, c.want)
		}
	}
	if !Sealed(dir) || !l.Closed() {
		t.Error("it isn't sealed")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left %v: %v", left, err)
	}
}

func TestRotates(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Limits{FileSize: 4 << 10, Files: 3})
	r, err := Read(dir, Request{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var want, got strings.Builder
	for i := range 400 {
		line := fmt.Sprintf("line %d of many\n", i)
		want.WriteString(line)
		write(t, dir, Stdout, line)
		take(t, l, i%60)
		b, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		got.Write(b)
	}
	if got.String() != want.String() {
		t.Errorf("a follower saw %d bytes, want %d", got.Len(), want.Len())
	}
	gens, err := generations(dir)
	if err != nil || len(gens) != 3 || gens[2] < 5 {
		t.Errorf("files %v: %v", gens, err)
	}
	kept := read(t, dir, Request{})
	if !strings.HasSuffix(want.String(), kept) || len(kept) < 2<<10 {
		t.Errorf("kept %d bytes that aren't the last ones", len(kept))
	}
	if got := read(t, dir, Request{Tail: 60}); strings.Count(got, "\n") != 60 || !strings.HasSuffix(want.String(), got) {
		t.Errorf("the last 60 lines, over files: %q", got)
	}
}

func TestLongLineInParts(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Kubernetes())
	long := strings.Repeat("x", 3*lineMost+10) + "\n"
	write(t, dir, Stdout, "a\n"+long+"b\n")
	take(t, l, 1)
	if got := read(t, dir, Request{}); got != "a\n"+long+"b\n" {
		t.Errorf("got %d bytes", len(got))
	}
	if got := read(t, dir, Request{Tail: 2}); got != long+"b\n" {
		t.Errorf("the last two lines are %d bytes, want %d", len(got), len(long)+2)
	}
}

// TestTakenOnce kills the taker between any two of its steps: each byte is
// there once.
func TestTakenOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "life") //nolint:usetesting // one for each draw
		if err != nil {
			t.Fatal(err)
		}
		limits := Limits{FileSize: 300, Files: 1000}
		l := open(t, dir, limits)
		var want strings.Builder
		for i := range rapid.IntRange(1, 30).Draw(rt, "steps") {
			text := rapid.StringMatching(`([a-z]{0,20}\n){0,4}[a-z]{0,5}`).Draw(rt, "text")
			want.WriteString(text)
			write(t, dir, Stdout, text)
			mark, err := os.ReadFile(filepath.Join(dir, "mark"))
			if err != nil {
				t.Fatal(err)
			}
			take(t, l, i)
			switch rapid.SampledFrom([]string{"go on", "stop", "kill"}).Draw(rt, "then") {
			case "stop":
				_ = l.Close()
				l = open(t, dir, limits)
			case "kill": // the lines were written, the mark was not
				_ = l.Close()
				if err := os.WriteFile(filepath.Join(dir, "mark"), mark, 0o600); err != nil {
					t.Fatal(err)
				}
				l = open(t, dir, limits)
			}
		}
		if err := l.Seal(at(59)); err != nil {
			t.Fatal(err)
		}
		if got := read(t, dir, Request{}); got != want.String() {
			rt.Fatalf("got %q, want %q", got, want.String())
		}
	})
}
