package agent

import (
	"cmp"
	"fmt"

	"github.com/tandem-gitops/tandem/runtimes"
)

// The version of the wire. A new field doesn't raise it: who doesn't know it
// skips it, and it must do no harm to be without it. What changes the meaning of
// a frame does; each release still understands the version before its own, so
// that agents and controller can be upgraded one after the other, in any order.
const (
	wireVersion = 1
	wireLeast   = 1 // that this program understands
)

// speaks says which versions of the wire an end understands. It goes along with
// hello and welcome; an end that sends none is of version 1.
type speaks struct {
	Version uint32 `pb:"1"`
	Least   uint32 `pb:"2"`
	Program string `pb:"3"` // the version of tandem, for people
}

func spoken(program string) *speaks {
	return &speaks{Version: wireVersion, Least: wireLeast, Program: program}
}

// understands says whether this end and another are close enough. Me and other
// say which ends they are, and whom to upgrade.
func (s *speaks) understands(o *speaks, me, other string) error {
	if o == nil {
		o = &speaks{Version: 1, Least: 1}
	}
	name := func(what string, x *speaks) string {
		return what + " (tandem " + cmp.Or(x.Program, "of an unknown version") + ")"
	}
	upgrade := ""
	switch {
	case o.Version < s.Least:
		upgrade = other
	case o.Least > s.Version:
		upgrade = me
	default:
		return nil
	}
	return fmt.Errorf("%s speaks versions %d to %d of the wire, %s speaks %d to %d: they are too many releases apart; upgrade %s, one release after the other: %w",
		name(other, o), o.Least, o.Version, name(me, s), s.Least, s.Version, upgrade, runtimes.ErrRejected)
}
