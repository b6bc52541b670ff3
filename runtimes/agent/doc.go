// Package agent makes the assigned pods true on one node.
//
//	sources ──► render ──► reconciler ◄──Link──► [ agent ] ──► runtime ──► machines
//	                                              step
//
// In: assignments, through a Link; what exists, from a Runtime. Out: calls of
// the runtime, and reports. Package step decides; this package has the
// goroutines, timers, files and sockets. It knows no operating system but for
// how a tmpfs is mounted, and no control plane but through Link.
//
// The controller's end of every Link is a Hub: in-process for nodes of the same
// process, gRPC over mTLS for others. No port on a node is open.
package agent
