// Package fencer is the process that ends a node's identities in time when the
// agent can't: it hangs, crashes again and again, or its runtime doesn't answer.
//
//	agent ──socket──► [ fencer ] ──► control groups (Linux), compute systems (Windows)
//	  starts it            └── fence.Machine decides
//
// In: the agent's Words (package fence). Out: killed processes, a note of them
// for the agent. It needs neither agent nor containerd to kill, and refuses to
// know what a pod is beyond its UID, and where its processes are.
package fencer
