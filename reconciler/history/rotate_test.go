package history_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/historytest"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// rotate gives a log another key, by two records.
func rotate(s *history.Store) (history.Head, error) {
	h := s.Head()
	return s.Rotate(context.Background(), h, func(public string) []*state.Record {
		batch := batchAfter(h, 2)
		batch[1].Fact = &state.SigningKeyRotated{Key: public}
		return batch
	})
}

// withTemplate keeps the template that records of the tests name.
func withTemplate(t testing.TB, s *history.Store) {
	t.Helper()
	blobs, err := s.OpenBlobs()
	if err == nil {
		err = blobs.Put(state.DigestOf([]byte("t")), []byte("t"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rotated is a stopped log that had three keys, with the checkpoints under each and the
// directory as it was before the first change.
func rotated(t testing.TB) (d, before *historytest.Disk, public string, notes [][]byte) {
	t.Helper()
	d = historytest.NewDisk()
	s, err := history.Open("mem", history.Options{Disk: d, SegmentRecords: 8})
	if err != nil {
		t.Fatal(err)
	}
	withTemplate(t, s)
	public = s.PublicKey()
	note := func() {
		t.Helper()
		text, err := s.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		notes = append(notes, text)
	}
	add(t, s, 3, 7)
	note()
	before = d.With("lock", nil)
	for range 2 {
		if _, err := rotate(s); err != nil {
			t.Fatal(err)
		}
		add(t, s, 1, 5, 4)
		if err := s.SaveSnapshot(history.Snapshot{Seq: s.Head().Seq, State: []byte("state")}); err != nil {
			t.Fatal(err)
		}
		note()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return d, before, public, notes
}

func TestALogWithThreeKeysVerifies(t *testing.T) {
	t.Parallel()
	d, _, public, notes := rotated(t)
	s, err := history.Open("mem", history.Options{Disk: d, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	keys := s.Keys()
	if len(keys) != 3 || keys[0].Public != public || keys[1].After != 12 || keys[2].After != 24 {
		t.Fatalf("keys %+v", keys)
	}
	if s.ID() != state.DigestOf([]byte(public)) {
		t.Error("with another key it is another log")
	}
	for i, known := range keys { // whichever of them an auditor was given
		for j, seen := range notes {
			r, err := history.Verify(context.Background(), "mem", history.VerifyOptions{Disk: d, PublicKey: known.Public, Seen: seen, Every: true})
			if err != nil || !r.OK() || r.Keys != 3 || r.Signer != keys[2].Name {
				t.Errorf("key %d, checkpoint %d: %+v, %v", i, j, r, err)
			}
		}
	}
	chain := s.Chain()
	for seq := state.Seq(1); seq <= s.Head().Seq; seq += 5 {
		text, err := s.Prove(seq)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := history.VerifyProof(text, public, chain); err != nil || p.Signer != keys[2].Name {
			t.Errorf("record %d: %v, signed by %s", seq, err, p.Signer)
		}
		if _, err := history.VerifyProof(text, keys[2].Public, nil); err != nil {
			t.Errorf("record %d, with the newest key alone: %v", seq, err)
		}
		if _, err := history.VerifyProof(text, public, nil); err == nil || !strings.Contains(err.Error(), "log.keys") {
			t.Errorf("record %d, with the first key alone: %v", seq, err)
		}
	}
	if newest, err := history.CheckChain(chain, public); err != nil || newest != keys[2].Public {
		t.Errorf("the chain leads to %s, %v", newest, err)
	}
}

// One bit of any file of a log with three keys; any of them cut, removed or longer.
func TestTamperingWithRotationIsNoticed(t *testing.T) {
	t.Parallel()
	d, _, public, _ := rotated(t)
	for name, content := range d.Files() {
		if name == "lock" || len(content) == 0 {
			continue
		}
		for at := 0; at < len(content); at += max(1, len(content)/150) {
			flipped := bytes.Clone(content)
			flipped[at] ^= 1 << (at % 8)
			if r := verify(t, d.With(name, flipped), public); r.OK() && len(r.Notes) == 0 {
				t.Errorf("%s: bit %d of byte %d was flipped unnoticed", name, at%8, at)
			}
		}
		for _, n := range []int{0, 1, len(content) / 2, len(content) - 1} {
			if r := verify(t, d.With(name, bytes.Clone(content[:n])), public); r.OK() {
				t.Errorf("%s was cut to %d bytes unnoticed", name, n)
			}
		}
	}
	chain := d.Files()["log.keys"]
	lines := bytes.SplitAfter(chain, []byte("\n"))
	one, two := bytes.Join(lines[:6], nil), bytes.Join(lines[6:12], nil)
	for what, now := range map[string][]byte{
		"removed": nil, "without the first": two, "without the second": one, "exchanged": slices.Concat(two, one), "repeated": slices.Concat(one, one, two),
	} {
		if r := verify(t, d.With("log.keys", now), public); r.OK() {
			t.Errorf("the chain of keys was %s unnoticed", what)
		}
	}
}

// What a replaced key signs for a longer log says nothing: who had taken it can't add
// to the log, nor give the log a key of their own, nor hand out checkpoints of it.
func TestAReplacedKeyIsRevoked(t *testing.T) {
	t.Parallel()
	d, before, public, _ := rotated(t)
	thief, err := history.Open("mem", history.Options{Disk: before, SegmentRecords: 8})
	if err != nil {
		t.Fatal(err)
	}
	add(t, thief, 2, 9, 9)
	forged, err := thief.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(what string, disk *historytest.Disk, o history.VerifyOptions) {
		t.Helper()
		o.Disk, o.PublicKey = disk, public
		if r, err := history.Verify(context.Background(), "mem", o); err == nil && r.OK() {
			t.Errorf("%s went unnoticed", what)
		}
	}
	check("a kept checkpoint by the old key", d, history.VerifyOptions{Seen: forged})
	check("a witnessed checkpoint by the old key", d, history.VerifyOptions{Witnessed: []history.Witnessed{{Where: "a note", Text: forged}}})
	check("the old key's checkpoint in place of the newest", d.With("checkpoint", append(bytes.Clone(forged), make([]byte, 512-len(forged))...)), history.VerifyOptions{})
	mixed := d
	for name, content := range before.Files() {
		if strings.HasPrefix(name, "log/") && strings.HasSuffix(name, ".log") {
			mixed = mixed.With(name, content)
		}
	}
	check("the old key's records under the new chain", mixed, history.VerifyOptions{})
	if _, err := history.Open("mem", history.Options{Disk: d.With("log.key", before.Files()["log.key"])}); !errors.Is(err, history.ErrDamaged) {
		t.Errorf("a controller started with the old key: %v", err)
	}
	// The copy that the thief went on with is another history: who keeps a newer checkpoint sees it.
	newest := bytes.TrimRight(d.Files()["checkpoint"], "\x00")
	check("the thief's own log", before, history.VerifyOptions{Seen: newest})
}

// At every operation of a change of keys that touches the disk, a crash or a failure:
// the next start goes on, with the old key or the new one, and all verifies.
func TestEveryFaultWhileTheKeyChanges(t *testing.T) {
	t.Parallel()
	start := func() *historytest.Disk {
		d := historytest.NewDisk()
		s, err := history.Open("mem", history.Options{Disk: d})
		if err != nil {
			t.Fatal(err)
		}
		withTemplate(t, s)
		add(t, s, 4)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return d
	}
	change := func(d *historytest.Disk) error {
		s, err := history.Open("mem", history.Options{Disk: d})
		if err != nil {
			return err
		}
		_, err = rotate(s)
		return errors.Join(err, s.Close())
	}
	probe := start()
	probe.Inject(historytest.Fault{})
	if err := change(probe); err != nil {
		t.Fatal(err)
	}
	total := probe.Ops()
	if total < 12 {
		t.Fatalf("only %d operations", total)
	}
	failure := errors.New("no space left on device")
	old, changed := 0, 0
	for name, f := range map[string]historytest.Fault{"crash": {}, "torn": {Short: true}, "error": {Err: failure}, "short": {Err: failure, Short: true}} {
		for at := 1; at <= total; at++ {
			f.At = at
			d := start()
			d.Inject(f)
			_ = change(d) // what it says is the caller's; what is left is looked at
			for after, disk := range map[string]*historytest.Disk{"lost": d.Crash(nil), "all": d.Crash(func(_ string, n int) int { return n }), "killed": d.Kill()} {
				s, err := history.Open("mem", history.Options{Disk: disk})
				if err != nil {
					t.Fatalf("%s at %d, %s: %v", name, at, after, err)
				}
				if len(s.Keys()) == 1 {
					old++
				} else {
					changed++
				}
				public := s.PublicKey()
				add(t, s, 2)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if r := verify(t, disk, public); !r.OK() || len(r.Notes) > 0 {
					t.Fatalf("%s at %d, %s: %+v", name, at, after, r)
				}
				if disk.Files()["log.key.next"] != nil {
					t.Fatalf("%s at %d, %s: the key that nobody uses is still there", name, at, after)
				}
			}
		}
	}
	if old == 0 || changed == 0 {
		t.Errorf("%d went back, %d went on: want some of both", old, changed)
	}
}

// A batch that names a key which nobody made, or goes on after it, isn't written.
func TestOnlyTheKeyThatWasMadeIsTaken(t *testing.T) {
	t.Parallel()
	d := historytest.NewDisk()
	s, err := history.Open("mem", history.Options{Disk: d})
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, 3)
	public, err := s.NextKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.NextKey() // takes the place of the first
	if err != nil {
		t.Fatal(err)
	}
	h := s.Head()
	for what, keys := range map[string][2]string{"a key that is gone": {"", public}, "no key": {"", "x"}, "a key in the middle": {other, ""}, "two keys": {other, other}} {
		batch := batchAfter(h, 2)
		for i, key := range keys {
			if key != "" {
				batch[i].Fact = &state.SigningKeyRotated{Key: key}
			}
		}
		if after, err := s.Append(context.Background(), h, batch); !errors.Is(err, history.ErrNotRotation) {
			t.Errorf("%s: %v, %v", what, after, err)
		}
	}
	if s.Head() != h || len(s.Keys()) != 1 {
		t.Errorf("the log went on to %v with %d keys", s.Head(), len(s.Keys()))
	}
	if err := s.ForgetNextKey(); err != nil {
		t.Fatal(err)
	}
	add(t, s, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Files for a backup are those of the key that the opened log ends with.
func TestSigningFilesBelongToTheLogThatIsRead(t *testing.T) {
	t.Parallel()
	d, before, _, _ := rotated(t)
	for name, disk := range map[string]*historytest.Disk{"before": before, "after": d} {
		s, err := history.Open("mem", history.Options{Disk: disk, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		files, err := s.SigningFiles()
		if err != nil || !bytes.Equal(files["log.key"], disk.Files()["log.key"]) || len(files) != 1 {
			t.Errorf("%s: %d files, %v", name, len(files), err)
		}
	}
	old, err := history.Open("mem", history.Options{Disk: before.With("log.key", d.Files()["log.key"]), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.SigningFiles(); !errors.Is(err, history.ErrKeyChanged) {
		t.Errorf("the newest key with the old log: %v", err)
	}
}
