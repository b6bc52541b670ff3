package join

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// A Token is a join token as it is kept: its secret only as a hash.
type Token struct {
	ID      string         `json:"id"`
	Hash    state.Digest   `json:"hash"` // of the secret, which is 128 random bits
	Expires time.Time      `json:"expires"`
	Uses    int            `json:"uses,omitempty"` // left; 0 with Many
	Many    bool           `json:"many,omitempty"`
	Node    state.NodeName `json:"node,omitempty"` // the only one that it is for
	By      string         `json:"by,omitempty"`   // who made it
	Made    time.Time      `json:"made,omitzero"`
}

// Tokens are the join tokens of a controller, in one file.
type Tokens struct {
	path string
	pin  state.Digest
	mu   sync.Mutex
}

// OpenTokens are the tokens of a data directory, for the authority of that pin.
func OpenTokens(dir string, pin state.Digest) *Tokens {
	return &Tokens{path: filepath.Join(dir, "tokens.json"), pin: pin}
}

// Draw draws a token: for so many uses (0: any number), until it expires, for
// one node or (empty) any. Text is shown once and kept nowhere. It is good once
// it is kept.
func (t *Tokens) Draw(by string, life time.Duration, uses int, node state.NodeName) (x Token, text string, err error) {
	var raw [20]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return x, "", err
	}
	id, secret := hex.EncodeToString(raw[:4]), hex.EncodeToString(raw[4:])
	now := time.Now()
	x = Token{ID: id, Hash: state.DigestOf([]byte(secret)), Expires: now.Add(life), Uses: uses, Many: uses == 0, Node: node, By: by, Made: now}
	return x, "tandem." + id + "." + secret + "." + hex.EncodeToString(t.pin[:]), nil
}

// Keep makes a drawn token good.
func (t *Tokens) Keep(x Token) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	if err != nil {
		return err
	}
	now := time.Now()
	all = slices.DeleteFunc(all, func(x Token) bool { return x.Expires.Before(now) })
	return t.write(append(all, x))
}

// List are the tokens that are still good.
func (t *Tokens) List() ([]Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	now := time.Now()
	return slices.DeleteFunc(all, func(x Token) bool { return x.Expires.Before(now) }), err
}

// Revoke makes a token worthless.
func (t *Tokens) Revoke(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(x Token) bool { return x.ID == id })
	if i < 0 {
		return fmt.Errorf("join token %s: %w", id, runtimes.ErrNotFound)
	}
	return t.write(slices.Delete(all, i, i+1))
}

// errToken doesn't say what is wrong with a token: whoever guesses learns nothing.
var errToken = fmt.Errorf("the join token is not valid, has expired, was used up or is for another node: make one with `tandem agent token create`: %w",
	runtimes.ErrRejected)

// check says whether a token is good for a node, and what will be left of it; nothing
// is taken yet.
func (t *Tokens) check(token string, node state.NodeName) (Token, error) {
	return t.take(token, node, false)
}

// redeem takes one use of a token, and says what is left of it.
func (t *Tokens) redeem(token string, node state.NodeName) (Token, error) {
	return t.take(token, node, true)
}

func (t *Tokens) take(token string, node state.NodeName, spend bool) (Token, error) {
	id, secret, _, err := splitToken(token)
	if err != nil {
		return Token{}, errToken
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	if err != nil {
		return Token{}, err
	}
	i := slices.IndexFunc(all, func(x Token) bool { return x.ID == id })
	if i < 0 {
		return Token{}, errToken
	}
	x, hash := &all[i], state.DigestOf([]byte(secret))
	if subtle.ConstantTimeCompare(hash[:], x.Hash[:]) != 1 || time.Now().After(x.Expires) || x.Node != "" && x.Node != node {
		return Token{}, errToken
	}
	if x.Many {
		return *x, nil
	}
	x.Uses--
	left := *x
	if !spend {
		return left, nil
	}
	if x.Uses <= 0 {
		all = slices.Delete(all, i, i+1)
	}
	return left, t.write(all)
}

func splitToken(token string) (id, secret string, pin state.Digest, err error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 4 || parts[0] != "tandem" {
		return "", "", pin, errors.New("want tandem.ID.SECRET.PIN, as `tandem agent token create` printed it")
	}
	raw, err := hex.DecodeString(parts[3])
	if err != nil || len(raw) != len(pin) {
		return "", "", pin, errors.New("its last part is no SHA-256")
	}
	copy(pin[:], raw)
	return parts[1], parts[2], pin, nil
}

func (t *Tokens) read() ([]Token, error) {
	b, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Token
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", t.path, err)
	}
	return all, nil
}

func (t *Tokens) write(all []Token) error {
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return atomicfile.WriteDurable(t.path, b, 0o600)
}
