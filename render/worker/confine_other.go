//go:build !linux && !windows

package worker

import (
	"errors"
	"os"
	"os/exec"
	"time"
)

const slack = 0

// confine refuses: there is no code here to hold a process with.
func confine(Limits) error {
	return errors.New("renders are confined on Linux and Windows only: run Tandem on one of them")
}

func processorTime() (time.Duration, error) { return 0, nil }
func program() (string, error)              { return os.Executable() }
func prepare(*exec.Cmd)                     {}
func byKill(error) bool                     { return false }
