// Package step is what an agent decides, as a deterministic machine.
//
//	assignment ──► [ step ] ──actions──► agent ──calls──► runtime
//	    ▲             ▲  │                                   │
//	controller ◄─report──┘   └──────── observations ─────────┘
//
// In: assignments, what the runtime says exists, how actions ended, results of
// probes, and the time. Out: actions, a report, and when to be called again. It
// has no clock, goroutine, context, file or logger, and knows no runtime: package
// agent drives it for a real one, package simulated for thousands of nodes, and
// the simulation under a seed.
//
// The rules are Kubernetes's: phases, restart policies, back-off, probe
// thresholds, init containers and sidecars.
package step
