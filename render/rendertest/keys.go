package rendertest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// Tokens makes keyed tokens with a fixed key.
type Tokens struct{}

// Token is an HMAC of value.
func (Tokens) Token(value []byte) string {
	h := hmac.New(sha256.New, []byte("a key of tests"))
	h.Write(value)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Secrets hides values by turning each byte over: enough to see in a test that
// nothing is in clear.
type Secrets struct{}

// Seal hides a value.
func (Secrets) Seal(clear []byte) ([]byte, error) { return turn(clear), nil }

// Open undoes Seal.
func (Secrets) Open(sealed []byte) ([]byte, error) { return turn(sealed), nil }

func turn(in []byte) []byte {
	out := make([]byte, len(in))
	for i, b := range in {
		out[i] = ^b
	}
	return out
}
