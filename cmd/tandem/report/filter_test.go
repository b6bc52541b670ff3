package report

import (
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Each filter takes what it names and leaves the rest; the words of a server's query
// say the same as the flags.
func TestFilter(t *testing.T) {
	at := time.Date(2026, 11, 23, 14, 5, 0, 0, time.UTC)
	line := Line{
		Seq: 40, At: at, Kind: "PodObserved", What: "observe", App: "shop-prod", Object: state.Ref{Kind: "Pod", Namespace: "shop", Name: "web-1"},
		Node: "windows-1", Outcome: "failed", Actor: "rita", Commit: "3f2a91c", Bad: true,
	}
	whole := "3f2a91c000000000000000000000000000000000"
	for name, c := range map[string]struct{ yes, no Filter }{
		"application": {Filter{App: "shop-prod"}, Filter{App: "shop-dev"}},
		"object":      {Filter{Object: "pod/web-1"}, Filter{Object: "deploy/web-1"}},
		"bare object": {Filter{Object: "web-1"}, Filter{Object: "web-2"}},
		"node":        {Filter{Node: "windows-1"}, Filter{Node: "windows-2"}},
		"node object": {Filter{Object: "node/windows-1"}, Filter{Object: "node/windows-2"}},
		"kind":        {Filter{Kind: "podobserved"}, Filter{Kind: "PodPlaced"}},
		"what":        {Filter{Kind: "observe"}, Filter{Kind: "place"}},
		"actor":       {Filter{Actor: "rita"}, Filter{Actor: "sam"}},
		"commit":      {Filter{Commit: whole}, Filter{Commit: "3f2a91d000000000000000000000000000000000"}},
		"beginning":   {Filter{Commit: "3f2a"}, Filter{Commit: "4f2a"}},
		"outcome":     {Filter{Outcome: "Failed"}, Filter{Outcome: "done"}},
		"bad":         {Filter{Outcome: OutcomeBad}, Filter{Outcome: "worse"}},
		"since":       {Filter{Since: at}, Filter{Since: at.Add(1)}},
		"until":       {Filter{Until: at}, Filter{Until: at.Add(-1)}},
		"from":        {Filter{From: 40}, Filter{From: 41}},
		"to":          {Filter{To: 40}, Filter{To: 39}},
		"all of them": {
			Filter{App: "shop-prod", Object: "web-1", Node: "windows-1", Kind: "observe", Actor: "rita", Commit: "3f2a91c", Outcome: "bad", Since: at, Until: at},
			Filter{App: "shop-prod", Object: "web-1", Node: "windows-1", Kind: "observe", Actor: "rita", Commit: "3f2a91c", Outcome: "done", Since: at, Until: at},
		},
	} {
		for want, f := range map[bool]Filter{true: c.yes, false: c.no} {
			if got := f.Match(&line); got != want {
				t.Errorf("%s: %+v takes the line: %t", name, f, got)
			}
			again, err := ParseFilter(f.Query(), time.Now())
			if d := cmp.Diff(f, again, cmp.Transformer("utc", time.Time.UTC)); err != nil || d != "" {
				t.Errorf("%s: asked of a server it is another filter: %v\n%s", name, err, d)
			}
		}
	}
	for _, q := range []string{"commit=3f2", "commit=main", "limit=-1", "limit=x", "from=x", "to=x", "since=yesterdayish", "until=25:00"} {
		v, err := url.ParseQuery(q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFilter(v, time.Now()); err == nil {
			t.Errorf("%s was taken", q)
		}
	}
	if (&Filter{Commit: "3f2a"}).Match(&Line{}) {
		t.Error("a record of no commit was taken for one")
	}
}

// A record about many applications is found by each of them.
func TestFilterOfMany(t *testing.T) {
	teller := NewTeller(nil, nil)
	line := teller.Tell(&state.Record{Seq: 7, Fact: &state.RevisionsSeen{Revision: "main@sha1:3f2a91c000000000000000000000000000000000", Apps: []state.AppName{"shop-dev", "shop-prod"}}})
	for app, want := range map[state.AppName]bool{"shop-dev": true, "shop-prod": true, "shop": false, "": true} {
		if f := (Filter{App: app}); f.Match(&line) != want {
			t.Errorf("the filter for %q takes the line: %t", app, !want)
		}
	}
}
