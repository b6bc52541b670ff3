package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Tokens makes what stands for a secret value in digests: a keyed hash, so that
// nobody without the key can try values out.
type Tokens interface {
	Token(value []byte) string
}

// Secrets keeps secret values at rest.
type Secrets interface {
	Seal(clear []byte) ([]byte, error)
	Open(sealed []byte) ([]byte, error)
}

// VariantDigest is over the canonical JSON of a body, secret values replaced by
// tokens.
func VariantDigest(b state.Body, tokens Tokens) (state.Digest, error) {
	raw, err := canonical(b, func(v []byte) ([]byte, error) { return []byte(tokens.Token(v)), nil })
	if err != nil {
		return state.Digest{}, err
	}
	return state.DigestOf(raw), nil
}

// Digest is over names, variants and their digests: what Manifest.Digest holds.
func Digest(objects []*state.Object) state.Digest {
	var b bytes.Buffer
	for _, o := range objects {
		fmt.Fprintf(&b, "%q %q %q\n", o.Ref.Kind, o.Ref.Namespace, o.Ref.Name)
		for _, v := range o.Variants {
			fmt.Fprintf(&b, " %q %x\n", v.OS, v.Digest[:])
		}
	}
	return state.DigestOf(b.Bytes())
}

// canonical is the JSON of a body, with each secret value given through hide.
// Kubernetes's types marshal in the order of their fields, maps by key.
func canonical(b state.Body, hide func([]byte) ([]byte, error)) ([]byte, error) {
	if s, ok := b.(*corev1.Secret); ok {
		hidden := s.DeepCopy()
		for k, v := range s.Data {
			h, err := hide(v)
			if err != nil {
				return nil, fmt.Errorf("hide a value of %s: %w", s.Name, err)
			}
			hidden.Data[k] = h
		}
		b = hidden
	}
	raw, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("marshal %s: %w", b.GetName(), err)
	}
	return raw, nil
}

// stored is the stored form of a Manifest.
type stored struct {
	App      state.AppName   `json:"app"`
	Objects  []storedObject  `json:"objects,omitempty"`
	Reads    []state.Read    `json:"reads,omitempty"`
	Pairs    []string        `json:"pairs,omitempty"`
	Warnings []state.Problem `json:"warnings,omitempty"`
	Tokens   bool            `json:"tokens,omitempty"` // a Secret's values are tokens: the form for strangers
}

type storedObject struct {
	Ref      state.Ref       `json:"ref"`
	Variants []storedVariant `json:"variants"`
}

type storedVariant struct {
	OS     state.OS        `json:"os,omitempty"`
	Digest state.Digest    `json:"digest"`
	Origin state.Origin    `json:"origin,omitzero"`
	Body   json.RawMessage `json:"body"` // a Secret's values are sealed
}

// Encode gives the stored form of a manifest: canonical JSON, no secret in
// clear. Equal manifests give equal bytes where Seal does.
func Encode(m *state.Manifest, secrets Secrets) ([]byte, error) {
	return encode(m, secrets.Seal, false)
}

// EncodeTokens gives a manifest for those who may not read its Secrets: each
// value is replaced by its token, so that every digest can be recomputed, and
// none of the values.
func EncodeTokens(m *state.Manifest, tokens Tokens) ([]byte, error) {
	return encode(m, func(v []byte) ([]byte, error) { return []byte(tokens.Token(v)), nil }, true)
}

// HasTokens says whether a stored manifest is what EncodeTokens gave.
func HasTokens(raw []byte) bool {
	var in struct {
		Tokens bool `json:"tokens"`
	}
	return json.Unmarshal(raw, &in) == nil && in.Tokens
}

func encode(m *state.Manifest, hide func([]byte) ([]byte, error), tokens bool) ([]byte, error) {
	out := stored{App: m.App, Reads: m.Reads, Pairs: m.Pairs, Warnings: m.Warnings, Tokens: tokens}
	for _, o := range m.Objects {
		so := storedObject{Ref: o.Ref}
		for _, v := range o.Variants {
			raw, err := canonical(v.Body, hide)
			if err != nil {
				return nil, fmt.Errorf("encode manifest of %s: %w", m.App, err)
			}
			so.Variants = append(so.Variants, storedVariant{OS: v.OS, Digest: v.Digest, Origin: v.Origin, Body: raw})
		}
		out.Objects = append(out.Objects, so)
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("encode manifest of %s: %w", m.App, err)
	}
	return raw, nil
}

// DecodeManifest reads what Encode wrote; of what EncodeTokens wrote, a Secret's
// values are the tokens.
func DecodeManifest(raw []byte, secrets Secrets) (*state.Manifest, error) {
	var in stored
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if in.Tokens {
		secrets = noSecrets{}
	}
	m := &state.Manifest{App: in.App, Reads: in.Reads, Pairs: in.Pairs, Warnings: in.Warnings}
	for _, so := range in.Objects {
		o := &state.Object{Ref: so.Ref}
		for _, sv := range so.Variants {
			body, err := openBody(so.Ref.Kind, sv.Body, secrets)
			if err != nil {
				return nil, fmt.Errorf("decode %s: %w", so.Ref, err)
			}
			o.Variants = append(o.Variants, state.Variant{OS: sv.OS, Body: body, Digest: sv.Digest, Origin: sv.Origin})
		}
		if len(o.Variants) == 0 {
			return nil, fmt.Errorf("decode %s: it has no variant", so.Ref)
		}
		m.Objects = append(m.Objects, o)
	}
	m.Digest = Digest(m.Objects)
	return m, nil
}

// DecodeBody reads the JSON of one body: decoded and defaulted before, a Secret's
// values in clear.
func DecodeBody(kind string, raw []byte) (state.Body, error) { return openBody(kind, raw, noSecrets{}) }

func openBody(kind string, raw []byte, secrets Secrets) (state.Body, error) {
	for known, fresh := range objectKinds() {
		if known[bytes.IndexByte([]byte(known), ' ')+1:] != kind {
			continue
		}
		body := fresh()
		if err := json.Unmarshal(raw, body); err != nil {
			return nil, err
		}
		s, ok := body.(*corev1.Secret)
		if !ok {
			return body, nil
		}
		for k, v := range s.Data {
			clear, err := secrets.Open(v)
			if err != nil {
				return nil, fmt.Errorf("open value %q: %w", k, err)
			}
			s.Data[k] = clear
		}
		return s, nil
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

// noSecrets gives a Secret's values as they are stored.
type noSecrets struct{}

// Seal implements Secrets.
func (noSecrets) Seal(clear []byte) ([]byte, error) { return clear, nil }

// Open implements Secrets.
func (noSecrets) Open(sealed []byte) ([]byte, error) { return sealed, nil }
