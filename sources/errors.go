package sources

import "errors"

// The classes of what can go wrong in a source. After any of them Next may be
// called again: it waits by itself and goes on when the world is right again.
var (
	// ErrUnavailable: there is no answer now, or not the one that was asked for.
	// What runs keeps running, and the source tries again.
	ErrUnavailable = errors.New("source unavailable")
	// ErrNotFound comes with ErrUnavailable: the other side answers, and has no
	// such repository, branch or commit.
	ErrNotFound = errors.New("not found")
	// ErrDenied comes with ErrUnavailable: the other side refuses who we are, or
	// we refuse who it is. Somebody has to change a credential or a known host.
	ErrDenied = errors.New("denied")
)
