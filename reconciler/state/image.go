package state

// A Platform is one entry of an image index: what it runs on and what it is.
type Platform struct {
	OS        OS     `json:"os" pb:"1"`
	Arch      string `json:"arch,omitempty" pb:"2"`
	OSVersion string `json:"osVersion,omitempty" pb:"3"` // optional and unordered by the OCI specification
	Digest    Digest `json:"digest" pb:"4"`              // of the manifest
	Size      int64  `json:"size,omitempty" pb:"5"`      // of all layers, bytes; 0 where not known
}

// An Image is what a name meant when it was looked up for one revision of one
// application.
type Image struct {
	Name      string     `json:"name" pb:"1"` // as written: "shop.example/web:1.4.0"
	Index     Digest     `json:"index" pb:"2"`
	Platforms []Platform `json:"platforms,omitempty" pb:"3"`
	// Assumed: it could not be looked up. Simulated nodes take it to exist;
	// on real nodes its workload is held.
	Assumed bool       `json:"assumed,omitempty" pb:"4"`
	Failure LookupCode `json:"failure,omitempty" pb:"5"`
}

// LookupCode says why an image could not be looked up.
type LookupCode uint8

// Why a look-up failed.
const (
	LookupNotFound    LookupCode = iota + 1 // the registry or directory has no such name
	LookupUnavailable                       // no answer, or an answer that says later
	LookupDenied                            // credentials are missing or refused
	LookupMalformed                         // the answer is no image
	LookupOld                               // an image of Docker's schema 1
	LookupArtifact                          // something else that registries hold: a chart, a signature
	LookupNoPlatform                        // an index without Linux and Windows
	LookupDamaged                           // another content than its digest names
	LookupTooLarge                          // more than is read
)

// String says it in words.
func (c LookupCode) String() string {
	switch c {
	case LookupNotFound:
		return "not found"
	case LookupUnavailable:
		return "registry does not answer"
	case LookupDenied:
		return "registry refuses the credentials"
	case LookupMalformed:
		return "not an image"
	case LookupOld:
		return "a Docker image of schema 1, which is read no longer"
	case LookupArtifact:
		return "an artifact, not an image"
	case LookupNoPlatform:
		return "nothing in it is for linux or windows"
	case LookupDamaged:
		return "not what its digest names"
	case LookupTooLarge:
		return "larger than an image's index may be"
	default:
		return ""
	}
}

// Remedy says what would make the image be found.
func (c LookupCode) Remedy(name string) string {
	switch c {
	case LookupNotFound:
		return "image " + name + " is pushed, or its name corrected"
	case LookupDenied:
		return "the controller may read image " + name + " (docker login there)"
	case LookupMalformed, LookupDamaged:
		return "image " + name + " is pushed again"
	case LookupOld:
		return "image " + name + " is built and pushed again with a tool of today"
	case LookupArtifact:
		return "another name is given in place of " + name
	case LookupNoPlatform:
		return "image " + name + " is built for linux or windows too"
	case LookupTooLarge:
		return "image " + name + " is pushed with fewer platforms"
	case LookupUnavailable:
	}
	return "image " + name + " can be looked up"
}

// Lasting says whether asking again gives the same until somebody pushes another
// image.
func (c LookupCode) Lasting() bool {
	return c >= LookupMalformed
}
