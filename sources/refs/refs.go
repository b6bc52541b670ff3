// Package refs knows what branches, tags and versions may be called, and which
// version is the newest.
//
//	names, a range ──► [ sources/refs ] ──a name──► sources/git
//
// In: names as a person or a server gives them. Out: one of them, or why it is
// none. It refuses to know repositories.
package refs

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/sources"
)

// What the full names of branches and tags begin with.
const (
	Branches = "refs/heads/"
	Tags     = "refs/tags/"
)

// Limits of what a person or a server gives.
const (
	maxName  = 250 // bytes of a ref's name
	maxRange = 256 // bytes of a range of versions
)

// Valid says whether a name, full or short, is one of git check-ref-format.
// "@" is refused too: it separates a revision's parts.
func Valid(name string) bool {
	if name == "" || len(name) > maxName || strings.HasPrefix(name, "-") || strings.HasSuffix(name, ".") {
		return false
	}
	for _, c := range name {
		if c <= ' ' || c == 0x7f || strings.ContainsRune(`@~^:?*[\`, c) {
			return false
		}
	}
	if strings.Contains(name, "..") || strings.HasPrefix(name, "refs/") && strings.Count(name, "/") < 2 {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// CheckTag refuses what can't be a tag's short name.
func CheckTag(tag string) error {
	if strings.HasPrefix(tag, "refs/") || !Valid(Tags+tag) || strings.HasPrefix(tag, "-") {
		return state.Problem{Cause: fmt.Sprintf("%q is no name of a tag", tag), Remedy: "give a tag such as v1.4.0"}
	}
	return nil
}

// CheckRange refuses what is no range of versions.
func CheckRange(text string) error {
	if len(text) <= maxRange {
		if _, err := semver.NewConstraint(text); err == nil {
			return nil
		}
	}
	return state.Problem{Cause: fmt.Sprintf("%.60q is no range of versions", text), Remedy: `give a range such as "1.x", "~1.4" or ">=1.4.0 <2.0.0"`}
}

// Newest is the full name of the tag with the highest version in a range, in
// the order of semver.org. Of equal versions ("v1.0.0" and "1.0.0", or two
// builds of one) the name that sorts last is taken, so that the answer doesn't
// depend on the order of names. Prereleases count only where the range names one.
func Newest(text string, names []string) (string, error) {
	if err := CheckRange(text); err != nil {
		return "", err
	}
	within, err := semver.NewConstraint(text)
	if err != nil {
		return "", err
	}
	var best *semver.Version
	var bestName string
	versions := 0
	for _, full := range names {
		tag, ok := strings.CutPrefix(full, Tags)
		if !ok || !Valid(full) {
			continue
		}
		v, err := semver.NewVersion(tag)
		if err != nil {
			continue
		}
		versions++
		if within.Check(v) && (best == nil || v.GreaterThan(best) || v.Equal(best) && full > bestName) {
			best, bestName = v, full
		}
	}
	if best == nil {
		return "", fmt.Errorf("there is no tag with a version in %q (of %d tags that are versions): push one, or widen the range: %w", text, versions, sources.ErrNotFound)
	}
	return bestName, nil
}
