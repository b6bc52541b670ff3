// Package act runs the machine for real: goroutines, timers, the log, sources
// and the fan-out to agents.
//
//	sources ──► render ──► [ act ( machine ) ] ──assignment──► runtimes
//	                          │        ▲
//	                          ▼        └── reports, commands
//	                        history
//
// In: snapshots, reports, commands. Out: what the machine decided, each record
// durable before anything that follows from it leaves. It decides nothing.
package act
