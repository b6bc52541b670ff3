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
	default:
		return ""
	}
}
