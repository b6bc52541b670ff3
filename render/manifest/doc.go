// Package manifest decodes the objects of a rendered tree strictly, gives them
// Kubernetes's defaults, and finds everything that is wrong with them.
//
//	tree ──► overlay ──YAML──► [ manifest ] ──Body or Problems──► overlay ──Manifest──►
//
// In: YAML text. Out: typed objects of k8s.io/api and Applications, with a note
// of every field that has no effect, or every problem with its place. What
// becomes of each field is in fields.go and fieldspod.go. It also knows the stored form of a Manifest, in which
// no secret is in clear. It refuses to know kustomize and where files are kept.
package manifest
