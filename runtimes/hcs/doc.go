// Package hcs runs pods on a Windows machine.
//
//	reconciler ──assignment──► agent ──► runtimes/[ hcs ] ──► computecore.dll ──► processes
//	                                            │
//	                                            ├──► computenetwork.dll: networks, endpoints, namespaces
//	                                            └──► vmcompute.dll: layers
//
// In: sandboxes and containers, one call at a time, and images from
// runtimes/images. Out: what runs, level-triggered. A container is a compute
// system with one first process: of schema 2 with process isolation, where the
// containers of a pod share a network namespace, or of schema 1 in a Hyper-V guest
// of its own, which has the pod's endpoint. Compute systems belong to
// Windows' compute service and outlive this process; beside each stays a small
// keeper, another process of this binary, which writes the container's log and
// its exit code while no agent runs. What a pod is lies in a directory below
// Options.Dir, written before anything is made, so that a sweep at start-up can
// tell what belongs to a pod from what a kill left behind.
//
// It refuses by name: HostProcess pods, group managed service accounts and
// Hyper-V pods of several containers. It decides nothing: what should run, probes, restarts and
// volumes are the agent's.
package hcs
