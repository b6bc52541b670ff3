package state

// KindJoinTokenNoted is of the outcome of what was done with a join token.
const KindJoinTokenNoted Kind = 165

// What a person, or a machine, can do with join tokens. A command of these is
// recorded, and changes nothing else: tokens lie beside the log.
const (
	CmdMakeToken   CommandVerb = 165 // Object: the JoinToken; Until: when it expires
	CmdRevokeToken CommandVerb = 166
	CmdJoin        CommandVerb = 167 // Object: the Node that a certificate is made for; Hold: the token's ID, where one paid for it
)

// OfToken says whether a command is about a join token: JoinTokenNoted is its outcome.
func (v CommandVerb) OfToken() bool {
	return v == CmdMakeToken || v == CmdRevokeToken || v == CmdJoin
}

// TokenOutcome says what became of a join token.
type TokenOutcome uint8

// What becomes of join tokens.
const (
	TokenMade TokenOutcome = iota + 1
	TokenRevoked
	TokenUsed   // its Node got a certificate
	TokenFailed // what was asked for could not be done
	TokenLost   // the controller ended meanwhile: nobody knows whether its Node got a certificate
)

// String says it in a word.
func (o TokenOutcome) String() string {
	names := [...]string{"", "made", "revoked", "used", "failed", "lost"}
	if int(o) < len(names) {
		return names[o]
	}
	return "unknown"
}

// JoinTokenNoted is the outcome of making, revoking or using a join token; its
// cause is the Commanded before it. The token's secret is nowhere in the log.
type JoinTokenNoted struct {
	ID      string       `json:"id" pb:"1"` // empty: a node that paid with its expired certificate
	Outcome TokenOutcome `json:"outcome" pb:"2"`
	Expires int64        `json:"expires,omitempty" pb:"3"` // wall nanoseconds
	Uses    int32        `json:"uses,omitempty" pb:"4"`    // that are left; 0: any number, or none is left
	Many    bool         `json:"many,omitempty" pb:"5"`    // any number of machines may use it
	Node    NodeName     `json:"node,omitempty" pb:"6"`    // the only one that it is for; the one that used it
}

// Kind implements Fact.
func (*JoinTokenNoted) Kind() Kind { return KindJoinTokenNoted }

// JoinTokenTold tells the machine what became of a join token.
type JoinTokenTold struct {
	Cause Seq  // of the Commanded
	Actor Text // who asked
	JoinTokenNoted
}

func (*JoinTokenTold) event() {}
