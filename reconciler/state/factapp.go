package state

// AppDeclared adds or changes an application.
type AppDeclared struct {
	Application Application `json:"application" pb:"1"`
}

// Kind implements Fact.
func (*AppDeclared) Kind() Kind { return KindAppDeclared }

// AppRemoved says that an application left the root; its objects are pruned
// unless it says otherwise.
type AppRemoved struct {
	Name    AppName  `json:"name" pb:"1"`
	Changes []Change `json:"changes,omitempty" pb:"2"`
}

// Kind implements Fact.
func (*AppRemoved) Kind() Kind { return KindAppRemoved }

// RevisionSeen says that a commit changed nothing in an application's render:
// it counts as applied.
type RevisionSeen struct {
	Revision Revision `json:"revision" pb:"1"`
	Commit   Commit   `json:"commit,omitzero" pb:"2"`
}

// Kind implements Fact.
func (*RevisionSeen) Kind() Kind { return KindRevisionSeen }

// KindRevisionsSeen is RevisionSeen of many.
const KindRevisionsSeen Kind = 195

// RevisionsSeen is RevisionSeen of many applications of one source, which no
// pipeline moves and of which no note is wanted: a commit to a repository of ten
// thousand is one record, not ten thousand.
type RevisionsSeen struct {
	Revision Revision  `json:"revision" pb:"1"`
	Commit   Commit    `json:"commit,omitzero" pb:"2"`
	Apps     []AppName `json:"applications" pb:"3"` // sorted
}

// Kind implements Fact.
func (*RevisionsSeen) Kind() Kind { return KindRevisionsSeen }

// RevisionRejected says that a commit has problems: nothing of it was applied.
type RevisionRejected struct {
	Revision Revision `json:"revision" pb:"1"`
	Commit   Commit   `json:"commit,omitzero" pb:"2"`
	Problems int32    `json:"problems" pb:"3"`
	Detail   Text     `json:"detail,omitzero" pb:"4"` // all problems, as printed
	// Conflicts are objects that another application owns.
	Conflicts []Ref `json:"conflicts,omitempty" pb:"5"`
	// Fixed are fields that it changes and that stay while the object exists.
	Fixed []Fixed `json:"fixed,omitempty" pb:"70"`
}

// Kind implements Fact.
func (*RevisionRejected) Kind() Kind { return KindRevisionRejected }

// A Fixed is a field that can't be changed while its object exists.
type Fixed struct {
	Object Ref    `json:"object" pb:"1"`
	Field  string `json:"field" pb:"2"` // "spec.serviceName"
}

// RevisionApplied says what an application should be from now on.
type RevisionApplied struct {
	Revision Revision `json:"revision" pb:"1"`
	Commit   Commit   `json:"commit,omitzero" pb:"2"`
	Manifest Digest   `json:"manifest" pb:"3"`
	Changes  []Change `json:"changes,omitempty" pb:"4"`
	Restores bool     `json:"restores,omitempty" pb:"70"` // after a revision that failed
}

// Kind implements Fact.
func (*RevisionApplied) Kind() Kind { return KindRevisionApplied }

// Verb is what a revision does to one object.
type Verb uint8

// String is the verb for people.
func (v Verb) String() string {
	names := [...]string{"", "create", "update", "delete", "retire", "adopt", "keep"}
	if int(v) < len(names) {
		return names[v]
	}
	return "unknown"
}

// The verbs of a change.
const (
	Create Verb = iota + 1
	Update
	Delete
	Retire // no longer in the text, kept while a pod needs it
	Adopt  // moved here from another application
	Keep   // left the text, and pruning is off or waits for approval
)

// A Change is what a revision does to one object.
type Change struct {
	Ref    Ref    `json:"ref" pb:"1"`
	Verb   Verb   `json:"verb" pb:"2"`
	Digest Digest `json:"digest,omitzero" pb:"3"` // of the new content
}

// ImageResolved says what an image name means for one manifest of one application.
type ImageResolved struct {
	Manifest Digest `json:"manifest" pb:"1"`
	Image    Image  `json:"image" pb:"2"`
}

// Kind implements Fact.
func (*ImageResolved) Kind() Kind { return KindImageResolved }

// ObjectGone says that a pruned object's last pod is gone, and with it the object.
type ObjectGone struct {
	Ref Ref `json:"ref" pb:"1"`
}

// Kind implements Fact.
func (*ObjectGone) Kind() Kind { return KindObjectGone }

// Converged says that all of an application's revision is there and available.
type Converged struct {
	Revision Revision `json:"revision" pb:"1"`
}

// Kind implements Fact.
func (*Converged) Kind() Kind { return KindConverged }

// Degraded says that an application that had converged no longer has.
type Degraded struct {
	Revision Revision `json:"revision" pb:"1"`
	Object   Ref      `json:"object" pb:"2"` // the first workload that isn't available
}

// Kind implements Fact.
func (*Degraded) Kind() Kind { return KindDegraded }
