package plan

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones are the same on every machine that has none

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

// A Calendar says when a CronJob is due. The parser is the one that Kubernetes
// uses (robfig/cron); nothing else of that package is.
type Calendar struct {
	schedule cron.Schedule
	zone     *time.Location
}

// NewCalendar reads a CronJob's schedule and timeZone; none means UTC, as a
// log must mean the same on every machine.
func NewCalendar(schedule string, zone *string) (Calendar, error) {
	c := Calendar{zone: time.UTC}
	if strings.Contains(schedule, "TZ") {
		return c, errors.New("a time zone in the schedule: it has its own field")
	}
	s, err := cron.ParseStandard(schedule)
	if err != nil {
		return c, err
	}
	if s.Next(time.Unix(0, 0).UTC()).IsZero() {
		return c, errors.New("it never is due")
	}
	c.schedule = s
	if zone == nil {
		return c, nil
	}
	if *zone == "" || strings.EqualFold(*zone, "Local") {
		return c, fmt.Errorf("%q is no time zone", *zone)
	}
	if c.zone, err = time.LoadLocation(*zone); err != nil {
		return c, fmt.Errorf("%q is no time zone", *zone)
	}
	return c, nil
}

// NextRun is the first time after t that a CronJob is due, in wall nanoseconds.
func NextRun(c *batchv1.CronJob, t int64) (at int64, ok bool) {
	calendar, err := NewCalendar(c.Spec.Schedule, c.Spec.TimeZone)
	if err != nil {
		return 0, false
	}
	at = calendar.next(t)
	return at, at != 0
}

// next is the first time after t, in wall nanoseconds; 0: never.
func (c Calendar) next(t int64) int64 {
	n := c.schedule.Next(time.Unix(0, t).In(c.zone))
	if n.IsZero() {
		return 0
	}
	return n.UnixNano()
}

// MaxMissed is how many missed times are counted; Kubernetes warns above it.
const MaxMissed = 100

// due is the newest time after since and not after now, and how many before it
// passed as well (up to MaxMissed); 0: there is none.
func (c Calendar) due(since, now int64) (at int64, missed int32) {
	first := c.next(since)
	if first == 0 || first > now {
		return 0, 0
	}
	if every, ok := c.schedule.(cron.ConstantDelaySchedule); ok {
		n := (now - first) / int64(every.Delay)
		return first + n*int64(every.Delay), int32(min(n, MaxMissed))
	}
	// The newest is found from a window that ends now, so that a long pause
	// costs no more than a short one.
	for _, window := range []time.Duration{time.Hour, 24 * time.Hour, 31 * 24 * time.Hour, 366 * 24 * time.Hour, 9 * 366 * 24 * time.Hour} {
		from := max(since, now-int64(window))
		if t := c.next(from); t == 0 || t > now {
			continue
		}
		for t := c.next(from); t != 0 && t <= now; t = c.next(t) {
			at = t
		}
		break
	}
	for t := first; t < at && missed < MaxMissed; t = c.next(t) {
		missed++
	}
	return at, missed
}
