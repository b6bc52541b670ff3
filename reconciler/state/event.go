package state

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
	Manifest  *Manifest  // of RootApp
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

// Renewed is a lease renewal. It is not recorded.
type Renewed struct {
	Node NodeName
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
}

// Stop is a clean stop of the controller: nodes are parked.
type Stop struct{}

func (*RootRendered) event() {}
func (*Rendered) event()     {}
func (*Unchanged) event()    {}
func (*SourceStatus) event() {}
func (*ImageLooked) event()  {}
func (*NodeHello) event()    {}
func (*Renewed) event()      {}
func (*Reported) event()     {}
func (*Command) event()      {}
func (*Stop) event()         {}

// An Effect is something for the shell to do that isn't an assignment.
type Effect interface{ effect() }

// LookUp asks what an image name means; the answer is ImageLooked.
type LookUp struct {
	App      AppName
	Manifest Digest
	Image    string
}

// Reply answers a Command.
type Reply struct {
	ID   uint64
	Code ReplyCode
	Seq  Seq // the record made of it
}

// ReplyCode says what became of a command.
type ReplyCode uint8

// What became of a command.
const (
	ReplyDone ReplyCode = iota + 1
	ReplyNotFound
	ReplyRefused // it makes no sense in this state
)

func (*LookUp) effect() {}
func (*Reply) effect()  {}
