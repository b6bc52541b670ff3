// Package floor starts containers with the plainest calls of containerd's
// client.
//
//	cmd/tandem/bench ──► runtimes/containerd/[ floor ] ──► containerd, runc
//
// In: an image that a runtime has unpacked, and a number. Out: how long it takes
// until that many containers run. It is what a pod's start is measured against,
// in the same run on the same machine; nothing that Tandem does for a pod is in
// it: no network, no files of the pod, no record.
package floor
