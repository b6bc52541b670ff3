//go:build !linux

package watch

// limitRemedy knows the limits of inotify alone, which is not here.
func limitRemedy(error) string { return "" }
