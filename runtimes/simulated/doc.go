// Package simulated has nodes that run nothing, of any operating system and
// build, with faults on request.
//
//	sources ──► render ──► reconciler ──► agent ──► [ simulated ]
//
// A Runtime stands under a real agent, as containerd does, and passes the same
// conformance suite. A Fleet is thousands of nodes in one process: it drives
// the agent's step machines itself, without a goroutine or file for any pod.
package simulated
