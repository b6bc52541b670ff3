package state

// HoldCode says what a held workload or application waits for.
type HoldCode uint8

// What is waited for: each text is right, but the world isn't ready for it. Logs
// keep the numbers for ever.
const (
	HoldImageUnknown  HoldCode = iota + 1 // an image couldn't be looked up
	HoldImageOS                           // the image index lacks the variant's OS
	HoldNoNode                            // no node could take it, even empty
	HoldNoRoom                            // nodes could, but have no room now
	HoldNodeLost                          // an identity on a lost node isn't started elsewhere
	HoldPrune                             // more objects would go than the limit
	HoldUnsupported                       // a field that this OS can't honour, known from the image index
	HoldPaused                            // spec.paused
	HoldSuspended                         // the application is suspended
	HoldPredecessor                       // an ordered pod waits for the one before it
	HoldConfigMissing                     // a ConfigMap or Secret isn't in the text
	HoldBudget        HoldCode = 24       // pods that should leave their node wait for a disruption budget
	HoldAddress       HoldCode = 32       // the address or node port that a Service asks for can't be given
	HoldRewind        HoldCode = 40       // the branch doesn't follow from what was there before; Params: the revision that waits, the one before it
	HoldDependency    HoldCode = 50       // an application waits for others; Params: the revision that waits, their names
	HoldWindow        HoldCode = 51       // an application's sync windows are shut; Params: the revision that waits
	HoldManual        HoldCode = 52       // an application is synced by hand; Params: the revision that waits
	HoldVolume        HoldCode = 70       // a pod must run where its data is, and can't now; Params: pod, claim, node
	HoldClaimMissing  HoldCode = 71       // a claim isn't in the text
	HoldClaimBusy     HoldCode = 72       // a claim is another pod's (ReadWriteOncePod), or its data is being deleted; Params: the claims
	HoldMove          HoldCode = 73       // an identity goes to the other OS, and its data can't follow; Params: the claims
	HoldQuarantined   HoldCode = 74       // a render that failed isn't applied again; Params: the revision that waits, the one that failed, the one that runs
	HoldRestore       HoldCode = 75       // a revision failed, and there is data that an older program may not read; Params: it, the one to restore
	HoldPriority      HoldCode = 80       // a PriorityClass that the pods name isn't there; Params: its name
	HoldGated         HoldCode = 90       // spec.schedulingGates; Params: their names
)

// A Held is something wanted that a rule says not yet.
type Held struct {
	ID     string   `json:"id" pb:"1"` // "h-41c2"
	Object Ref      `json:"object,omitzero" pb:"2"`
	Code   HoldCode `json:"code" pb:"3"`
	OS     OS       `json:"os,omitempty" pb:"4"`
	Count  int32    `json:"count,omitempty" pb:"5"`  // pods that wait
	Params []string `json:"params,omitempty" pb:"6"` // typed by Code: image names, node names, pod names
	// Decided is the record with every node's reason, for NoNode and NoRoom.
	Decided Seq `json:"decided,omitempty" pb:"7"`
}

// Kind implements Fact.
func (*Held) Kind() Kind { return KindHeld }

// BudgetParam begins those Params of HoldBudget that name a PodDisruptionBudget;
// the others are pods. Where there is none, the workload's own budget refuses.
const BudgetParam = "pdb/"

// SurgeFirst among the Params of HoldNoRoom: a rollout that lets no pod be away
// can't begin without the pod that found no room.
const SurgeFirst = "surge"

// Released ends a hold.
type Released struct {
	ID       string `json:"id" pb:"1"`
	Object   Ref    `json:"object,omitzero" pb:"2"`
	Approved bool   `json:"approved,omitempty" pb:"3"` // by the record's actor; else by the world
}

// Kind implements Fact.
func (*Released) Kind() Kind { return KindReleased }
