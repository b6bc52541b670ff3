package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/substitute"
	"github.com/tandem-gitops/tandem/sources/refs"
)

// application is kind Application of tandem.dev/v1 as it is written.
type application struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              applicationSpec `json:"spec,omitzero"`
}

type applicationSpec struct {
	Source    applicationSource   `json:"source,omitzero"`
	Path      string              `json:"path,omitempty"`
	Namespace string              `json:"namespace,omitempty"`
	Variants  []string            `json:"variants,omitempty"`
	Prune     applicationPrune    `json:"prune,omitzero"`
	Suspend   *applicationSuspend `json:"suspend,omitempty"`

	Substitute  map[string]string `json:"substitute,omitempty"`
	Helm        *applicationHelm  `json:"helm,omitempty"`
	IgnoreKinds []string          `json:"ignoreKinds,omitempty"`
	Notes       string            `json:"notes,omitempty"`

	DependsOn   []string     `json:"dependsOn,omitempty"`
	Sync        string       `json:"sync,omitempty"`
	SyncWindows []gateWindow `json:"syncWindows,omitempty"`

	// What a later version reads: known, so that it is refused by name.
	Target any `json:"target,omitempty"`

	Rollout *applicationRollout `json:"rollout,omitempty"`
}

type applicationRollout struct {
	OnFailure     string `json:"onFailure,omitempty"`
	HealthTimeout string `json:"healthTimeout,omitempty"`

	// Known, so that it is refused by name.
	OSOrder any `json:"osOrder,omitempty"`
}

