// Package containerd runs pods on a Linux machine.
//
//	reconciler ──assignment──► agent ──► runtimes/[ containerd ] ──► containerd, runc ──► processes
//	                                                  │
//	                                                  └──► namespaces, veths, cgroups
//
// In: sandboxes and containers, one call at a time, and images from
// runtimes/images. Out: what runs, level-triggered. The daemon is a private
// child with its own root, state and socket that outlives this process and is
// adopted by the next; a pod has no pause container but namespaces pinned by
// bind mounts. What a pod is lies in a directory below /run, written before
// anything is made, so that a sweep at start-up can tell what belongs to a pod
// from what a kill left behind. It decides nothing: what should run, probes,
// restarts and volumes are the agent's.
package containerd
