package reconciler

import "github.com/tandem-gitops/tandem/reconciler/state"

// Fold makes a step of which the decision is given, as the parts of the machine
// that look after workloads would make it.
func (m *Machine) Fold(now state.Instant, app state.AppName, facts ...state.Fact) Output {
	m.begin(now)
	for _, f := range facts {
		m.emit(app, f)
	}
	return m.finish()
}
