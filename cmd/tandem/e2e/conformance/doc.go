// Package conformance holds three Linux nodes to what people know of Kubernetes.
//
//	directory ──► [ controller ] ──► three agents, each with containerd ──► pods
//	                                     in network namespaces of one machine
//
// Its checks are named after the cases of Kubernetes's own conformance suite
// that they follow. The nodes are started once; the checks share them, each with
// an Application and a namespace of its own. At the end nothing is left.
package conformance
