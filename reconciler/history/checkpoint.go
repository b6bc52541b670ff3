package history

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

const (
	keyFile        = "log.key"
	pubFile        = "log.pub"
	checkpointFile = "checkpoint"
	// checkpointSize is one disk sector: the file is overwritten in place, and
	// a sector is written whole or not at all.
	checkpointSize = 512
)

// A Checkpoint is a signed statement of where a log ends. Its text is that of
// C2SP's tlog-checkpoint: origin, size and root, a line each, as a signed note.
type Checkpoint struct {
	Origin string
	Head
}

func (c Checkpoint) body() string {
	return c.Origin + "\n" + strconv.FormatUint(uint64(c.Seq), 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// ParseCheckpoint checks the signature of a checkpoint's text and reads it.
// Text that says the same in other bytes is refused, so that no bit of it can
// be changed.
func ParseCheckpoint(text []byte, key note.Verifier) (Checkpoint, error) {
	n, err := note.Open(text, note.VerifierList(key))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != key.Name() {
		return Checkpoint{}, fmt.Errorf("checkpoint is not one of log %s", key.Name())
	}
	seq, err := strconv.ParseUint(lines[1], 10, 62)
	root, err2 := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || err2 != nil || len(root) != len(state.Digest{}) {
		return Checkpoint{}, errors.New("checkpoint: size or root is malformed")
	}
	c := Checkpoint{Origin: lines[0], Head: Head{Seq: state.Seq(seq), Root: state.Digest(root)}}
	if len(n.Sigs) != 1 {
		return Checkpoint{}, errors.New("checkpoint: want one signature")
	}
	raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || !bytes.Equal(text, assemble(c, key, raw[4:])) {
		return Checkpoint{}, errors.New("checkpoint is not in canonical form")
	}
	return c, nil
}

// assemble is the note's text around a signature.
func assemble(c Checkpoint, key note.Verifier, sig []byte) []byte {
	h := key.KeyHash()
	raw := append([]byte{byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}, sig...)
	return []byte(c.body() + "\n— " + key.Name() + " " + base64.StdEncoding.EncodeToString(raw) + "\n")
}

// keys are those of one log. signer is nil where only the public key is there.
type keys struct {
	signer   note.Signer   // the newest
	verifier note.Verifier // the first: it is the log's identity
	public   string        // of it, in note's encoding
	later    []epoch       // that followed it
	chain    []byte        // that vouches for them
}

func (k *keys) sign(h Head) (text, sig []byte, err error) {
	c := Checkpoint{Origin: k.verifier.Name(), Head: h}
	sig, err = k.signer.Sign([]byte(c.body()))
	if err != nil {
		return nil, nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return assemble(c, k.newest(), sig), sig, nil
}

func (k *keys) verify(h Head, sig []byte) bool {
	body := []byte(Checkpoint{Origin: k.verifier.Name(), Head: h}.body())
	return slices.ContainsFunc(k.from(h.Seq), func(v note.Verifier) bool { return v.Verify(body, sig) })
}

// loadKeys reads a log's keys; fs.ErrNotExist where there are none.
func loadKeys(d Disk, private bool) (*keys, error) {
	pub, err := readFile(d, pubFile)
	if err != nil {
		return nil, err
	}
	line, whole := strings.CutSuffix(string(pub), "\n")
	k := &keys{public: line}
	if k.verifier, err = parsePublic(k.public); err != nil {
		return nil, damaged(pubFile, 0, "%v", err)
	}
	if !whole {
		return nil, damaged(pubFile, int64(len(pub)), "the end of the line is cut off")
	}
	if err := k.loadChain(d); err != nil || !private {
		return k, err
	}
	raw, err := readFile(d, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged(keyFile, 0, "the signing key is missing; what only reads the log works without it")
	}
	if err != nil {
		return nil, err
	}
	if k.signer, err = parsePrivate(string(raw)); err != nil {
		return nil, damaged(keyFile, 0, "%v", err)
	}
	if k.signer.Name() != k.verifier.Name() || k.signer.KeyHash() != k.newest().KeyHash() {
		if len(k.later) > 0 {
			return nil, damaged(keyFile, 0, "it is not the newest key of %s", chainFile)
		}
		return nil, damaged(keyFile, 0, "it does not belong to %s", pubFile)
	}
	return k, nil
}

// parsePublic reads a public key and refuses other spellings of the same key.
func parsePublic(text string) (note.Verifier, error) {
	v, err := note.NewVerifier(text)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	prefix := fmt.Sprintf("%s+%08x+", v.Name(), v.KeyHash())
	if rest, ok := strings.CutPrefix(text, prefix); !ok || !canonicalBase64(rest) {
		return nil, errors.New("public key is not in canonical form")
	}
	return v, nil
}

func parsePrivate(text string) (note.Signer, error) {
	line, ok := strings.CutSuffix(text, "\n")
	s, err := note.NewSigner(line)
	if err != nil {
		return nil, errors.New("signing key is malformed") // never the key itself
	}
	prefix := fmt.Sprintf("PRIVATE+KEY+%s+%08x+", s.Name(), s.KeyHash())
	if rest, found := strings.CutPrefix(line, prefix); !ok || !found || !canonicalBase64(rest) {
		return nil, errors.New("signing key is not in canonical form")
	}
	return s, nil
}

func canonicalBase64(s string) bool {
	raw, err := base64.StdEncoding.DecodeString(s)
	return err == nil && base64.StdEncoding.EncodeToString(raw) == s
}

// makeKeys makes a log's keys. The log's name is drawn with them: two logs
// never have the same.
func makeKeys(d Disk) (*keys, error) {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	private, public, err := note.GenerateKey(rand.Reader, "tandem.dev/log/"+hex.EncodeToString(id))
	if err != nil {
		return nil, err
	}
	// The private key first: a public key alone would be a log without a writer.
	if err := writeFile(d, keyFile, 0o600, []byte(private+"\n")); err != nil {
		return nil, err
	}
	if err := writeFile(d, pubFile, 0o644, []byte(public+"\n")); err != nil {
		return nil, err
	}
	return loadKeys(d, true)
}

// id is the log's identity: the digest of its public key.
func (k *keys) id() state.Digest { return sha256.Sum256([]byte(k.public)) }

// readCheckpoint reads the file of the newest checkpoint.
func readCheckpoint(d Disk, k *keys) (Checkpoint, error) {
	c, _, err := readNote(d, k)
	return c, err
}

// readNote reads the newest checkpoint and its text.
func readNote(d Disk, k *keys) (Checkpoint, []byte, error) {
	raw, err := readFile(d, checkpointFile)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	text := bytes.TrimRight(raw, "\x00")
	if len(raw) != checkpointSize {
		return Checkpoint{}, nil, damaged(checkpointFile, 0, "want %d bytes, found %d", checkpointSize, len(raw))
	}
	c, err := k.parse(text)
	if err != nil {
		return Checkpoint{}, nil, damaged(checkpointFile, 0, "%v", err)
	}
	return c, text, nil
}

func padCheckpoint(text []byte) ([]byte, error) {
	if len(text) > checkpointSize {
		return nil, fmt.Errorf("checkpoint of %d bytes", len(text))
	}
	return append(text, make([]byte, checkpointSize-len(text))...), nil
}

// ErrDamaged means that what the log acknowledged is not what the disk holds.
var ErrDamaged = errors.New("the log is damaged")

// A Damage says what is wrong and where.
type Damage struct {
	File   string // in the data directory
	Offset int64
	Cause  string
}

// cacheNote ends the cause of what Error says the remedy of.
const cacheNote = "; the file is a cache: delete it"

// Error is place, cause and remedy.
func (d *Damage) Error() string {
	if isCache(d.File) {
		return fmt.Sprintf("%s at byte %d: %s\n  fix: delete %s; it is made again from the log", d.File, d.Offset, strings.TrimSuffix(d.Cause, cacheNote), d.File)
	}
	return fmt.Sprintf("%s at byte %d: %s\n  fix: restore %s from a backup of the data directory; `tandem verify --data DIR` lists all that is wrong", d.File, d.Offset, d.Cause, d.File)
}

// Is makes every Damage an ErrDamaged.
func (*Damage) Is(target error) bool { return target == ErrDamaged }

func damaged(file string, offset int64, format string, args ...any) error {
	return &Damage{File: file, Offset: offset, Cause: fmt.Sprintf(format, args...)}
}
