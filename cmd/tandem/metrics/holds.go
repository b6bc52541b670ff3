package metrics

import (
	"fmt"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// holdName is what is waited for, as a label.
func holdName(c state.HoldCode) string {
	switch c {
	case state.HoldImageUnknown:
		return "image_unknown"
	case state.HoldImageOS:
		return "image_os"
	case state.HoldNoNode:
		return "no_node"
	case state.HoldNoRoom:
		return "no_room"
	case state.HoldNodeLost:
		return "node_lost"
	case state.HoldPrune:
		return "prune"
	case state.HoldUnsupported:
		return "unsupported"
	case state.HoldPaused:
		return "paused"
	case state.HoldSuspended:
		return "suspended"
	case state.HoldPredecessor:
		return "predecessor"
	case state.HoldConfigMissing:
		return "config_missing"
	case state.HoldBudget:
		return "disruption_budget"
	case state.HoldPriority:
		return "priority_class"
	case state.HoldAddress:
		return "service_address"
	case state.HoldVolume:
		return "volume"
	case state.HoldClaimMissing:
		return "claim_missing"
	case state.HoldQuarantined:
		return "quarantined"
	case state.HoldRestore:
		return "restore"
	case state.HoldMove:
		return "move"
	case state.HoldClaimBusy:
		return "claim_busy"
	case state.HoldDependency:
		return "dependency"
	case state.HoldWindow:
		return "window"
	case state.HoldManual:
		return "manual"
	case state.HoldGated:
		return "scheduling_gate"
	case state.HoldRewind:
		return "rewind"
	}
	return fmt.Sprintf("code_%d", c) // of a newer version's log
}
