package fencer

import "github.com/tandem-gitops/tandem/reconciler/state"

// Cells are the pods' processes as the machine itself knows them. All are safe
// for concurrent use, and may be asked again.
type Cells interface {
	// Open lets processes of the pod begin.
	Open(uid state.UID) error
	// Term asks the pod's containers to end.
	Term(uid state.UID) error
	// Shut lets no process of the pod begin, where the system can forbid it,
	// kills those that run, and returns nil when none is left. It says how many
	// it killed: processes, on Windows containers.
	Shut(uid state.UID) (killed int, err error)
	// Drop takes away what Shut left.
	Drop(uid state.UID) error
}

// A Killing is what the fencer did in the agent's stead.
type Killing struct {
	UID       state.UID `json:"uid"`
	At        int64     `json:"at"` // wall nanoseconds
	Processes int       `json:"processes"`
}
