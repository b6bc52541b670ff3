package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestWhatIsLeftIsNoticed(t *testing.T) {
	dir := t.TempDir()
	s := &stage{}
	s.mark(dir)
	if err := s.nothingLeft(t.Context()); err != nil {
		t.Fatalf("nothing was started: %v", err)
	}

	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read wait", dir)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A process that has just begun has no command line yet.
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the process has the command line %q: %v", line, err)
		}
		if strings.Contains(string(line), dir) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = s.nothingLeft(ctx)
	if err == nil || !strings.Contains(err.Error(), "process ") {
		t.Errorf("a process that names %s was not noticed: %v", dir, err)
	}
	if err := input.Close(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // read fails at the end of its input
	if err := s.nothingLeft(t.Context()); err != nil {
		t.Errorf("the process has ended: %v", err)
	}
}

func TestTheNewVersionsAreCommitted(t *testing.T) {
	s := &stage{repo: t.TempDir()}
	file := filepath.Join(s.repo, "dev", "kustomization.yaml")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("images: [{newTag: 9.9.9}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.commitImages(t.Context()); err == nil {
		t.Error("committed although the file says none of the versions to replace")
	}
}
