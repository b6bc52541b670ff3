package history

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"filippo.io/age"
)

const (
	identityFile = "secrets.key"
	tokenFile    = "tokens.key"
	tokenSize    = 32
)

// Secrets seals what is kept at rest, and makes tokens by which two values can
// be told apart without knowing them. It is safe for concurrent use.
type Secrets struct {
	identity *age.X25519Identity
	token    []byte
}

// OpenSecrets reads the keys of a store's data directory, and makes them where
// there are none.
func (s *Store) OpenSecrets() (*Secrets, error) {
	identity, err := s.secretKey(identityFile, func() (string, error) {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return "", err
		}
		return id.String(), nil
	})
	if err != nil {
		return nil, err
	}
	id, err := age.ParseX25519Identity(identity)
	if err != nil {
		return nil, damaged(identityFile, 0, "it is not an age identity") // the error might say it
	}
	token, err := s.secretKey(tokenFile, func() (string, error) {
		b := make([]byte, tokenSize)
		_, err := rand.Read(b)
		return formatToken(b), err
	})
	if err != nil {
		return nil, err
	}
	raw, err := parseToken(token)
	if err != nil {
		return nil, err
	}
	return &Secrets{identity: id, token: raw}, nil
}

// formatToken is a token key and the beginning of its hash, so that a damaged
// key is not taken for another one.
func formatToken(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(key) + " " + hex.EncodeToString(sum[:4])
}

func parseToken(line string) ([]byte, error) {
	digits, _, _ := strings.Cut(line, " ")
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != tokenSize || formatToken(raw) != line {
		return nil, damaged(tokenFile, 0, "the key is not as it was written")
	}
	return raw, nil
}

// secretKey is the one line of a key file.
func (s *Store) secretKey(name string, fresh func() (string, error)) (string, error) {
	raw, err := readFile(s.disk, name)
	if err == nil {
		return strings.TrimSuffix(string(raw), "\n"), nil
	}
	if !errors.Is(err, fs.ErrNotExist) || s.opts.ReadOnly {
		return "", fmt.Errorf("read the key: %w", err)
	}
	if blobs, err := blobDigests(s.disk); err != nil || len(blobs) > 0 {
		return "", errors.Join(err, damaged(name, 0, "the key is missing, and without it nobody can read the secrets in %s", blobDir))
	}
	key, err := fresh()
	if err != nil {
		return "", err
	}
	if err := writeFile(s.disk, name, 0o600, []byte(key+"\n")); err != nil {
		return "", fmt.Errorf("keep a new key: %w", err)
	}
	return key, nil
}

// Seal encrypts.
func (s *Secrets) Seal(clear []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, s.identity.Recipient())
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if _, err := w.Write(clear); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return b.Bytes(), nil
}

// Open decrypts what Seal encrypted.
func (s *Secrets) Open(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), s.identity)
	if err != nil {
		return nil, fmt.Errorf("open what was sealed: %w", err)
	}
	clear, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("open what was sealed: %w", err)
	}
	return clear, nil
}

// Token stands for a value: equal values have equal tokens, and without the key
// nobody can try values against one.
func (s *Secrets) Token(value []byte) string {
	m := hmac.New(sha256.New, s.token)
	m.Write(value)
	return hex.EncodeToString(m.Sum(nil)[:16])
}
