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

// A freeze from a day whose midnight the clocks skip begins with the day's first hour.
func TestFreezeFromADayWithoutMidnight(t *testing.T) {
	t.Parallel()
	for now, pass := range map[string]bool{"2026-04-23T21:59:59Z": true, "2026-04-23T22:00:00Z": false, "2026-04-24T20:59:59Z": false, "2026-04-24T21:00:00Z": true} {
		v := at(t, now) // in Cairo 23:59:59 of the 23rd, then 01:00 of the 24th; that ends in summer time
		v.stage.Freezes = []state.Freeze{{From: "2026-04-24", To: "2026-04-24", Zone: "Africa/Cairo"}}
		if r := v.freezes(); r.Pass != pass {
			t.Errorf("%s: pass %t, want %t", now, r.Pass, pass)
		}
	}
}

// Around the days on which clocks change, a window says whether it is
// open as its zone's clock shows, and when that changes next, to the minute.
func TestWindowsOverClockChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		zone, day string // on which the clock changes
	}{
		{"Europe/Oslo", "2026-03-29"},
		{"Europe/Oslo", "2026-10-25"},
		{"America/New_York", "2026-03-08"},
		{"America/New_York", "2026-11-01"},
		{"Australia/Lord_Howe", "2026-04-05"},
		{"Australia/Lord_Howe", "2026-10-04"},
		{"Africa/Cairo", "2026-04-24"},
		{"Africa/Cairo", "2026-10-29"},
	} {
		loc, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		day, err := time.ParseInLocation(time.DateOnly, c.day, loc)
		if err != nil {
			t.Fatal(err)
		}
		begin := day.Add(-12 * time.Hour).Truncate(time.Minute)
		const minutes = 4 * 24 * 60
		for _, w := range [][2]int32{{0, 60}, {0, 24 * 60}, {60, 150}, {90, 6 * 60}, {120, 180}, {125, 175}, {150, 170}, {150, 9 * 60}, {23 * 60, 24 * 60}} {
			g := &state.Gate{Kind: state.GateWindow, From: w[0], To: w[1], Zone: c.zone}
			var open [minutes]bool
			for n := range open {
				local := begin.Add(time.Duration(n) * time.Minute).In(loc)
				minute := int32(local.Hour()*60 + local.Minute())
				open[n] = minute >= w[0] && minute < w[1]
			}
			next := -1
			for n := minutes - 1; n >= 0; n-- {
				now := state.Instant{Mono: time.Hour, Wall: begin.Add(time.Duration(n) * time.Minute).UnixNano()}
				if n+1 < minutes && open[n+1] != open[n] {
					next = n + 1
				}
				if next < 0 || n%3 > 0 && next-n > 2 {
					continue // it changes after what was looked at; or one in three, and each before a change
				}
				pass, at := Window(g, now)
				if want := time.Hour + time.Duration(next-n)*time.Minute; pass != open[n] || at != want {
					t.Fatalf("%s, %d to %d, at %s: open %t, changes in %s; want %t, %s", c.zone, w[0], w[1], begin.Add(time.Duration(n)*time.Minute).In(loc), pass, at-time.Hour, open[n], want-time.Hour)
				}
			}
		}
	}
}
