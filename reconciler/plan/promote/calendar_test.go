package promote

import (
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func at(t *testing.T, text string) *view {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return &view{now: state.Instant{Mono: time.Hour, Wall: when.UnixNano()}, stage: &state.Stage{
		Freezes: []state.Freeze{{From: "2026-12-18", To: "2027-01-04", Zone: "Europe/Oslo"}},
	}}
}

func TestWindow(t *testing.T) {
	g := &state.Gate{Kind: state.GateWindow, Days: 0b0011110, From: 9 * 60, To: 16 * 60, Zone: "Europe/Oslo"} // Mon–Thu
	for _, c := range []struct {
		now  string
		pass bool
		wake time.Duration // from now
	}{
		{"2026-11-23T07:59:00Z", false, time.Minute},                   // Monday, 08:59 in winter
		{"2026-11-23T08:00:00Z", true, 7 * time.Hour},                  // opens
		{"2026-11-23T15:00:00Z", false, 17 * time.Hour},                // closes
		{"2026-07-02T13:59:59Z", true, time.Second},                    // Thursday in summer
		{"2026-07-02T14:00:00Z", false, 3*24*time.Hour + 17*time.Hour}, // until Monday
		{"2026-10-22T14:00:00Z", false, 3*24*time.Hour + 18*time.Hour}, // the clocks go back on Sunday
		{"2027-03-25T15:00:00Z", false, 3*24*time.Hour + 16*time.Hour}, // and forward
	} {
		v := at(t, c.now)
		r := v.window(g)
		if r.Pass != c.pass || r.wake-v.now.Mono != c.wake {
			t.Errorf("%s: pass %t for %s, want %t for %s", c.now, r.Pass, r.wake-v.now.Mono, c.pass, c.wake)
		}
	}
	if r := at(t, "2026-11-23T10:00:00Z").window(&state.Gate{To: 24 * 60, Zone: "Europe/Atlantis"}); r.Pass {
		t.Error("a time zone that nobody knows passed")
	}
}

func TestFreeze(t *testing.T) {
	for now, pass := range map[string]bool{
		"2026-12-17T22:59:59Z": true, "2026-12-17T23:00:00Z": false, // midnight in Oslo
		"2027-01-04T22:59:59Z": false, "2027-01-04T23:00:00Z": true,
	} {
		if r := at(t, now).freezes(); r.Pass != pass {
			t.Errorf("%s: pass %t, want %t", now, r.Pass, pass)
		}
	}
}
