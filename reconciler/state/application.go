package state

// Application is what `kind: Application` of tandem.dev/v1 says: which text of
// which repository should run.
type Application struct {
	Name      AppName   `json:"name" pb:"1"`
	Source    AppSource `json:"source,omitzero" pb:"2"`
	Path      string    `json:"path,omitempty" pb:"3"`      // in the repository; "." where empty
	Namespace string    `json:"namespace,omitempty" pb:"4"` // for objects that name none
	Variants  []OS      `json:"variants,omitempty" pb:"5"`  // empty: found by the pair rule
	Prune     Prune     `json:"prune,omitzero" pb:"6"`
	Suspend   Suspend   `json:"suspend,omitzero" pb:"7"`
	At        Origin    `json:"at,omitzero" pb:"8"` // where the Application itself was written
	// Substitute has the values of ${variables} in the text; nil: text is taken as it is.
	Substitute map[string]string `json:"substitute,omitempty" pb:"9"`
	Helm       Helm              `json:"helm,omitzero" pb:"10"`
	DependsOn  []AppName         `json:"dependsOn,omitempty" pb:"12"` // applied only while these are as their text says
	Sync       SyncMode          `json:"sync,omitempty" pb:"13"`
	// SyncWindows are times in which a revision may be applied, as gates of kind
	// window; empty: always.
	SyncWindows []Gate `json:"syncWindows,omitempty" pb:"14"`
	// IgnoreKinds are kinds whose objects are left out of what is rendered.
	IgnoreKinds []string `json:"ignoreKinds,omitempty" pb:"11"`
	Rollout     Rollout  `json:"rollout,omitzero" pb:"70"`
	// Notes is where its repository is told what is deployed: "tandem/prod" below
	// refs/notes; empty: nowhere.
	Notes string `json:"notes,omitempty" pb:"115"`
}

// SyncMode says who lets a revision be applied.
type SyncMode uint8

// Who lets a revision be applied.
const (
	SyncAuto   SyncMode = iota // nobody needs to
	SyncManual                 // a person: `tandem sync APP`
)

// String is the mode as it is written.
func (m SyncMode) String() string {
	if m == SyncManual {
		return "manual"
	}
	return "auto"
}

// AppSuspended is a person's word that an application is not to be changed, or
// may be again. It stands beside what Git says.
type AppSuspended struct {
	On    bool  `json:"on,omitempty" pb:"1"`
	Until int64 `json:"until,omitempty" pb:"2"` // wall nanoseconds; 0: until resumed
}

// Kind implements Fact.
func (*AppSuspended) Kind() Kind { return KindAppSuspended }

// SuspendedAt says whether an application is suspended at a wall time, in Git or
// by a person, and until when; 0: until somebody ends it.
func (a *App) SuspendedAt(wall int64) (until int64, on bool) {
	for _, s := range []Suspend{a.Spec.Suspend, a.Suspended} {
		if !s.On || s.Until > 0 && s.Until <= wall {
			continue
		}
		if s.Until == 0 {
			return 0, true
		}
		until, on = max(until, s.Until), true
	}
	return until, on
}

// Helm says how the chart at an application's path is rendered. Values lie in
// files, never here: they may be secret.
type Helm struct {
	Release    string   `json:"releaseName,omitempty" pb:"1"` // the application's name where empty
	ValueFiles []string `json:"valueFiles,omitempty" pb:"2"`  // relative to the path; later ones win
}

// IsZero says that nothing is said.
func (h Helm) IsZero() bool { return h.Release == "" && len(h.ValueFiles) == 0 }

// AppSource says where an application's text comes from. Empty means the
// repository and ref that the Application came from.
type AppSource struct {
	Repo   string `json:"repo,omitempty" pb:"1"`
	Ref    string `json:"ref,omitempty" pb:"2"` // a branch
	Commit string `json:"commit,omitempty" pb:"3"`
	Tag    string `json:"tag,omitempty" pb:"4"`    // a tag's short name
	Semver string `json:"semver,omitempty" pb:"5"` // a range of versions; the highest tag in it
	Verify Verify `json:"verify,omitzero" pb:"6"`
}

// Verify says who must have signed the commits of a source.
type Verify struct {
	Mode    VerifyMode `json:"mode" pb:"1"`    // 0: nobody must
	Signers string     `json:"signers" pb:"2"` // a file, or a directory of files, in the root's repository
}

// VerifyMode says which commits must be signed.
type VerifyMode uint8

// Which commits must be signed.
const (
	VerifyHead   VerifyMode = iota + 1 // the one that is rendered
	VerifyStrict                       // also those that it follows from, since the one that runs
)

// String is the mode as it is written.
func (m VerifyMode) String() string {
	names := [...]string{"", "head", "strict"}
	if int(m) < len(names) {
		return names[m]
	}
	return "unknown"
}

// Prune says whether objects that left the text are removed.
type Prune struct {
	Disabled   bool  `json:"disabled,omitempty" pb:"1"`
	MaxDeletes int32 `json:"maxDeletes,omitempty" pb:"2"` // more wait for approval; 0 means 10
}

// Suspend says that an application is not to be changed.
type Suspend struct {
	On     bool   `json:"on,omitempty" pb:"1"`
	Reason string `json:"-"`
	Until  int64  `json:"until,omitempty" pb:"2"` // wall nanoseconds; 0: until resumed
}
