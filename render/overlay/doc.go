// Package overlay renders a path of a tree with kustomize, once per operating
// system, and merges what comes out into one manifest.
//
//	sources ──Snapshot──► [ overlay ──► manifest ──► overlay ] ──Manifest──► reconciler
//
//	walk      our own reading of every kustomization: refuses what would leave the tree, knows every line
//	build     kustomize's Go API on a read-only view, so that the bytes are kustomize's own
//	pairs     where a path goes through linux/ and windows/ lies beside it, once more with the other one
//	chart     a Helm chart at the path, by package helm, from the same view
//	merge     equal objects are one; a workload that says its OS in both is one with two variants
//
// In: a tree and an Application. Out: a Manifest, or every problem of the text.
// It refuses to know the network, other processes and the disk: kustomize never
// sees a reference that would lead there.
package overlay
