package promote

import (
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// steady is the steady time at which the wall clock will show wall.
func (v *view) steady(wall int64) time.Duration {
	return v.now.Mono + time.Duration(max(0, wall-v.now.Wall))
}

// zoned is the wall clock's reading in a zone. Where the machine doesn't know
// the zone, there is no reading, and what asks for one doesn't pass.
func (v *view) zoned(zone string) (time.Time, bool) {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return time.Time{}, false
	}
	return v.now.Time().In(loc), true
}

// Window says whether a gate of kind window is open, and at which steady time it
// opens or closes next.
func Window(g *state.Gate, now state.Instant) (pass bool, at time.Duration) {
	v := &view{now: now}
	r := v.window(g)
	return r.Pass, r.wake
}

// window asks for a day of the week and a time of day. A day on which the clocks
// change has the hours that its own clock shows.
func (v *view) window(g *state.Gate) Result {
	r := Result{Gate: g.Kind}
	local, ok := v.zoned(g.Zone)
	if !ok {
		r.Name = "no time zone " + g.Zone
		return r
	}
	r.Pass = open(g, local)
	// It opens or closes at one of these; a week has every day that there is. Where a
	// clock is set forward over one, it does so at the change; where it is set back, the
	// same time comes twice.
	var next time.Time
	consider := func(at time.Time) {
		if at.After(local) && (next.IsZero() || at.Before(next)) && open(g, at) != r.Pass {
			next = at
		}
	}
	year, month, day := local.Date()
	for d := range 9 {
		noon := time.Date(year, month, day+d, 12, 0, 0, 0, local.Location())
		start, end := noon.ZoneBounds()
		consider(start)
		consider(end)
		for _, minute := range []int32{g.From, g.To} {
			at := time.Date(year, month, day+d, 0, int(minute), 0, 0, local.Location())
			consider(at)
			_, was := at.Zone()
			for _, near := range []time.Time{start, end} { // in the other time of a change
				if !near.IsZero() && near.Sub(at).Abs() < 24*time.Hour {
					_, before := near.Add(-1).Zone()
					_, after := near.Zone()
					consider(at.Add(time.Duration(was-before) * time.Second))
					consider(at.Add(time.Duration(was-after) * time.Second))
				}
			}
		}
	}
	if !next.IsZero() {
		r.wake = v.steady(next.UnixNano())
	}
	return r
}

func open(g *state.Gate, local time.Time) bool {
	if g.Days != 0 && g.Days&(1<<local.Weekday()) == 0 {
		return false
	}
	minute := int32(local.Hour()*60 + local.Minute())
	return minute >= g.From && minute < g.To
}

// freezes asks that no freeze is on; the days of both ends belong to it.
func (v *view) freezes() Result {
	r := Result{Gate: state.GateFreeze, Pass: true}
	for _, f := range v.stage.Freezes {
		local, ok := v.zoned(f.Zone)
		if !ok {
			return Result{Gate: state.GateFreeze, Name: "no time zone " + f.Zone}
		}
		first, err := time.Parse(time.DateOnly, f.From)
		last, err2 := time.Parse(time.DateOnly, f.To)
		if err != nil || err2 != nil {
			return Result{Gate: state.GateFreeze, Name: "no day " + f.From + " or " + f.To}
		}
		from, after := begins(first, 0, local.Location()), begins(last, 1, local.Location())
		switch {
		case local.Before(from):
			r.wake = sooner(r.wake, v.steady(from.UnixNano()))
		case local.Before(after):
			r.Pass, r.Name, r.Why = false, f.From+" to "+f.To, f.Why
			r.wake = sooner(r.wake, v.steady(after.UnixNano()))
		}
	}
	return r
}

// begins is when a day, or the one so many after it, begins somewhere: not at midnight
// where the clock is set forward over it.
func begins(date time.Time, later int, loc *time.Location) time.Time {
	year, month, day := date.AddDate(0, 0, later).Date()
	t := time.Date(year, month, day, 0, 0, 0, 0, loc)
	if t.Day() != day {
		_, t = t.ZoneBounds()
	}
	return t
}

// sooner is the earlier of two wake-ups, where 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
