// Package runtimetest holds every runtime to the text of runtimes.Runtime: Run
// directly, Agent under a real agent, in-process and across the wire.
//
//	sources ──► render ──► reconciler ──► agent ──► runtime ◄── [ runtimetest ]
package runtimetest
