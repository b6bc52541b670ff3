package state

import (
	"time"
)

// LogStarted is the first record of every log.
type LogStarted struct {
	ID     Digest `json:"id" pb:"1"`
	Format uint32 `json:"format" pb:"2"`
}

// Kind implements Fact.
func (*LogStarted) Kind() Kind { return KindLogStarted }

// ControllerStarted marks a controller's start; nodes count as renewed then.
type ControllerStarted struct {
	Version string `json:"version" pb:"1"`
}

// Kind implements Fact.
func (*ControllerStarted) Kind() Kind { return KindControllerStarted }

// ControllerStopped marks a clean stop: every node is parked.
type ControllerStopped struct{}

// Kind implements Fact.
func (*ControllerStopped) Kind() Kind { return KindControllerStopped }

// ClockStepped says that the wall clock moved against the steady one.
type ClockStepped struct {
	By time.Duration `json:"by" pb:"1"`
}

// Kind implements Fact.
func (*ClockStepped) Kind() Kind { return KindClockStepped }

// SourceLost says that an application's source doesn't answer.
type SourceLost struct {
	Detail Text `json:"detail,omitzero" pb:"1"`
}

// Kind implements Fact.
func (*SourceLost) Kind() Kind { return KindSourceLost }

// SourceBack says that it answers again.
type SourceBack struct{}

// Kind implements Fact.
func (*SourceBack) Kind() Kind { return KindSourceBack }
