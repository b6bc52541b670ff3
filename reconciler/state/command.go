package state

// CommandVerb is what a person asked for.
type CommandVerb uint8

// String is the verb as on the command line.
func (v CommandVerb) String() string {
	switch v {
	case CmdErase:
		return "erase"
	case CmdRotateKey:
		return "rotate key"
	case CmdPortForward:
		return "port-forward"
	case CmdEvict:
		return "evict"
	case CmdMakeToken:
		return "create join token"
	case CmdRevokeToken:
		return "revoke join token"
	case CmdJoin:
		return "join"
	case CmdDropClaim:
		return "delete data"
	default:
	}
	names := [...]string{"", "approve", "cordon", "uncordon", "delete pod", "restart", "remove node", "exec", "down", "sync", "suspend", "resume", "drain", "reject", "promote", "rollback"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// What a person can ask for.
const (
	CmdApprove CommandVerb = iota + 1
	CmdCordon
	CmdUncordon
	CmdDeletePod
	CmdRestart
	CmdRemoveNode
	CmdExec
	CmdDown
	CmdSync
	CmdSuspend
	CmdResume
	CmdDrain
	CmdReject
	CmdPromote
	CmdRollback
)

// Commanded is what a person asked for; what follows from it has this record
// as its cause.
type Commanded struct {
	Verb   CommandVerb `json:"verb" pb:"1"`
	Object Ref         `json:"object,omitzero" pb:"2"` // also Node and Pod
	Reason Text        `json:"reason,omitzero" pb:"3"`
	Detail Text        `json:"detail,omitzero" pb:"4"` // exec: the command line
	Until  int64       `json:"until,omitempty" pb:"5"`
	ID     string      `json:"id,omitempty" pb:"6"` // approve: the hold
}

// Kind implements Fact.
func (*Commanded) Kind() Kind { return KindCommanded }
