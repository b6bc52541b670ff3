// Package bootclock reads the clock that goes on while the machine sleeps, and
// tells one boot from another.
//
//	kernel ──► [ bootclock ] ──► agent, fencer
//
// Leases go by this clock (decision 7): Go's own stands still in suspend. It
// refuses to know what time it is for people.
package bootclock
