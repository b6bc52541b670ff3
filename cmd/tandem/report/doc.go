// Package report says in values and words what a state and its records mean.
//
//	history ──Record──► state ──► [ report ] ──value──► text, JSON, API
//
// In: a state and the words beside the log. Out: values whose JSON is what -o
// json prints, and the text that people read, printed from the same values. Its
// functions are pure; it refuses to know where the state comes from.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// Words looks up what a person or a program wrote; "(erased)" where it is gone.
type Words = func(token) string

// A Ratio is how many of the wanted are ready.
type Ratio struct {
	Ready  int32 `json:"ready"`
	Wanted int32 `json:"wanted"`
}

// String is "4/4", or "-" where nothing is wanted and nothing is there.
func (r Ratio) String() string {
	if r == (Ratio{}) {
		return "-"
	}
	return fmt.Sprintf("%d/%d", r.Ready, r.Wanted)
}

// table prints rows in columns, two spaces apart.
func table(w io.Writer, rows ...[]string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		_, _ = fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	_ = tw.Flush()
}

// clock is a moment as people read it: the time of day, with the date where it
// is another day.
func clock(t, now time.Time) string {
	if t.IsZero() || t.Unix() <= 0 {
		return "-"
	}
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format("2006-01-02 15:04")
}

// firstLine is the first line of a text, of bounded length.
func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	const most = 120
	if utf8.RuneCountInString(s) > most {
		return string([]rune(s)[:most-1]) + "…"
	}
	return s
}

// plural is "1 pod" or "2 pods".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// ago is a duration for people, in its two largest units at most.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}
