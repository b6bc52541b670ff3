// Package e2e is the whole product as its users have it: the real program, real
// containerd, real repositories, and what can go wrong between them. It has
// tests only.
//
//	tests ──► [ tandem up, kubectl, SIGKILL ] ──► processes
package e2e
