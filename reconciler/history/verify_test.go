package history_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/historytest"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// filled is a stopped data directory with some of everything.
func filled(t testing.TB) (*historytest.Disk, string) {
	t.Helper()
	d := historytest.NewDisk()
	s, err := history.Open("mem", history.Options{Disk: d, SegmentRecords: 20})
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := s.OpenBlobs()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenSecrets(); err != nil {
		t.Fatal(err)
	}
	template := []byte("t")
	manifest := state.DigestOf([]byte("what the manifest means"))
	for digest, raw := range map[state.Digest][]byte{state.DigestOf(template): template, manifest: []byte("stored manifest")} {
		if err := blobs.Put(digest, raw); err != nil {
			t.Fatal(err)
		}
	}
	var texts []state.Text
	for _, w := range []string{"Ada Lovelace", "mend the till", "forget me"} {
		token, err := s.Texts().Put(w)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, token)
	}
	add(t, s, 1, 3, 16)
	h := s.Head()
	applied := recordAt(h.Seq + 1)
	applied.Actor = texts[0]
	applied.Fact = &state.RevisionApplied{Revision: "main@sha1:3f2a91c", Manifest: manifest, Commit: state.Commit{Author: texts[0], Message: texts[1], Signer: texts[2]}}
	if _, err := s.Append(context.Background(), h, []*state.Record{applied}); err != nil {
		t.Fatal(err)
	}
	if err := s.Texts().Erase(texts[2]); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveSnapshot(history.Snapshot{Seq: 20, Digest: manifest, State: []byte("the state at record 20")}); err != nil {
		t.Fatal(err)
	}
	add(t, s, 5, 25, 1, 1, 3)
	public := s.PublicKey()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return d, public
}

