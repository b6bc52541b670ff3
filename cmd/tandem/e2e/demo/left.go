package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// runDir is where a Linux node keeps what must not survive a reboot.
const runDir = "/run/tandem"

// mark notes that whatever bears this name on the machine is the demo's.
func (s *stage) mark(name string) {
	if !slices.Contains(s.marks, name) {
		s.marks = append(s.marks, name)
	}
}

// markPods notes the pods' UIDs, and the directory below runDir that holds them.
func (s *stage) markPods(pods []corev1.Pod) {
	for i := range pods {
		s.mark(string(pods[i].UID))
	}
	nodes, err := os.ReadDir(runDir)
	if err != nil {
		return // no real node on this machine
	}
	for _, node := range nodes {
		dir := filepath.Join(runDir, node.Name())
		holds := func(name string, _ fs.DirEntry, err error) error {
			if err == nil && s.marked(filepath.Base(name)) {
				s.mark(dir)
				return fs.SkipAll
			}
			return nil // what vanishes meanwhile is no pod
		}
		if err := filepath.WalkDir(dir, holds); err != nil {
			continue
		}
	}
}

func (s *stage) marked(text string) bool {
	return slices.ContainsFunc(s.marks, func(m string) bool { return strings.Contains(text, m) })
}

// nothingLeft waits until nothing of the demo is left but its own directory, or
// says what is.
func (s *stage) nothingLeft(ctx context.Context) error {
	for {
		left := slices.Concat(s.mounts(), s.processes(), s.directories(), s.tables(ctx))
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

// mounts lists file systems and pinned namespaces.
func (s *stage) mounts() []string {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil // no such file: no such mounts
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if s.marked(line) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	return found
}

// tables lists the node's rules for Services.
func (s *stage) tables(ctx context.Context) []string {
	if !s.real {
		return nil
	}
	sum := sha256.Sum256([]byte(filepath.Join(s.data, "node")))
	name := fmt.Sprintf("tandem-%x", sum[:4])
	text, err := exec.CommandContext(ctx, "nft", "list", "tables").CombinedOutput()
	if err != nil {
		return []string{fmt.Sprintf("unknown tables: nft: %v: %s", err, text)}
	}
	if strings.Contains(string(text), name) {
		return []string{"nftables table " + name}
	}
	return nil
}

// processes lists those whose command line or control group is marked.
func (s *stage) processes() []string {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		panic(err) // the pattern is malformed
	}
	var found []string
	for _, dir := range dirs {
		command, errCommand := os.ReadFile(filepath.Join(dir, "cmdline"))
		group, errGroup := os.ReadFile(filepath.Join(dir, "cgroup"))
		if errCommand == nil && errGroup == nil && (s.marked(string(command)) || s.marked(string(group))) {
			found = append(found, fmt.Sprintf("process %s %q", filepath.Base(dir), strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return found
}

// directories lists control groups (version 1 has one tree a controller) and
// what lies in runDir.
func (s *stage) directories() []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/tandem/*/*", "/sys/fs/cgroup/*/tandem/*/*", runDir + "/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			panic(err) // the pattern is malformed
		}
		for _, name := range names {
			if s.marked(name) {
				found = append(found, "directory "+name)
			}
		}
	}
	return found
}
