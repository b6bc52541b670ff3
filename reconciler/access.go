package reconciler

import (
	"reflect"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// access takes what a root says of who may do what. An empty root takes nobody's
// role away.
func (m *Machine) access(e *state.RootRendered, empty bool) {
	old := m.fold.Access
	switch {
	case e.Access == nil && (old == nil || empty):
	case e.Access == nil:
		m.emit(state.RootApp, &state.AccessRemoved{Commit: e.Commit})
	default:
		if old != nil {
			same := *old
			same.At = e.Access.At
			if reflect.DeepEqual(&same, e.Access) {
				return
			}
		}
		m.emit(state.RootApp, &state.AccessDeclared{Access: *e.Access, Commit: e.Commit})
	}
}
