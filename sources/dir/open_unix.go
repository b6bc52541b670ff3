//go:build unix

package dir

import "syscall"

// openFlags keep an open from waiting for a writer, should a file have become a
// pipe since it was listed.
const openFlags = syscall.O_NONBLOCK
