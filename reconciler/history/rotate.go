package history

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

const (
	// chainFile says which keys followed the first: one statement a rotation, signed
	// by the key before.
	chainFile = "log.keys"
	// nextFile is a signing key that no record names yet.
	nextFile = "log.key.next"
)

// An epoch is the time of one key: it signs what ends after a record.
type epoch struct {
	after    state.Seq // of the record that named it, signed by the key before
	verifier note.Verifier
	public   string
}

// statement is what the key before signs: C2SP's signed note.
func (e *epoch) statement(origin string) string {
	return fmt.Sprintf("%s\nnext key after record\n%d\n%s\n", origin, e.after, e.public)
}

// statementLines is how many lines one takes in the chain's file: its text, an empty
// one and the signature.
const statementLines = 6

// Key is one key of a log, for people.
type Key struct {
	Public string    `json:"public"` // in note's encoding
	Name   string    `json:"name"`   // the log's name and the key's hash
	After  state.Seq `json:"after"`  // it signs what ends after this record; 0: from the first on
}

// parseChain reads the keys that followed a first one, each vouched for by the one
// before. Other spellings of the same are refused.
func parseChain(text []byte, first note.Verifier) ([]epoch, error) {
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] != "" || (len(lines)-1)%statementLines != 0 {
		return nil, errors.New("the chain of keys is cut off")
	}
	signer := first
	var out []epoch
	for lines = lines[:len(lines)-1]; len(lines) > 0; lines = lines[statementLines:] {
		one := strings.Join(lines[:statementLines], "")
		n, err := note.Open([]byte(one), note.VerifierList(signer))
		if err != nil {
			return nil, fmt.Errorf("the chain of keys: key %d isn't signed by the one before: %w", len(out)+2, err)
		}
		after, err := strconv.ParseUint(strings.TrimSuffix(lines[2], "\n"), 10, 62)
		if err != nil || len(out) > 0 && state.Seq(after) <= out[len(out)-1].after {
			return nil, errors.New("the chain of keys: a record's number is malformed")
		}
		e := epoch{after: state.Seq(after), public: strings.TrimSuffix(lines[3], "\n")}
		if e.verifier, err = parsePublic(e.public); err != nil {
			return nil, fmt.Errorf("the chain of keys: %w", err)
		}
		if e.verifier.Name() != first.Name() || len(n.Sigs) != 1 || one != e.signed(signer, n.Sigs[0].Base64) {
			return nil, errors.New("the chain of keys is not in canonical form")
		}
		out = append(out, e)
		signer = e.verifier
	}
	return out, nil
}

// signed is the statement with its signature.
func (e *epoch) signed(signer note.Verifier, sig string) string {
	return e.statement(signer.Name()) + "\n— " + signer.Name() + " " + sig + "\n"
}

// loadChain reads the keys that followed the first, where there are any.
func (k *keys) loadChain(d Disk) error {
	raw, err := readFile(d, chainFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if k.later, err = parseChain(raw, k.verifier); err != nil {
		return damaged(chainFile, 0, "%v", err)
	}
	k.chain = raw
	return nil
}

// newest is the key that signs now.
func (k *keys) newest() note.Verifier {
	if n := len(k.later); n > 0 {
		return k.later[n-1].verifier
	}
	return k.verifier
}

// from are the keys whose word counts for a log of that size: the one of its time
// and those after it. One that was replaced before says nothing.
func (k *keys) from(seq state.Seq) []note.Verifier {
	out := []note.Verifier{k.verifier}
	for i := range k.later {
		if k.later[i].after < seq {
			out = out[:0]
		}
		out = append(out, k.later[i].verifier)
	}
	return out
}

// all are all keys, the first one first.
func (k *keys) all() []note.Verifier { return k.from(0) }

// parse reads a checkpoint that is signed with the key of its time or a later one.
func (k *keys) parse(text []byte) (Checkpoint, error) {
	var first error
	for i, v := range k.all() {
		c, err := ParseCheckpoint(text, v)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		if i < len(k.later) && k.later[i].after < c.Seq {
			return Checkpoint{}, fmt.Errorf("checkpoint of record %d: it is signed with key %08x, which was replaced after record %d", c.Seq, v.KeyHash(), k.later[i].after)
		}
		return c, nil
	}
	return Checkpoint{}, first
}

// has says whether a public key is one of the log's.
func (k *keys) has(public string) bool {
	for i := range k.later {
		if k.later[i].public == public {
			return true
		}
	}
	return k.public == public
}

func (k *keys) list() []Key {
	out := []Key{{Public: k.public, Name: Signer(k.public)}}
	for i := range k.later {
		out = append(out, Key{Public: k.later[i].public, Name: Signer(k.later[i].public), After: k.later[i].after})
	}
	return out
}

// Keys are the log's public keys, the first one first. The first is its identity; the
// last one signs.
func (s *Store) Keys() []Key { return s.keys.Load().list() }

// Chain is what proves the later keys to somebody who has the first: the content of
// log.keys, empty where there was no other.
func (s *Store) Chain() []byte { return bytes.Clone(s.keys.Load().chain) }

// ChainFile is the name under which a copy keeps Chain.
const ChainFile = chainFile

// ErrNotRotation means that a SigningKeyRotated names another key than the one that
// NextKey made, or isn't the last record of its batch.
var ErrNotRotation = errors.New("a SigningKeyRotated must be a batch's last record, and name the key that was made for it")

// NextKey makes the key that the log's next SigningKeyRotated is to name, and gives its
// public half. Until such a record is appended, the old key signs.
func (s *Store) NextKey() (public string, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	switch {
	case s.opts.ReadOnly:
		return "", ErrReadOnly
	case s.failed != nil:
		return "", fmt.Errorf("%w: %w", ErrFailed, s.failed)
	}
	private, public, err := note.GenerateKey(rand.Reader, s.keys.Load().verifier.Name())
	if err != nil {
		return "", err
	}
	return public, writeFile(s.disk, nextFile, 0o600, []byte(private+"\n"))
}

// ForgetNextKey undoes NextKey, where no record is to name the key after all.
func (s *Store) ForgetNextKey() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	switch {
	case s.opts.ReadOnly:
		return ErrReadOnly
	case s.failed != nil:
		return nil // told already; a record that did reach the disk may name the key
	}
	return s.disk.Remove(nextFile)
}

