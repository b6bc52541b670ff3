package history_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Whoever changes, deletes, exchanges, repeats or cuts anything of the log, or
// puts an older or another history in its place, is caught by who has the public
// key and a checkpoint: 10,000 times of 10,000 in a soak.
func TestTamperingIsCaught(t *testing.T) {
	t.Parallel()
	d, public := filled(t)
	files := d.Files()
	seen := bytes.TrimRight(files["checkpoint"], "\x00")
	tries := 400
	if os.Getenv("TANDEM_SOAK") != "" {
		tries = 10_000
	}
	var names []string
	for name := range files {
		if strings.HasPrefix(name, "log/") && strings.HasSuffix(name, ".log") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	r := rand.New(rand.NewPCG(7, 11)) //nolint:gosec // a seed is what is wanted
	caught := map[string]int{}
	for range tries {
		name := names[r.IntN(len(names))]
		was := files[name]
		now, how := tampered(r, was)
		if bytes.Equal(was, now) {
			continue
		}
		got, err := history.Verify(context.Background(), "mem", history.VerifyOptions{Disk: d.With(name, now), PublicKey: public, Seen: seen})
		// What lies behind the acknowledged end is told, and is no part of the log.
		if err == nil && got.OK() && len(got.Notes) == 0 {
			t.Fatalf("%s: %s went unnoticed", name, how)
		}
		caught[how]++
	}
	for _, how := range []string{"edit", "delete", "insert", "exchange", "repeat", "cut"} {
		if caught[how] == 0 {
			t.Errorf("no %s was tried", how)
		}
	}
}

// tampered is a file after one random mischief.
func tampered(r *rand.Rand, was []byte) (now []byte, how string) {
	now = bytes.Clone(was)
	a := r.IntN(len(now))
	n := 1 + r.IntN(min(200, len(now)-a))
	switch r.IntN(6) {
	case 0:
		now[a] ^= byte(1 + r.IntN(255))
		return now, "edit"
	case 1:
		return slices.Delete(now, a, a+n), "delete"
	case 2:
		return slices.Insert(now, a, was[:n]...), "insert"
	case 3:
		b := r.IntN(len(now) - n + 1)
		part := bytes.Clone(now[a : a+n])
		copy(now[a:a+n], now[b:b+n])
		copy(now[b:b+n], part)
		return now, "exchange"
	case 4:
		return slices.Insert(now, a+n, was[a:a+n]...), "repeat"
	default:
		return now[:a], "cut"
	}
}

// A split view: two logs that one key signed, equal at first. Whoever holds a
// checkpoint of the one refuses the other, and each an older copy of itself.
func TestSplitViewsAreCaught(t *testing.T) {
	t.Parallel()
	d, public := filled(t)
	fork := func(sizes ...int) ([]byte, func(seen []byte) *history.Report) {
		t.Helper()
		disk := d.Crash(func(string, int) int { return 0 })
		s, err := history.Open("mem", history.Options{Disk: disk, SegmentRecords: 20})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range sizes {
			h := s.Head()
			batch := batchAfter(h, n)
			for _, r := range batch {
				r.App = state.AppName("fork-" + strconv.Itoa(len(sizes)))
			}
			if _, err := s.Append(context.Background(), h, batch); err != nil {
				t.Fatal(err)
			}
		}
		text, err := s.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return text, func(seen []byte) *history.Report {
			t.Helper()
			r, err := history.Verify(context.Background(), "mem", history.VerifyOptions{Disk: disk, PublicKey: public, Witnessed: []history.Witnessed{{Where: "the note", Text: seen}}})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
	}
	one, verifyOne := fork(4)
	other, verifyOther := fork(2, 2)
	shorter, verifyShorter := fork(1)
	for name, c := range map[string]struct {
		verify func([]byte) *history.Report
		seen   []byte
		ok     bool
	}{
		"itself":         {verifyOne, one, true},
		"the other":      {verifyOne, other, false},
		"the one":        {verifyOther, one, false},
		"an older copy":  {verifyShorter, one, false},
		"a shorter fork": {verifyOne, shorter, false},
	} {
		if r := c.verify(c.seen); r.OK() != c.ok {
			t.Errorf("%s: ok %t, findings %v", name, r.OK(), r.Findings)
		}
	}
}

// A proof is C2SP's tlog-proof around a signed note: this reader is written from
// those two texts alone, and uses nothing of this repository.
func TestAnotherReaderReadsProofs(t *testing.T) {
	t.Parallel()
	d, public := filled(t)
	s, err := history.Open("mem", history.Options{Disk: d, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for seq := state.Seq(1); seq <= 56; seq += 11 {
		text, err := s.Prove(seq)
		if err != nil {
			t.Fatal(err)
		}
		if !foreignProof(text, public) {
			t.Errorf("record %d: another reader refuses the proof:\n%s", seq, text)
		}
		if err := modProof(text, public); err != nil {
			t.Errorf("record %d: golang.org/x/mod refuses the proof: %v\n%s", seq, err, text)
		}
		if foreignProof(bytes.Replace(text, []byte("index "+strconv.Itoa(int(seq)-1)), []byte("index "+strconv.Itoa(int(seq))), 1), public) {
			t.Errorf("record %d: the reader takes another index: it checks nothing", seq)
		}
	}
}

// modProof checks a proof with golang.org/x/mod's note and tlog, as a tool of the Go
// module mirror or of C2SP would.
func modProof(text []byte, vkey string) error {
	head, signed, _ := strings.Cut(string(text), "\n\n")
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	n, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		return err
	}
	var origin, root, extra string
	var size, index int64
	if _, err := fmt.Sscanf(n.Text, "%s\n%d\n%s\n", &origin, &size, &root); err != nil {
		return err
	}
	lines := strings.Split(head, "\n")
	if _, err := fmt.Sscanf(strings.Join(lines[1:3], "\n"), "extra %s\nindex %d", &extra, &index); err != nil {
		return err
	}
	record, err := base64.StdEncoding.DecodeString(extra)
	if err != nil {
		return err
	}
	top, err := tlog.ParseHash(root)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, h)
	}
	return tlog.CheckRecord(proof, size, top, index, tlog.RecordHash(record))
}

// foreignProof checks a proof: the signature of the note, and the way from the
// leaf to the root by RFC 6962.
func foreignProof(text []byte, vkey string) bool {
	head, note, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return false
	}
	leafText := lines[1][len("extra "):]
	index, err := strconv.ParseUint(strings.TrimPrefix(lines[2], "index "), 10, 64)
	record, err2 := base64.StdEncoding.DecodeString(leafText)
	body, signature, ok := strings.Cut(note, "\n\n")
	if err != nil || err2 != nil || !ok {
		return false
	}
	body += "\n"
	// vkey: name+hash+base64(1 ‖ ed25519 key)
	parts := strings.SplitN(vkey, "+", 3)
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || key[0] != 1 {
		return false
	}
	fields := strings.Fields(signature) // — name base64(hash ‖ signature)
	sig, err := base64.StdEncoding.DecodeString(fields[2])
	id := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if err != nil || fields[1] != parts[0] || binary.BigEndian.Uint32(sig) != binary.BigEndian.Uint32(id[:]) || !ed25519.Verify(key[1:], []byte(body), sig[4:]) {
		return false
	}
	said := strings.Split(body, "\n") // origin, size, root
	size, err := strconv.ParseUint(said[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(said[2])
	if err != nil || err2 != nil || index >= size {
		return false
	}
	hash := sha256.Sum256(append([]byte{0}, record...))
	fn, sn := index, size-1
	for _, line := range lines[3:] {
		sibling, err := base64.StdEncoding.DecodeString(line)
		if err != nil || sn == 0 {
			return false
		}
		if fn&1 == 1 || fn == sn {
			hash = sha256.Sum256(slices.Concat([]byte{1}, sibling, hash[:]))
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			hash = sha256.Sum256(slices.Concat([]byte{1}, hash[:], sibling))
		}
		fn, sn = fn>>1, sn>>1
	}
	return sn == 0 && bytes.Equal(hash[:], root)
}
