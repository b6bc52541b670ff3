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
	// It opens or closes at one of these; a week has every day that there is.
	year, month, day := local.Date()
	for d := range 9 {
		for _, minute := range []int32{g.From, g.To} {
			at := time.Date(year, month, day+d, 0, int(minute), 0, 0, local.Location())
			if at.After(local) && open(g, at) != r.Pass {
				r.wake = v.steady(at.UnixNano())
				return r
			}
		}
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
		from, err := time.ParseInLocation(time.DateOnly, f.From, local.Location())
		to, err2 := time.ParseInLocation(time.DateOnly, f.To, local.Location())
		if err != nil || err2 != nil {
			return Result{Gate: state.GateFreeze, Name: "no day " + f.From + " or " + f.To}
		}
		year, month, day := to.Date()
		after := time.Date(year, month, day+1, 0, 0, 0, 0, local.Location())
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

// sooner is the earlier of two wake-ups, where 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