// Rotate gives the log another signing key: the records, whose last names the new
// public key, are signed by the old one.
func (s *Store) Rotate(ctx context.Context, head Head, records func(public string) []*state.Record) (Head, error) {
	public, err := s.NextKey()
	if err != nil {
		return Head{}, err
	}
	batch := records(public)
	if f := rotation(batch); f == nil {
		return Head{}, errors.Join(ErrNotRotation, s.ForgetNextKey())
	}
	after, err := s.Append(ctx, head, batch)
	if err != nil {
		return Head{}, errors.Join(err, s.ForgetNextKey())
	}
	return after, nil
}

// rotation is what the last record says of the log's key, where it does.
func rotation(records []*state.Record) *state.SigningKeyRotated {
	if len(records) == 0 {
		return nil
	}
	f, _ := records[len(records)-1].Fact.(*state.SigningKeyRotated)
	return f
}

// mayRotate says before a batch is written whether a change of the log's key in it can
// be carried out.
func (s *Store) mayRotate(records []*state.Record) (*state.SigningKeyRotated, error) {
	last := rotation(records)
	for _, r := range records {
		if f, ok := r.Fact.(*state.SigningKeyRotated); ok && f != last {
			return nil, ErrNotRotation
		}
	}
	if last == nil {
		return nil, nil //nolint:nilnil // as a rule no key changes
	}
	v, err := parsePublic(last.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRotation, err)
	}
	if next, err := nextKey(s.disk); err != nil || next != v.KeyHash() {
		return nil, errors.Join(ErrNotRotation, err)
	}
	return last, nil
}

// followKey has the old key vouch for the new one, and lets the new one sign. A crash
// at any point of it leaves what the next start finishes.
func (s *Store) followKey(after state.Seq, public string) error {
	k := s.keys.Load()
	e := epoch{after: after, public: public}
	sig, err := k.signer.Sign([]byte(e.statement(k.verifier.Name())))
	if err != nil {
		return err
	}
	old := k.newest()
	h := old.KeyHash()
	sig = append([]byte{byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}, sig...)
	chain := append(bytes.Clone(k.chain), e.signed(old, base64.StdEncoding.EncodeToString(sig))...)
	if err := writeFile(s.disk, chainFile, 0o644, chain); err != nil {
		return err
	}
	return s.takeNext()
}

// takeNext puts the new key in the old one's place.
func (s *Store) takeNext() error {
	if err := s.disk.Rename(nextFile, keyFile); err != nil {
		return err
	}
	if err := s.disk.SyncDir(dirOf(keyFile)); err != nil {
		return err
	}
	k, err := loadKeys(s.disk, true)
	if err != nil {
		return err
	}
	s.keys.Store(k)
	return nil
}

// IsKeyFile says whether a file of a data directory belongs to the keys that sign the log.
func IsKeyFile(name string) bool {
	return name == keyFile || name == pubFile || name == chainFile || name == nextFile
}