// notesName is where notes may lie, below refs/notes.
var notesName = regexp.MustCompile(`^tandem/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

type applicationSource struct {
	Repo   string `json:"repo,omitempty"`
	Ref    string `json:"ref,omitempty"`
	Commit string `json:"commit,omitempty"`
	Tag    string `json:"tag,omitempty"`
	Semver string `json:"semver,omitempty"`

	Verify *applicationVerify `json:"verify,omitempty"`
}

type applicationVerify struct {
	Mode    string `json:"mode,omitempty"`
	Signers string `json:"signers,omitempty"`
}

type applicationHelm struct {
	ReleaseName string   `json:"releaseName,omitempty"`
	ValueFiles  []string `json:"valueFiles,omitempty"`

	// Known, so that they are refused by name.
	Values     any `json:"values,omitempty"`
	Parameters any `json:"parameters,omitempty"`
}

type applicationPrune struct {
	Enabled    *bool  `json:"enabled,omitempty"`
	MaxDeletes *int32 `json:"maxDeletes,omitempty"`
}

type applicationSuspend struct {
	Reason string       `json:"reason,omitempty"`
	Until  *metav1.Time `json:"until,omitempty"`
}

func (d *Decoder) tandem(v *Value, apiVersion string, ref state.Ref, place Place) (Decoded, []state.Problem) {
	fail := func(key, cause, remedy string) (Decoded, []state.Problem) {
		p := Path(nil).Key(key)
		return Decoded{Ref: ref}, []state.Problem{{Object: ref, Field: key, At: place(p, v.Find(key)), Cause: cause, Remedy: remedy}}
	}
	switch {
	case !d.options.Root:
		return fail("kind", ref.Kind+" of "+apiGroup+" below an Application: only the root may have any", "move it to the root's path")
	case ref.Kind != "Application" && ref.Kind != "ApplicationSet" && ref.Kind != "Pipeline" && ref.Kind != "Access":
		return fail("kind", fmt.Sprintf("Tandem does not know kind %s (%s) yet", clip(ref.Kind), apiVersion), "remove it; kinds of "+apiGroup+"/v1: Application, ApplicationSet, Pipeline, Access")
	case apiVersion != apiGroup+"/v1":
		return fail("apiVersion", "want "+apiGroup+"/v1, got "+clip(apiVersion), "apiVersion: "+apiGroup+"/v1")
	}
	ref.Namespace = ""
	if ref.Kind == "ApplicationSet" {
		return d.set(v, ref, place)
	}
	if ref.Kind == "Pipeline" {
		return d.pipeline(v, ref, place)
	}
	if ref.Kind == "Access" {
		return d.access(v, ref, place)
	}
	var a application
	c := &checker{object: ref, place: place, fields: d.fields}
	raw := c.check(v, &a)
	if len(c.problems) > 0 {
		return Decoded{Ref: ref}, c.problems
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return fail("spec", "can't be decoded: "+err.Error(), "compare it with the documentation")
	}
	val := &validator{object: ref, place: place, value: v}
	app := val.application(&a)
	app.At = place(Path(nil).Key("metadata", "name"), v.Find("metadata").Find("name"))
	return Decoded{Ref: ref, App: &app}, val.problems
}

// read decodes a Tandem kind strictly, for a validator to go on with.
func (d *Decoder) read(v *Value, into any, ref state.Ref, place Place) (*validator, []state.Problem) {
	c := &checker{object: ref, place: place, fields: d.fields}
	raw := c.check(v, into)
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return nil, []state.Problem{{Object: ref, At: place(nil, v), Cause: "can't be decoded: " + err.Error(), Remedy: "compare it with the documentation"}}
	}
	return &validator{object: ref, place: place, value: v}, nil
}

func (c *validator) application(a *application) state.Application {
	spec := Path(nil).Key("spec")
	c.name(Path(nil).Key("metadata", "name"), a.Name, nameLabel)
	if a.Name == string(state.RootApp) {
		c.fail(Path(nil).Key("metadata", "name"), "the name root is taken: plain objects at the root form it", "give it another name")
	}
	if a.Spec.Namespace != "" {
		c.name(spec.Key("namespace"), a.Spec.Namespace, nameLabel)
	}
	app := state.Application{
		Name: state.AppName(a.Name), Path: a.Spec.Path, Namespace: a.Spec.Namespace,
		Source: c.source(spec.Key("source"), &a.Spec.Source),
	}
	if a.Spec.Path == "" {
		app.Path = "."
	}
	if clean := path.Clean(app.Path); path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		c.fail(spec.Key("path"), "leads out of the repository", "give a path inside it")
	}
	for i, os := range a.Spec.Variants {
		if state.OS(os) != state.Linux && state.OS(os) != state.Windows {
			c.fail(spec.Key("variants").At(i, ""), fmt.Sprintf("want linux or windows, got %q", clip(os)), "write linux, windows or both")
			continue
		}
		app.Variants = append(app.Variants, state.OS(os))
	}
	slices.Sort(app.Variants)
	app.Variants = slices.Compact(app.Variants)
	for _, name := range slices.Sorted(maps.Keys(a.Spec.Substitute)) {
		if !substitute.ValidName(name) {
			c.fail(spec.Key("substitute", name), fmt.Sprintf("%q is no name of a variable", clip(name)), "use letters, digits and _, without a digit first")
		}
	}
	app.Substitute = a.Spec.Substitute
	if a.Spec.Notes != "" && !notesName.MatchString(a.Spec.Notes) {
		c.fail(spec.Key("notes"), fmt.Sprintf("want a name below tandem/, got %q", clip(a.Spec.Notes)), "write tandem/prod: git log --notes=tandem/prod shows them")
	}
	app.Notes = a.Spec.Notes
	if h := a.Spec.Helm; h != nil {
		app.Helm = c.helm(spec.Key("helm"), h)
	}
	c.admission(spec, a, &app)
	app.IgnoreKinds = c.ignoredKinds(spec.Key("ignoreKinds"), a.Spec.IgnoreKinds)
	app.Prune.Disabled = a.Spec.Prune.Enabled != nil && !*a.Spec.Prune.Enabled
	if n := a.Spec.Prune.MaxDeletes; n != nil {
		if *n < 1 {
			c.fail(spec.Key("prune", "maxDeletes"), "must be 1 or more", "to remove nothing, set prune: {enabled: false}")
		}
		app.Prune.MaxDeletes = *n
	}
	app.Rollout = state.DefaultRollout()
	if r := a.Spec.Rollout; r != nil {
		app.Rollout = c.rollout(spec.Key("rollout"), r)
	}
	if s := a.Spec.Suspend; s != nil {
		app.Suspend = state.Suspend{On: true, Reason: s.Reason}
		if s.Until != nil {
			app.Suspend.Until = s.Until.UnixNano()
		}
		if s.Reason == "" {
			c.fail(spec.Key("suspend", "reason"), "is missing", "say why, for those who will wonder")
		}
	}
	return app
}

// rollout is when a revision counts as failed, and what then.
func (c *validator) rollout(at Path, r *applicationRollout) state.Rollout {
	out := state.DefaultRollout()
	switch r.OnFailure {
	case "", "restore":
	case "hold":
		out.OnFailure = state.HoldOn
	default:
		c.fail(at.Key("onFailure"), fmt.Sprintf("want hold or restore, got %q", clip(r.OnFailure)), "onFailure: restore")
	}
	if r.HealthTimeout == "" {
		return out
	}
	d, err := time.ParseDuration(r.HealthTimeout)
	switch {
	case err != nil || d < time.Second:
		c.fail(at.Key("healthTimeout"), fmt.Sprintf("want a time of a second or more, got %q", clip(r.HealthTimeout)), "healthTimeout: 10m")
	case out.OnFailure != state.RestoreGood:
		c.fail(at.Key("healthTimeout"), "has no effect with onFailure: hold", "onFailure: restore, or remove it")
	}
	out.HealthTimeout = d
	return out
}

// admission is what a revision waits for before it is applied.
func (c *validator) admission(at Path, a *application, app *state.Application) {
	for i, name := range a.Spec.DependsOn {
		switch {
		case name == a.Name:
			c.fail(at.Key("dependsOn").At(i, ""), "an Application can't depend on itself", "remove it")
		case slices.Contains(a.Spec.DependsOn[:i], name):
			c.fail(at.Key("dependsOn").At(i, ""), clip(name)+" is there twice", "remove one of them")
		default:
			c.name(at.Key("dependsOn").At(i, ""), name, nameLabel)
		}
		app.DependsOn = append(app.DependsOn, state.AppName(name))
	}
	switch a.Spec.Sync {
	case "", "auto":
	case "manual":
		app.Sync = state.SyncManual
	default:
		c.fail(at.Key("sync"), fmt.Sprintf("want auto or manual, got %q", clip(a.Spec.Sync)), "sync: auto")
	}
	for i := range a.Spec.SyncWindows {
		app.SyncWindows = append(app.SyncWindows, c.window(at.Key("syncWindows").At(i, ""), &a.Spec.SyncWindows[i]))
	}
}

func (c *validator) helm(at Path, h *applicationHelm) state.Helm {
	for i, name := range h.ValueFiles {
		switch {
		case name == "":
			c.fail(at.Key("valueFiles").At(i, ""), "an empty path", "name a file, relative to spec.path")
		case path.IsAbs(name):
			c.fail(at.Key("valueFiles").At(i, ""), fmt.Sprintf("%q is absolute", clip(name)), "give a path relative to spec.path")
		}
	}
	if h.ReleaseName != "" {
		c.name(at.Key("releaseName"), h.ReleaseName, nameLabel)
	}
	return state.Helm{Release: h.ReleaseName, ValueFiles: h.ValueFiles}
}

// ignoredKinds are kinds that are left out. What Tandem runs can't be: that
// would be a deletion in disguise.
func (c *validator) ignoredKinds(at Path, kinds []string) []string {
	for i, name := range kinds {
		kind, group, _ := strings.Cut(name, ".")
		switch {
		case kind == "" || strings.ToUpper(kind[:1]) != kind[:1]:
			c.fail(at.At(i, ""), fmt.Sprintf("%q is no kind", clip(name)), "write a kind as it stands in the objects, such as Ingress or Certificate.cert-manager.io")
		case group == "" && runsKind(kind):
			c.fail(at.At(i, ""), "Tandem runs kind "+kind+": it can't be ignored", "take the objects out of what is rendered")
		}
	}
	out := slices.Clone(kinds)
	slices.Sort(out)
	return slices.Compact(out)
}

// runsKind says whether some version of a kind is run.
func runsKind(kind string) bool {
	for known := range objectKinds() {
		if _, k, _ := strings.Cut(known, " "); k == kind {
			return true
		}
	}
	return kind == "Application" || kind == "ApplicationSet" || kind == "Pipeline"
}

// source is where the text comes from: one of a branch, a tag, a range of
// versions and a commit.
func (c *validator) source(at Path, s *applicationSource) state.AppSource {
	var given []string
	for _, f := range [][2]string{{"ref", s.Ref}, {"tag", s.Tag}, {"semver", s.Semver}, {"commit", s.Commit}} {
		if f[1] != "" {
			given = append(given, f[0])
		}
	}
	switch len(given) {
	case 0, 1:
	case 2:
		c.fail(at, "has both "+strings.Join(given, " and "), "keep one of them")
	default:
		c.fail(at, "has "+strings.Join(given[:len(given)-1], ", ")+" and "+given[len(given)-1], "keep one of them")
	}
	told := func(field string, err error) {
		if p, ok := errors.AsType[state.Problem](err); ok {
			c.fail(at.Key(field), p.Cause, p.Remedy)
		}
	}
	if s.Commit != "" && (len(s.Commit) != 40 || strings.Trim(s.Commit, "0123456789abcdef") != "") {
		c.fail(at.Key("commit"), "want 40 hexadecimal digits", "give the whole hash, as `git rev-parse` prints it")
	}
	if s.Ref != "" && !refs.Valid(s.Ref) {
		c.fail(at.Key("ref"), fmt.Sprintf("%q is no name of a branch", clip(s.Ref)), "give a branch such as main")
	}
	if s.Tag != "" {
		told("tag", refs.CheckTag(s.Tag))
	}
	if s.Semver != "" {
		told("semver", refs.CheckRange(s.Semver))
	}
	c.address(at.Key("repo"), s.Repo)
	out := state.AppSource{Repo: s.Repo, Ref: s.Ref, Commit: s.Commit, Tag: s.Tag, Semver: s.Semver}
	if s.Verify != nil {
		out.Verify = c.verify(at.Key("verify"), s.Verify)
	}
	return out
}

// address refuses a repository's address with a secret in it: what an Application says is
// recorded for ever, and shown. The words of the refusal hold none of it.
func (c *validator) address(at Path, repo string) {
	_, rest, ok := strings.Cut(repo, "://")
	if !ok {
		return
	}
	host, _, _ := strings.Cut(rest, "/")
	end := strings.LastIndexByte(host, '@')
	if end < 0 {
		return
	}
	name, _, password := strings.Cut(host[:end], ":")
	if password || slices.ContainsFunc(tokenPrefixes(), func(p string) bool { return strings.HasPrefix(name, p) }) {
		c.fail(at, "the URL holds a password or token, and what an Application says is recorded and shown", "leave it out; who runs the controller names a file or an environment variable that holds it")
	}
}

// tokenPrefixes begin the tokens of Git servers: GitHub's, GitLab's and Bitbucket's.
func tokenPrefixes() []string {
	return []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-", "glcbt-", "ATCTT", "ATBB"}
}

func (c *validator) verify(at Path, v *applicationVerify) state.Verify {
	out := state.Verify{Mode: state.VerifyHead, Signers: path.Clean(v.Signers)}
	switch v.Mode {
	case "", "head":
	case "strict":
		out.Mode = state.VerifyStrict
	default:
		c.fail(at.Key("mode"), fmt.Sprintf("want head or strict, got %q", clip(v.Mode)), "mode: head")
	}
	switch {
	case v.Signers == "":
		c.missing(at.Key("signers"), "name a file with the keys of those who sign, in this repository")
	case path.IsAbs(out.Signers), out.Signers == "..", strings.HasPrefix(out.Signers, "../"):
		c.fail(at.Key("signers"), "leads out of the repository", "give a path inside it")
	}
	return out
}
