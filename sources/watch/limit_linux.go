package watch

import (
	"errors"
	"syscall"
)

// limitRemedy says what to raise where the kernel has no room for more watches.
func limitRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "no more directories can be watched: raise fs.inotify.max_user_watches with sysctl"
	case errors.Is(err, syscall.EMFILE):
		return "no more watchers can be opened: raise fs.inotify.max_user_instances with sysctl"
	default:
		return ""
	}
}
