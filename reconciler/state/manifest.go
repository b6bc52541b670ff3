package state

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Body is a decoded and defaulted object of k8s.io/api. It is never changed
// once it is part of a Manifest.
type Body interface {
	metav1.Object
	runtime.Object
}

// A Variant is an object as it was written for one operating system.
type Variant struct {
	OS     OS     // what the text or the pair of directories says; AnyOS where neither does
	Body   Body   // *appsv1.Deployment, *corev1.ConfigMap, …
	Digest Digest // over the canonical JSON, secret values replaced by keyed tokens
	Origin Origin
}

// An Object is what should be there under one name: one variant as a rule, two
// for a workload that runs on both operating systems.
type Object struct {
	Ref      Ref
	Variants []Variant // sorted by OS, never empty
}

// First is the first variant's body: the object itself where there is one
// variant.
func (o *Object) First() Body { return o.Variants[0].Body }

// Digest tells two contents of one object apart.
func (o *Object) Digest() Digest {
	if len(o.Variants) == 1 && o.Variants[0].OS == AnyOS {
		return o.Variants[0].Digest
	}
	var b []byte
	for _, v := range o.Variants {
		b = append(append(append(b, v.OS...), 0), v.Digest[:]...)
	}
	return DigestOf(b)
}

// A Read is a file that a render looked for: its blob's hash, or Absent.
type Read struct {
	Path string `json:"path"`
	Blob string `json:"blob,omitempty"` // the Git blob hash, or sha256 for a directory; empty: looked for and absent
}

// A Manifest is what should run, per OS, with where each object was written and
// which files were read, or looked for and absent, to render it.
type Manifest struct {
	App      AppName
	Objects  []*Object // sorted by Ref, no doubles
	Reads    []Read    // sorted by Path
	Pairs    []string  // how it was read: "base/{linux→windows}"
	Warnings []Problem // worth saying, no reason to refuse
	Digest   Digest    // over names, variants and their digests; not over Reads, Origins and Warnings
}

// Find returns the object of that name, or nil.
func (m *Manifest) Find(ref Ref) *Object {
	for _, o := range m.Objects {
		if o.Ref == ref {
			return o
		}
	}
	return nil
}

// Commit says who wrote a revision. The names, addresses and message are Text.
type Commit struct {
	Hash      string `json:"hash,omitempty" pb:"1"`
	Author    Text   `json:"author,omitzero" pb:"2"`
	Committer Text   `json:"committer,omitzero" pb:"3"`
	Message   Text   `json:"message,omitzero" pb:"4"`
	Time      int64  `json:"time,omitempty" pb:"5"` // committer time, nanoseconds since 1970
	Signer    Text   `json:"signer,omitzero" pb:"6"`
	Parents   int32  `json:"parents,omitempty" pb:"7"`
	Tree      string `json:"tree,omitempty" pb:"8"` // the hash of what it holds
}
