// Package fence decides when a node's identities must end, for a process that
// does it when the agent can't.
//
//	agent ──Word──► [ fence ] ──Act──► control groups, job objects
//	                    └──Answer──► agent
//
// In: what the agent was granted and which identities it has, whether it is
// still there, and the time. Out: what to open, to ask to end, to shut. It
// refuses to know sockets, clocks and how a process is killed (package fencer).
package fence