func verify(t testing.TB, d *historytest.Disk, public string) *history.Report {
	t.Helper()
	r, err := history.Verify(context.Background(), "mem", history.VerifyOptions{Disk: d, PublicKey: public})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnUntouchedDirectoryVerifies(t *testing.T) {
	d, public := filled(t)
	r, err := history.Verify(context.Background(), "mem", history.VerifyOptions{Disk: d, PublicKey: public, Every: true})
	if err != nil || !r.OK() || len(r.Notes) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r.Records != 56 || r.Files != 3 || r.Blobs != 2 || r.Texts != 3 || r.Erased != 1 || r.Snapshots != 1 || r.Signatures != r.Batches {
		t.Errorf("%+v", r)
	}
}

// One bit of any file: noticed, with its file.
func TestEveryFlippedBitIsNoticed(t *testing.T) {
	d, public := filled(t)
	kinds := map[string]bool{}
	for name, content := range d.Files() {
		if name == "lock" {
			continue
		}
		kinds[strings.TrimRight(name, "/0123456789abcdef")] = true
		step := max(1, len(content)/60)
		for at := 0; at < len(content); at += step {
			flipped := bytes.Clone(content)
			flipped[at] ^= 1 << (at % 8)
			r := verify(t, d.With(name, flipped), public)
			if r.OK() && len(r.Notes) == 0 {
				t.Errorf("%s: bit %d of byte %d was flipped unnoticed", name, at%8, at)
			}
		}
		// The last bytes are where formats have their slack.
		for bit := range 8 {
			flipped := bytes.Clone(content)
			flipped[len(flipped)-1] ^= 1 << bit
			if r := verify(t, d.With(name, flipped), public); r.OK() && len(r.Notes) == 0 {
				t.Errorf("%s: bit %d of the last byte was flipped unnoticed", name, bit)
			}
		}
	}
	if len(kinds) < 9 {
		t.Errorf("only %v were tried", slices.Sorted(maps.Keys(kinds)))
	}
}

func TestCutAndRemovedFilesAreNoticed(t *testing.T) {
	d, public := filled(t)
	for name, content := range d.Files() {
		if name == "lock" {
			continue
		}
		for _, n := range []int{0, 1, len(content) / 2, len(content) - 1} {
			r := verify(t, d.With(name, append([]byte{}, content[:n]...)), public)
			if r.OK() {
				t.Errorf("%s was cut to %d bytes unnoticed", name, n)
			}
		}
		if r := verify(t, d.With(name, append(bytes.Clone(content), 0)), public); r.OK() && len(r.Notes) == 0 {
			t.Errorf("%s grew unnoticed", name)
		}
		cache := strings.HasSuffix(name, ".idx") || strings.HasSuffix(name, ".snap")
		private := strings.HasSuffix(name, ".key") // a copy for an auditor has none
		if r := verify(t, d.With(name, nil), public); r.OK() && !cache && !private {
			t.Errorf("%s was removed unnoticed", name)
		}
	}
}

// Who can write the files but hasn't the key: swaps records, mends every
// checksum and root, and still can't sign.
func TestSwappedRecordsAreNoticed(t *testing.T) {
	d, public := filled(t)
	other, _ := filled(t) // the same records, another log's key
	for name, content := range other.Files() {
		if !strings.HasSuffix(name, ".log") {
			continue // equal records have equal indexes
		}
		if r := verify(t, d.With(name, content), public); r.OK() {
			t.Errorf("%s of another log was put in unnoticed", name)
		}
	}
	if r := verify(t, other, public); r.OK() {
		t.Error("another log was put in whole, unnoticed")
	}
	// An older copy of the log under the newest checkpoint.
	files := d.Files()
	last := "log/00000000000000000052.log"
	if files[last] == nil {
		t.Fatalf("no %s in %v", last, slices.Sorted(maps.Keys(files)))
	}
	if r := verify(t, d.With(last, nil), public); r.OK() {
		t.Error("the newest file was removed unnoticed")
	}
	if _, err := history.Open("mem", history.Options{Disk: d.With(last, nil)}); !errors.Is(err, history.ErrDamaged) || !strings.Contains(err.Error(), "acknowledged") {
		t.Errorf("a cut log was opened: %v", err)
	}
}

// Swapping two records of a batch, and mending the checksum: the root is wrong.
func TestSwappedRecordsOfABatchAreNoticed(t *testing.T) {
	d, public := filled(t)
	last := "log/00000000000000000052.log"
	b := d.Files()[last]
	at := bytes.LastIndex(b, []byte("TFR1"))
	f := b[at:]
	one := 20 + 1 + int(f[20]) // fixed part, length, record
	two := one + 1 + int(f[one])
	swapped := slices.Concat(b[:at], f[:20], f[one:two], f[20:one], f[two:len(f)-4])
	swapped = binary.LittleEndian.AppendUint32(swapped, crc32.Checksum(swapped[at:], crc32.MakeTable(crc32.Castagnoli)))
	if len(swapped) != len(b) || bytes.Equal(swapped, b) {
		t.Fatal("nothing was swapped")
	}
	r := verify(t, d.With(last, swapped), public)
	if len(r.Findings) != 1 || r.Findings[0].File != last || !strings.Contains(r.Findings[0].Cause, "do not hash to the root") {
		t.Errorf("%+v", r.Findings)
	}
}

// What was acknowledged and is damaged is never cut off for a torn batch.
func TestDamageIsNotCutOff(t *testing.T) {
	d, _ := filled(t)
	files := d.Files()
	last := "log/00000000000000000052.log"
	for at := range files[last] {
		flipped := bytes.Clone(files[last])
		flipped[at] ^= 4
		damaged := d.With(last, flipped)
		if s, err := history.Open("mem", history.Options{Disk: damaged}); !errors.Is(err, history.ErrDamaged) {
			t.Fatalf("byte %d: opened: %v, %v", at, s, err)
		}
		if got := damaged.Files()[last]; !bytes.Equal(got, flipped) {
			t.Fatalf("byte %d: the damaged file was changed", at)
		}
	}
}

// Indexes and snapshots are caches: without them, and with damaged ones, the
// same records come back.
func TestCachesCanGo(t *testing.T) {
	d, public := filled(t)
	for name, content := range d.Files() {
		if !strings.HasSuffix(name, ".idx") && !strings.HasSuffix(name, ".snap") {
			continue
		}
		bad := bytes.Clone(content)
		bad[9] ^= 1
		for _, content := range [][]byte{nil, bad} {
			c := d.With(name, content)
			s, err := history.Open("mem", history.Options{Disk: c, SegmentRecords: 20})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			n := 0
			for _, err := range s.Read(context.Background(), 1) {
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				n++
			}
			if n != 56 {
				t.Errorf("%s: %d records", name, n)
			}
			if _, err := s.Prove(7); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if r := verify(t, c, public); strings.HasSuffix(name, ".idx") && !r.OK() {
				t.Errorf("%s was not made again: %+v", name, r.Findings)
			}
		}
	}
}

func TestProofsProveAndNothingElseDoes(t *testing.T) {
	d, public := filled(t)
	s, err := history.Open("mem", history.Options{Disk: d, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for seq := state.Seq(1); seq <= 56; seq += 5 {
		text, err := s.Prove(seq)
		if err != nil {
			t.Fatal(err)
		}
		got, err := history.VerifyProof(text, public, nil)
		if err != nil || got.Record.Seq != seq || got.Checkpoint.Seq != 56 {
			t.Fatalf("record %d: %+v, %v", seq, got, err)
		}
		for at := range text {
			flipped := bytes.Clone(text)
			flipped[at] ^= 1 << (at % 7)
			if _, err := history.VerifyProof(flipped, public, nil); err == nil {
				t.Fatalf("record %d: byte %d of the proof was changed unnoticed: %q", seq, at, flipped)
			}
		}
	}
	if _, err := s.Prove(57); !errors.Is(err, history.ErrNoRecord) {
		t.Errorf("got %v", err)
	}
}

func TestConsistency(t *testing.T) {
	s := open(t, t.TempDir(), history.Options{SegmentRecords: 8})
	var heads []history.Head
	for n := range 9 {
		add(t, s, n+1)
		heads = append(heads, s.Head())
	}
	for i, a := range heads {
		for _, b := range heads[i:] {
			p, err := s.Consistency(a.Seq, b.Seq)
			if err != nil {
				t.Fatal(err)
			}
			if err := history.CheckConsistency(p, a, b); err != nil {
				t.Error(err)
			}
			forked := a
			forked.Root[3] ^= 1
			if a != b && history.CheckConsistency(p, forked, b) == nil {
				t.Errorf("a fork at %d passed", a.Seq)
			}
		}
	}
	if err := history.CheckConsistency(tlog.TreeProof{}, heads[0], heads[4]); err == nil {
		t.Error("an empty proof passed")
	}
}

// Sealed segments answer from postings as reading all would.
func TestSelectIsReadingAll(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, history.Options{SegmentRecords: 60})
	add(t, s, 1, 99, 50, 50, 33)
	if err := s.Close(); err != nil { // indexes are written
		t.Fatal(err)
	}
	indexed := open(t, dir, history.Options{SegmentRecords: 60})
	plain := open(t, t.TempDir(), history.Options{})
	add(t, plain, 233)
	for i, f := range []history.Filter{
		{},
		{Kinds: []state.Kind{state.KindPodPlaced}},
		{Kinds: []state.Kind{state.KindPodObserved, state.KindLogStarted}, From: 30, To: 200},
		{App: "shop"},
		{App: "other"},
		{Object: state.Ref{Kind: "Deployment", Namespace: "prod", Name: "web-5"}},
		{Object: state.Ref{Kind: "Pod", Namespace: "prod", Name: "web-5"}},
		{Object: state.Ref{Kind: "Node", Name: "node-3"}},
		{Node: "node-3"},
		{Node: "node-3", After: recordAt(50).At.Wall, Until: recordAt(190).At.Wall},
	} {
		var got, want []state.Seq
		for r, err := range indexed.Select(context.Background(), f) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.Seq)
		}
		for r, err := range plain.Select(context.Background(), f) {
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, r.Seq)
		}
		if !slices.Equal(got, want) || len(want) == 0 && f.App != "other" {
			t.Errorf("filter %d: got %v, want %v", i, got, want)
		}
	}
	// A pod's later records name it by UID alone.
	var seqs []state.Seq
	for r := range indexed.Select(context.Background(), history.Filter{Object: state.Ref{Kind: "Pod", Namespace: "prod", Name: "web-5"}}) {
		seqs = append(seqs, r.Seq)
	}
	if !slices.Equal(seqs, []state.Seq{5, 6}) {
		t.Errorf("pod web-5: records %v", seqs)
	}
}

