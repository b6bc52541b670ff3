//go:build !linux

package worker_test

func systemCalls() map[string]func() error { return nil }
