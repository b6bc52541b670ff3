package state

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Seq is a position in the log; the first record has 1. It is also the
// resourceVersion that the API shows.
type Seq uint64

// Digest is a SHA-256.
type Digest [32]byte

// DigestOf is the SHA-256 of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// String is "sha256:" and the hexadecimal digits.
func (d Digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// Short is the first eight hexadecimal digits, for people.
func (d Digest) Short() string { return hex.EncodeToString(d[:4]) }

// IsZero says whether d was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes String; the zero digest is empty.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	digits, ok := strings.CutPrefix(string(text), "sha256:")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != len(d) {
		return fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits", text)
	}
	copy(d[:], raw)
	return nil
}

// UID names one life of a pod: the digest of the log's ID, the sequence number
// of the record that placed it, and its name. It is never drawn at random.
type UID [16]byte

// NewUID derives the UID of the pod that the record at seq places.
func NewUID(log Digest, seq Seq, namespace, name string) UID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%x/%d/%s/%s", log[:], seq, namespace, name))
	return UID(sum[:16])
}

// String has the form of an RFC 4122 UUID, which Kubernetes clients expect.
func (u UID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ParseUID reads what String wrote.
func ParseUID(s string) (UID, error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(raw) != 16 {
		return UID{}, fmt.Errorf("pod UID %q: want 32 hexadecimal digits", s)
	}
	return UID(raw), nil
}

// IsZero says whether u was never set.
func (u UID) IsZero() bool { return u == UID{} }

// MarshalText writes String.
func (u UID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (u *UID) UnmarshalText(text []byte) (err error) {
	*u, err = ParseUID(string(text))
	return err
}

// Compare orders UIDs by their bytes.
func (u UID) Compare(v UID) int { return strings.Compare(string(u[:]), string(v[:])) }

// OS is an operating system as Kubernetes and OCI spell it; empty where the
// text names none.
type OS string

// The operating systems that Tandem runs pods on.
const (
	AnyOS   OS = ""
	Linux   OS = "linux"
	Windows OS = "windows"
)

// Other is the other operating system; AnyOS has none.
func (o OS) Other() OS {
	switch o {
	case Linux:
		return Windows
	case Windows:
		return Linux
	default:
		return AnyOS
	}
}

// NodeName names a node.
type NodeName string

// AppName names an Application.
type AppName string

// RootApp is the Application that plain objects at the root form.
const RootApp AppName = "root"

// Ref names an object. Kinds that Tandem runs are unique without their group.
type Ref struct {
	Kind      string `json:"kind" pb:"1"`
	Namespace string `json:"namespace,omitempty" pb:"2"`
	Name      string `json:"name" pb:"3"`
}

// String is "Deployment prod/web".
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// IsZero says whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Compare is the canonical order of objects: namespace, kind, name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(strings.Compare(r.Namespace, o.Namespace), strings.Compare(r.Kind, o.Kind), strings.Compare(r.Name, o.Name))
}

// PodKey names a pod; two lives of one name have different UIDs.
type PodKey struct {
	Namespace string `json:"namespace" pb:"1"`
	Name      string `json:"name" pb:"2"`
}

// String is "prod/db-0".
func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// Compare orders pods by namespace and name.
func (k PodKey) Compare(o PodKey) int {
	return cmp.Or(strings.Compare(k.Namespace, o.Namespace), strings.Compare(k.Name, o.Name))
}

// Revision says which text: "main@sha1:3f2a91c…" for Git (40 digits), or
// "dir@sha256:…" for a directory.
type Revision string

// Short is the revision for people: seven digits and no algorithm.
func (r Revision) Short() string {
	ref, hash, ok := strings.Cut(string(r), "@")
	if !ok {
		return string(r)
	}
	_, digits, _ := strings.Cut(hash, ":")
	return ref + "@" + digits[:min(7, len(digits))]
}

// Commit is the hash alone, without the ref and the algorithm.
func (r Revision) Commit() string {
	_, hash, _ := strings.Cut(string(r), "@")
	_, digits, _ := strings.Cut(hash, ":")
	return digits
}

// Text stands for words that a person or a program wrote (an error, a commit
// message, a name, a reason). The log holds the token, H(salt‖text); the words
// lie beside the log and can be erased without touching it. The shell makes
// tokens before an event enters the machine; the fold never reads the words.
type Text [16]byte

// IsZero says whether there are no words.
func (t Text) IsZero() bool { return t == Text{} }

// String is the token, not the words.
func (t Text) String() string { return hex.EncodeToString(t[:]) }

// MarshalText writes the token.
func (t Text) MarshalText() ([]byte, error) {
	if t.IsZero() {
		return nil, nil
	}
	return []byte(t.String()), nil
}

// UnmarshalText reads a token.
func (t *Text) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*t = Text{}
		return nil
	}
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(t) {
		return fmt.Errorf("text token %q: want 32 hexadecimal digits", text)
	}
	copy(t[:], raw)
	return nil
}

// Instant is a moment on two clocks. Leases, back-off and deadlines go by Mono;
// windows, schedules and what people read go by Wall.
type Instant struct {
	// Mono is steady: it never jumps and never goes back. A driver counts it
	// from any fixed point of its process; in records it counts from the
	// log's first record and goes on across restarts.
	Mono time.Duration `json:"mono" pb:"1"`
	// Wall is nanoseconds since 1970, UTC. In records it never goes back.
	Wall int64 `json:"wall" pb:"2"`
}

// Time is the wall clock's reading, in UTC.
func (i Instant) Time() time.Time { return time.Unix(0, i.Wall).UTC() }

// IsZero says whether i was never set.
func (i Instant) IsZero() bool { return i == Instant{} }

// Since is the steady time from t to i.
func (i Instant) Since(t Instant) time.Duration { return i.Mono - t.Mono }

// Add moves both clocks by d.
func (i Instant) Add(d time.Duration) Instant {
	return Instant{Mono: i.Mono + d, Wall: i.Wall + int64(d)}
}

// Earliest is the earlier of two wake-ups by Mono, where zero means never.
func Earliest(a, b Instant) Instant {
	switch {
	case a.IsZero():
		return b
	case b.IsZero() || a.Mono <= b.Mono:
		return a
	default:
		return b
	}
}
