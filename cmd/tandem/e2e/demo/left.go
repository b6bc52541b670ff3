package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// nothingLeft waits until no process and no mount of the demo is left, or says which.
func nothingLeft(ctx context.Context, dir string) error {
	for {
		left := append(mountsBelow(dir), processesOf(dir)...)
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("left behind: %s", strings.Join(left, "; "))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// mountsBelow lists what is mounted below dir: file systems, and the pinned
// namespaces of pods.
func mountsBelow(dir string) []string {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil // no such file: no such mounts
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir) {
			found = append(found, "mount "+fields[1])
		}
	}
	return found
}

// processesOf lists the processes whose command line names dir.
func processesOf(dir string) []string {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var found []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), dir) {
			continue // it has ended, or is not the demo's
		}
		found = append(found, fmt.Sprintf("process %s: %s", filepath.Base(filepath.Dir(file)), strings.ReplaceAll(string(text), "\x00", " ")))
	}
	return found
}