// ErrKeyChanged means that the log's signing key changed while it was looked at.
var ErrKeyChanged = errors.New("the log's signing key was just changed")

// SigningFiles are the files of the key that signs now, by name, for a backup: with
// them and the log as this Store reads it a controller can go on. ErrKeyChanged: open
// the log again.
func (s *Store) SigningFiles() (map[string][]byte, error) {
	out := map[string][]byte{}
	raw, err := readFile(s.disk, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged(keyFile, 0, "the signing key is missing; what only reads the log works without it")
	}
	if err != nil {
		return nil, err
	}
	now, err := parsePrivate(string(raw))
	if err != nil {
		return nil, damaged(keyFile, 0, "%v", err)
	}
	if now.KeyHash() != s.keys.Load().newest().KeyHash() {
		return nil, ErrKeyChanged
	}
	out[keyFile] = raw
	named, err := s.namedKey()
	if err != nil || named == "" {
		return out, err
	}
	// The record of a change is the last, and the change isn't finished.
	next, err := nextKey(s.disk)
	if err != nil {
		return nil, err
	}
	if v, err := parsePublic(named); err != nil || v.KeyHash() != next {
		return nil, ErrKeyChanged
	}
	if out[nextFile], err = readFile(s.disk, nextFile); err != nil {
		return nil, errors.Join(ErrKeyChanged, err)
	}
	return out, nil
}

// namedKey is the key that the log's last record names, where the chain doesn't yet.
func (s *Store) namedKey() (string, error) {
	head := s.Head()
	if head.Seq == 0 {
		return "", nil
	}
	r, err := s.ReadAt(head.Seq)
	if err != nil {
		return "", err
	}
	if f := rotation([]*state.Record{r}); f != nil && !s.keys.Load().has(f.Key) {
		return f.Key, nil
	}
	return "", nil
}

// nextKey is the hash of the key that waits to be taken; 0 where there is none.
func nextKey(d Disk) (uint32, error) {
	raw, err := readFile(d, nextFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	k, err := parsePrivate(string(raw))
	if err != nil {
		return 0, damaged(nextFile, 0, "%v", err)
	}
	return k.KeyHash(), nil
}

// halfTaken finishes a rotation whose key is in the chain and not yet in place; it
// comes before the keys are read.
func (s *Store) halfTaken() error {
	next, err := nextKey(s.disk)
	if err != nil || next == 0 {
		return err
	}
	k, err := loadKeys(s.disk, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(k.later) == 0 || k.newest().KeyHash() != next {
		return err
	}
	return s.takeNext()
}

// halfRotated finishes a rotation whose record is the log's last, and forgets a key
// that no record names.
func (s *Store) halfRotated() error {
	named, err := s.namedKey()
	if err != nil {
		return err
	}
	next, err := nextKey(s.disk)
	switch {
	case err != nil:
		return err
	case named != "":
	case next != 0:
		return s.disk.Remove(nextFile)
	default:
		return nil
	}
	v, err := parsePublic(named)
	if err != nil || v.KeyHash() != next {
		return damaged(nextFile, 0, "record %d names another signing key, which is missing", s.head.Seq)
	}
	s.logger.LogAttrs(context.Background(), slog.LevelWarn, "finished a change of the log's signing key", slog.Uint64("record", uint64(s.head.Seq)))
	return s.followKey(s.head.Seq, named)
}

// rotated holds the keys that the records name against the chain of keys.
func (v *verifier) rotated(c Checkpoint) {
	for i := range v.keys.later {
		e := &v.keys.later[i]
		if got := v.rotations[e.after]; got != e.public && e.after <= c.Seq {
			_ = v.found(damaged(chainFile, 0, "record %d doesn't name the key that follows there", e.after))
		} else if e.after > c.Seq {
			_ = v.found(damaged(checkpointFile, 0, "the log ends with record %d, but its key was replaced after record %d: this is an old copy", c.Seq, e.after))
		}
		delete(v.rotations, e.after)
	}
	for seq := range v.rotations {
		if seq >= c.Seq && seq == v.end {
			v.note("record %d names another signing key, which isn't in use yet: the next start finishes that", seq)
			continue
		}
		_ = v.found(damaged(chainFile, 0, "record %d names a key that is missing here", seq))
	}
}

// CheckChain reads a chain of keys from the first one on, and gives the newest.
func CheckChain(chain []byte, first string) (newest string, err error) {
	key, err := parsePublic(strings.TrimSpace(first))
	if err != nil {
		return "", err
	}
	later, err := parseChain(chain, key)
	if err != nil {
		return "", err
	}
	if len(later) == 0 {
		return strings.TrimSpace(first), nil
	}
	return later[len(later)-1].public, nil
}
