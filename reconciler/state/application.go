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
	// IgnoreKinds are kinds whose objects are left out of what is rendered.
	IgnoreKinds []string `json:"ignoreKinds,omitempty" pb:"11"`
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