func TestJSON(t *testing.T) {
	s := open(t, t.TempDir(), history.Options{})
	token, _ := s.Texts().Put("mend the till")
	r := recordAt(2)
	r.Fact = &state.Commanded{Verb: state.CmdRestart, Object: state.Ref{Kind: "Deployment", Namespace: "prod", Name: "web"}, Reason: token}
	got, err := history.JSON(r, s.Texts())
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"seq":2,"time":"2026-11-18T11:06:40.002000Z","at":{"mono":2000000,"wall":1795000000002000000},"app":"shop",`+
		`"fact":{"kind":"Commanded","verb":5,"object":{"kind":"Deployment","namespace":"prod","name":"web"},"reason":"%s"},"texts":{"%s":"mend the till"}}`, token, token)
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	r.Fact = &state.ControllerStopped{}
	if got, err := history.JSON(r, nil); err != nil || !strings.Contains(string(got), `"fact":{"kind":"ControllerStopped"}`) {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestSecretsSealAndTell(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, history.Options{})
	a, err := s.OpenSecrets()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := a.Seal([]byte("hunter2"))
	if err != nil || bytes.Contains(sealed, []byte("hunter2")) {
		t.Fatalf("%q, %v", sealed, err)
	}
	b, err := s.OpenSecrets()
	if err != nil {
		t.Fatal(err)
	}
	if clear, err := b.Open(sealed); err != nil || string(clear) != "hunter2" {
		t.Errorf("%q, %v", clear, err)
	}
	if a.Token([]byte("x")) != b.Token([]byte("x")) || a.Token([]byte("x")) == a.Token([]byte("y")) {
		t.Error("tokens don't tell values apart")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := b.Open(sealed); err == nil {
		t.Error("changed bytes were opened")
	}
}
