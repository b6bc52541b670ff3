package state

import "time"

// An Event is something that the outside tells the machine. The types in this
// file are all there are.
type Event interface{ event() }

// RootRendered is the root at a revision: its applications and its plain
// objects. With problems, neither is used.
type RootRendered struct {
	Revision  Revision
	Commit    Commit
	Apps      []Application
	Pipelines []Pipeline // their Users are tokens already
	Access    *Access    // likewise; nil: the root says nothing of it
	Manifest  *Manifest  // of RootApp
	Rollout   Rollout    // of RootApp
	Problems  []Problem
	Detail    Text // all problems, as printed
	Rewound   bool // the revision doesn't follow from the one that the application has
}

// Rendered is an application at a revision. With problems, nothing of it is applied.
type Rendered struct {
	App      AppName
	Revision Revision
	Commit   Commit
	Manifest *Manifest
	Problems []Problem
	Detail   Text // all problems, as printed
	Rewound  bool // the revision doesn't follow from the one that the application has
}

// Unchanged says that a revision touches nothing that the application's last
// render read.
type Unchanged struct {
	App      AppName
	Revision Revision
	Commit   Commit
	Rewound  bool // the revision doesn't follow from the one that the application has
}

// UnchangedAll says Unchanged, without Rewound, of many applications of one source.
type UnchangedAll struct {
	Apps     []AppName // sorted
	Revision Revision
	Commit   Commit
}

// SourceStatus says whether an application's source answers.
type SourceStatus struct {
	App    AppName
	OK     bool
	Detail Text
}

// ImageLooked answers a LookUp.
type ImageLooked struct {
	App      AppName
	Manifest Digest
	Image    Image
}

// NodeHello is an agent that connects: the first time it joins the node.
type NodeHello struct {
	Node        NodeName
	Facts       NodeFacts
	BootID      string
	Incarnation uint64
}

// Renewed is a lease renewal. It is not recorded; a Grant answers it.
type Renewed struct {
	Node    NodeName
	Session uint64        // that it came in: the answer belongs there
	Sent    time.Duration // the agent's clock when it sent it; 0: of an agent that has no lease
}

// A Grant answers a renewal. It leaves when what the step decided is durable,
// and the node's assignment of Generation before it.
type Grant struct {
	Node       NodeName
	Session    uint64 // of the renewal; 0: the one that is open
	Sent       time.Duration
	Epoch      uint64
	Generation uint64 // of the assignment; an older one is no leave to run an identity
	// Endless: the controller stops cleanly, and nothing moves until the agent
	// has reported to the next.
	Endless bool
}

// Reported is an agent's report.
type Reported struct{ Report Report }

// Command is what a person asks for.
type Command struct {
	ID     uint64 // to answer it
	Verb   CommandVerb
	Object Ref    // a workload, Node, Pod or Application
	Hold   string // approve, reject
	Actor  Text
	Reason Text
	Detail Text
	Until  int64
	Key    string        // rotate key: the public key that is to sign the log from now on
	Grace  time.Duration // delete pod, evict: that the pod is given; 0: what its text says

	// Of promotions.
	Groups   []string // that the actor is in, as who authenticated them says
	Commit   string   // promote: this one; empty: the newest that was tested
	Override bool     // promote: though it is quarantined
	Now      bool     // promote: at once, or not at all
}

// Reviewed answers a ReviewWanted.
type Reviewed struct {
	Pipeline PipelineName
	Stage    string
	From, To string
	Lost     bool // nothing could be found out: Detail says why
	Commits  int32
	Authors  []Text
	Unsigned int32
	Forward  bool
	Manifest *Manifest // of the target's render of To; nil with problems
	Problems int32
	Detail   Text
}

// Pushed answers a Push.
type Pushed struct {
	ID      string
	Outcome PromotionOutcome // 0: the repository doesn't answer, it is tried again
	Found   string
	Detail  Text
	Grown   bool // conflict: Found goes on from what was expected there
}

// Checked is what a system outside says of a commit; who says it was verified.
type Checked struct {
	Pipeline PipelineName
	Stage    string
	Name     string
	Commit   string
	OK       bool
	Detail   Text
	Time     int64 // when it was said, by whoever said it: wall nanoseconds
}

// Stop is a clean stop of the controller: nodes are parked.
type Stop struct{}

func (*RootRendered) event() {}
func (*Rendered) event()     {}
func (*Unchanged) event()    {}
func (*UnchangedAll) event() {}
func (*SourceStatus) event() {}
func (*ImageLooked) event()  {}
func (*NodeHello) event()    {}
func (*Renewed) event()      {}
func (*Reported) event()     {}
func (*Command) event()      {}
func (*Stop) event()         {}
func (*Reviewed) event()     {}
func (*Pushed) event()       {}
func (*Checked) event()      {}

// An Effect is something for the shell to do that isn't an assignment.
type Effect interface{ effect() }

// LookUp asks what an image name means; the answer is ImageLooked.
type LookUp struct {
	App      AppName
	Manifest Digest
	Image    string
	Secrets  []*Object // pull Secrets of the pods that name it, in order
}

// Reply answers a Command.
type Reply struct {
	ID        uint64
	Code      ReplyCode
	Seq       Seq    // the record made of it
	Why       string // of a refusal, where the code alone doesn't say it; holds no personal data
	Promotion string // that was opened
}

// ReviewWanted asks what going from a branch's head to a commit means; the answer is
// Reviewed.
type ReviewWanted struct {
	Pipeline PipelineName
	Stage    string
	App      AppName
	Source   AppSource // of the branch
	From, To string
}

// Push asks to move a branch; the answer is Pushed. It may come again after a
// crash: whoever pushes looks first, and a branch that is at New is done.
type Push struct {
	ID     string
	Source AppSource
	Old    string
	New    string
	Object []byte  // the commit to make; empty: New is in the repository
	App    AppName // that follows the branch
}

// ReplyCode says what became of a command.
type ReplyCode uint8

// What became of a command.
const (
	ReplyDone ReplyCode = iota + 1
	ReplyNotFound
	ReplyRefused // it makes no sense in this state
)

func (*LookUp) effect()       {}
func (*Reply) effect()        {}
func (*ReviewWanted) effect() {}
func (*Push) effect()         {}
