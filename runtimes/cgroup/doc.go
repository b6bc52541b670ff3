// Package cgroup ends what runs in a control group, surely, and removes the
// group: in version 1 a directory in each hierarchy, in version 2 one. It is the
// kernel's own account of who belongs to a pod: what a shim or runc forgot, or
// never knew, is in it.
//
//	runtime, fencer ──► [ cgroup: freeze, kill, thaw, remove ] ──► kernel
//
// It knows no pods and no limits. It exists on Linux alone.
package cgroup
