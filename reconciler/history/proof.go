package history

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	xnote "golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// ProofHeader begins C2SP's tlog-proof format.
const ProofHeader = "c2sp.org/tlog-proof@v1"

// Prove says, to someone who has only the log's public key, that a record is in
// the log. The text is C2SP's tlog-proof with the record's bytes as extra data.
func (s *Store) Prove(seq state.Seq) ([]byte, error) {
	note, err := s.Checkpoint()
	if err != nil {
		return nil, err
	}
	c, err := s.keys.Load().parse(note)
	if err != nil {
		return nil, err
	}
	view := s.view()
	if seq > c.Seq {
		return nil, fmt.Errorf("prove record %d: %w", seq, ErrNoRecord)
	}
	raw, err := view.raw(seq)
	if err != nil {
		return nil, err
	}
	proof, err := tlog.ProveRecord(int64(c.Seq), int64(seq)-1, view)
	if err != nil {
		return nil, fmt.Errorf("prove record %d: %w", seq, err)
	}
	if err := tlog.CheckRecord(proof, int64(c.Seq), tlog.Hash(c.Root), int64(seq)-1, tlog.RecordHash(raw)); err != nil {
		return nil, damaged(logDir, 0, "the tree's stored hashes do not prove record %d", seq)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", ProofHeader, base64.StdEncoding.EncodeToString(raw), seq-1)
	for _, h := range proof {
		fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(note)
	return b.Bytes(), nil
}

// A Proven record is what a proof's text is good for.
type Proven struct {
	Record     *state.Record
	Checkpoint Checkpoint
	Signer     string // the log's name and the hash of the key that signed
}

// VerifyProof checks the text that Prove gave, with the log's public key alone; and
// with the chain of keys, where another signed it than the one that is known.
func VerifyProof(text []byte, publicKey string, chain []byte) (Proven, error) {
	key, err := parsePublic(strings.TrimSpace(publicKey))
	if err != nil {
		return Proven{}, err
	}
	trusted := &keys{verifier: key}
	if trusted.later, err = parseChain(chain, key); err != nil {
		return Proven{}, err
	}
	head, note, ok := bytes.Cut(text, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !ok || len(lines) < 3 || lines[0] != ProofHeader {
		return Proven{}, errors.New("this is not a proof: want " + ProofHeader)
	}
	extra, ok1 := strings.CutPrefix(lines[1], "extra ")
	index, ok2 := strings.CutPrefix(lines[2], "index ")
	raw, err := strictBase64(extra)
	n, err2 := strconv.ParseInt(index, 10, 62)
	if !ok1 || !ok2 || err != nil || err2 != nil || n < 0 || strconv.FormatInt(n, 10) != index {
		return Proven{}, errors.New("the proof names no record")
	}
	var proof tlog.RecordProof
	for _, l := range lines[3:] {
		h, err := strictBase64(l)
		if err != nil || len(h) != tlog.HashSize {
			return Proven{}, errors.New("a hash of the proof is malformed")
		}
		proof = append(proof, tlog.Hash(h))
	}
	c, err := trusted.parse(note)
	if _, unknown := errors.AsType[*xnote.UnverifiedNoteError](err); unknown {
		return Proven{}, fmt.Errorf("it isn't signed with the key that you gave: if the log has another since, add its chain of keys (log.keys): %w", err)
	}
	if err != nil {
		return Proven{}, err
	}
	if n >= int64(c.Seq) {
		return Proven{}, fmt.Errorf("record %d is not in a log of %d", n+1, c.Seq)
	}
	if err := tlog.CheckRecord(proof, int64(c.Seq), tlog.Hash(c.Root), n, tlog.RecordHash(raw)); err != nil {
		return Proven{}, fmt.Errorf("record %d is not what the log holds there: %w", n+1, err)
	}
	r, err := recordpb.UnmarshalRecord(raw)
	if err != nil {
		return Proven{}, err
	}
	if int64(r.Seq) != n+1 {
		return Proven{}, fmt.Errorf("the record in place %d says that it is record %d", n+1, r.Seq)
	}
	return Proven{Record: r, Checkpoint: c, Signer: signerOf(note)}, nil
}

func strictBase64(s string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(s)
	if err == nil && base64.StdEncoding.EncodeToString(raw) != s {
		err = errors.New("not in canonical form")
	}
	return raw, err
}

// Consistency proves that the log at a later size only added to the log at an
// earlier one.
func (s *Store) Consistency(earlier, later state.Seq) (tlog.TreeProof, error) {
	if earlier == 0 || earlier > later || later > s.Head().Seq {
		return nil, fmt.Errorf("prove that record %d follows %d in a log of %d: %w", later, earlier, s.Head().Seq, ErrNoRecord)
	}
	return tlog.ProveTree(int64(later), int64(earlier), s.view())
}

// CheckConsistency checks what Consistency proved.
func CheckConsistency(proof tlog.TreeProof, earlier, later Head) error {
	if err := tlog.CheckTree(proof, int64(later.Seq), tlog.Hash(later.Root), int64(earlier.Seq), tlog.Hash(earlier.Root)); err != nil {
		return fmt.Errorf("the log of %d records is not what the log of %d records became: %w", later.Seq, earlier.Seq, err)
	}
	return nil
}
