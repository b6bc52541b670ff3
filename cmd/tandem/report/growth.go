package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/history"
)

// Growth is how large a log is and how fast it grows.
type Growth struct {
	Records  uint64    `json:"records"`
	From     time.Time `json:"from,omitzero"`
	To       time.Time `json:"to,omitzero"`
	Bytes    int64     `json:"bytes"` // of all that follows
	Log      int64     `json:"logBytes"`
	Index    int64     `json:"indexBytes"`
	Blobs    int64     `json:"blobBytes"`
	Texts    int64     `json:"textBytes"`
	Snaps    int64     `json:"snapshotBytes"`
	Segments int       `json:"segments"`
	Paces    []Pace    `json:"paces"`
	Free     int64     `json:"freeBytes,omitempty"` // on the disk of the directory; 0: not known, as of a bundle
	Full     string    `json:"full,omitempty"`      // when the disk is, at the pace of the last week
	Kinds    []Part    `json:"kinds"`               // the largest first
	Apps     []Part    `json:"applications"`
}

// A Pace is how fast a log grew in its last while.
type Pace struct {
	Span    string  `json:"span"`
	Records float64 `json:"recordsADay"`
	Bytes   float64 `json:"bytesADay"` // of all that lies beside the records too, in proportion
}

// A Part is some of the log.
type Part struct {
	Name string `json:"name"`
	history.Share
}

// NewGrowth puts a log's figures together; free is what its disk has left.
func NewGrowth(s *history.Stats, free int64) *Growth {
	g := &Growth{
		Records: uint64(s.Head.Seq), From: s.First, To: s.Last, Log: s.Log, Index: s.Index, Blobs: s.Blobs, Texts: s.Texts, Snaps: s.Snaps,
		Segments: s.Segments, Free: free, Bytes: s.Log + s.Index + s.Blobs + s.Texts + s.Snaps,
	}
	var records int64
	for k, p := range s.Kinds {
		g.Kinds = append(g.Kinds, Part{k.String(), p})
		records += p.Bytes
	}
	for a, p := range s.Apps {
		g.Apps = append(g.Apps, Part{string(a), p})
	}
	for _, parts := range [][]Part{g.Kinds, g.Apps} {
		slices.SortFunc(parts, func(a, b Part) int {
			if a.Bytes != b.Bytes {
				return int(b.Bytes - a.Bytes)
			}
			return strings.Compare(a.Name, b.Name)
		})
	}
	for i := range s.Windows {
		w := &s.Windows[i]
		days := w.Span.Hours() / 24
		p := Pace{Span: spanText(w.Span), Records: float64(w.Records) / days}
		if records > 0 {
			p.Bytes = float64(w.Bytes) / days * float64(g.Bytes) / float64(records)
		}
		if n := len(g.Paces); n == 0 || g.Paces[n-1].Span != p.Span { // a young log has but one
			g.Paces = append(g.Paces, p)
		}
	}
	g.Full = g.full()
	return g
}

// aDay is how old a log must be before its pace says anything of the future.
const aDay = 24 * time.Hour

// full is when the disk is, at the pace of the last week.
func (g *Growth) full() string {
	if g.Free == 0 || len(g.Paces) == 0 || g.To.Sub(g.From) < aDay {
		return ""
	}
	pace := g.Paces[min(1, len(g.Paces)-1)].Bytes
	if pace <= 0 {
		return ""
	}
	switch days := float64(g.Free) / pace; {
	case days > 3650:
		return "in more than 10 years"
	case days > 730:
		return fmt.Sprintf("in %d years", int(days/365))
	default:
		return fmt.Sprintf("in %d days", int(days))
	}
}

func spanText(d time.Duration) string {
	if days := int(d.Hours() / 24); days > 0 {
		return plural(days, "day")
	}
	return d.Round(time.Second).String()
}

// Text prints it for people.
func (g *Growth) Text(w io.Writer) {
	rows := [][]string{{"records", fmt.Sprintf("%d in %s", g.Records, plural(g.Segments, "file"))}}
	if g.Records > 0 {
		rows = append(rows, []string{"from", g.From.Format(time.DateTime) + " to " + g.To.Format(time.DateTime) + " UTC"})
	}
	rows = append(rows, []string{"size", fmt.Sprintf("%s: log %s, indexes %s, manifests and templates %s, words %s, snapshots %s",
		sizeText(g.Bytes), sizeText(g.Log), sizeText(g.Index), sizeText(g.Blobs), sizeText(g.Texts), sizeText(g.Snaps))})
	for _, p := range g.Paces {
		rows = append(rows, []string{"growth", fmt.Sprintf("%.0f records, %s a day, over the last %s", p.Records, sizeText(int64(p.Bytes)), p.Span)})
	}
	if g.Free > 0 {
		disk := sizeText(g.Free) + " free"
		if g.Full != "" {
			disk += ", full " + g.Full + " at the last week's pace"
		}
		rows = append(rows, []string{"disk", disk})
	}
	table(w, rows...)
	_, _ = fmt.Fprintln(w)
	rows = [][]string{{"KIND", "RECORDS", "SIZE"}}
	for _, p := range g.Kinds {
		rows = append(rows, []string{p.Name, fmt.Sprint(p.Records), sizeText(p.Bytes)})
	}
	table(w, rows...)
	_, _ = fmt.Fprintln(w)
	rows = [][]string{{"APPLICATION", "RECORDS", "SIZE"}}
	for _, p := range g.Apps {
		rows = append(rows, []string{orDash(p.Name), fmt.Sprint(p.Records), sizeText(p.Bytes)})
	}
	table(w, rows...)
}

// sizeText is a number of bytes as people read it.
func sizeText(n int64) string {
	switch f := float64(n); {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", f/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", f/(1<<20))
	default:
		return fmt.Sprintf("%.1f GiB", f/(1<<30))
	}
}
