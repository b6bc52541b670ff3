// Package doctor looks at a machine and says what it lacks to be a node, each
// with what to do.
//
//	machine ──► [ doctor ] ──findings──► people
//
// In: the machine as it is, and what it remembers of a controller. It changes
// nothing that stays, and refuses to mend anything.
package doctor
