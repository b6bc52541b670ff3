package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// VerifyOptions say what Verify holds a data directory against.
type VerifyOptions struct {
	// PublicKey is the log's, known from elsewhere. Empty: the one in the
	// directory, which proves nothing against who can write there.
	PublicKey string
	Disk      Disk // replaces the file system
	// Seen is a checkpoint of the log that was kept elsewhere: the log must hold
	// the same records up to there still.
	Seen []byte
	// Witnessed are checkpoints that others keep, likewise.
	Witnessed []Witnessed
	// Every checks the signature after every batch and every posting, not only
	// those at the end of each sealed file and their checksums.
	Every bool
	// Record sees every record in order, to fold the log anew. Its error is a finding.
	Record func(*state.Record) error
	// Snapshot holds a snapshot against the fold; it is called after all records.
	Snapshot func(Snapshot) error
	// Manifest holds a manifest's stored bytes against its digest.
	Manifest func(state.Digest, []byte) error
}

// Witnessed is a checkpoint of the log that somebody else keeps.
type Witnessed struct {
	Where string // for people: "the note of commit 77d0f12 at refs/notes/tandem/prod"
	Text  []byte
}

// A Report is what Verify found.
type Report struct {
	PublicKey  string // the one that was given, or the first
	Signer     string // of the checkpoint: the log's name and the key's hash
	Keys       int    // that the log has had
	Head       Head   // of the signed checkpoint
	Files      int
	Records    int
	Batches    int
	Signatures int // checked
	Witnessed  int // checkpoints kept elsewhere that the log was held against
	Blobs      int
	Texts      int
	Erased     int // texts
	Snapshots  int
	Findings   []Damage // what is wrong, with its place
	Notes      []string // what is odd, and may be after a crash
	NotChecked []string // what was asked for nowhere
}

// OK says whether all that was checked is as it was written.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

type verifier struct {
	disk   Disk
	keys   *keys
	opts   VerifyOptions
	report *Report
	pack   *packer

	last      state.Instant
	end       state.Seq                  // of the records that were read
	manifests map[state.Digest]state.Seq // and the first record that names them
	templates map[state.Digest]state.Seq
	texts     map[state.Text]state.Seq
	rotations map[state.Seq]string // the keys that records name
}

// Verify reads all of a data directory, stopped or live, and recomputes what
// can be recomputed: every leaf, root, signature, checksum, snapshot, blob and
// text. The error says that it couldn't; what it found is in the Report.
func Verify(ctx context.Context, dir string, o VerifyOptions) (*Report, error) {
	v := &verifier{
		disk: o.Disk, opts: o, report: &Report{},
		manifests: map[state.Digest]state.Seq{}, templates: map[state.Digest]state.Seq{}, texts: map[state.Text]state.Seq{}, rotations: map[state.Seq]string{},
	}
	if v.disk == nil {
		v.disk = osDisk{dir}
	}
	var err error
	if v.pack, err = newPacker(); err != nil {
		return nil, err
	}
	c, err := v.start()
	if err != nil {
		if v.found(err) == nil {
			return v.report, nil
		}
		return nil, fmt.Errorf("verify %s: %w", dir, err)
	}
	for _, step := range []func(context.Context, Checkpoint) error{v.log, v.blobs, v.words, v.snapshots, v.secrets} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := v.found(step(ctx, c)); err != nil {
			return nil, fmt.Errorf("verify %s: %w", dir, err)
		}
	}
	v.unchecked()
	return v.report, nil
}

// found keeps damage in the report; what isn't damage it returns.
func (v *verifier) found(err error) error {
	if d, ok := errors.AsType[*Damage](err); ok {
		v.report.Findings = append(v.report.Findings, *d)
		return nil
	}
	return err
}

func (v *verifier) note(format string, args ...any) {
	v.report.Notes = append(v.report.Notes, fmt.Sprintf(format, args...))
}

func (v *verifier) unchecked() {
	n := &v.report.NotChecked
	if v.opts.PublicKey == "" {
		*n = append(*n, "who signed: the public key came from the directory itself; give the one you know")
	}
	if !v.opts.Every {
		*n = append(*n, "signatures between the ends of sealed files, and postings beyond their checksum")
	}
	if v.opts.Record == nil {
		*n = append(*n, "that the records fold to a state")
	}
	if v.opts.Manifest == nil {
		*n = append(*n, "that manifests say what their digests stand for; their stored bytes were")
	}
	if v.opts.Snapshot == nil {
		*n = append(*n, "that snapshots are what their records fold to; their signatures were")
	}
}

// start reads the keys and the checkpoint.
func (v *verifier) start() (Checkpoint, error) {
	files, err := logFiles(v.disk)
	if err != nil {
		return Checkpoint{}, err
	}
	missing := func(name string, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			if len(files) > 0 {
				return damaged(name, 0, "it is missing")
			}
			return ErrNoLog
		}
		return err
	}
	if v.keys, err = loadKeys(v.disk, false); err != nil {
		return Checkpoint{}, missing(pubFile, err)
	}
	if want := strings.TrimSpace(v.opts.PublicKey); want != "" && !v.keys.has(want) {
		v.keys.later = nil
		if v.keys.verifier, err = parsePublic(want); err != nil {
			return Checkpoint{}, err
		}
		v.keys.public = want
		_ = v.found(damaged(pubFile, 0, "it is not the public key that you gave"))
	}
	v.report.PublicKey = v.keys.public
	v.report.Keys = 1 + len(v.keys.later)
	c, text, err := readNote(v.disk, v.keys)
	for tries := 0; errors.Is(err, ErrDamaged) && tries < liveTries; tries++ {
		c, text, err = readNote(v.disk, v.keys) // a live writer may have been in the middle of it
	}
	v.report.Signer = signerOf(text)
	if err != nil {
		return c, missing(checkpointFile, err)
	}
	v.report.Head = c.Head
	return c, nil
}

// log reads every file of the log from its beginning.
func (v *verifier) log(ctx context.Context, c Checkpoint) error {
	beside := besides{verifier: v}
	err := v.records(ctx, c, &beside)
	if said := beside.said(); err == nil {
		err = said
	}
	return err
}

func (v *verifier) records(ctx context.Context, c Checkpoint, beside *besides) (err error) {
	files, err := logFiles(v.disk)
	if err != nil {
		return err
	}
	var t tree
	met := c.Seq == 0
	told := v.tell()
	defer func() {
		// What the records say was found earlier in the log than what ended the reading of it.
		if said := told.wait(); said != nil {
			err = said
		}
	}()
	kept, err := v.kept(c)
	if err != nil {
		return err
	}
	for i, seg := range files {
		if seg.first != state.Seq(t.size)+1 {
			return damaged(logName(state.Seq(t.size)+1), 0, "the file is missing: the next one begins with record %d", seg.first)
		}
		last := i == len(files)-1
		sc := scanner{disk: v.disk, keys: v.keys, each: func(f *frame, h Head) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if w, ok := kept[h.Seq]; ok {
				delete(kept, h.Seq)
				if h.Root != w.Root {
					return damaged(logName(seg.first), 0, "its first %d records are not those of %s: another history", h.Seq, w.where)
				}
			}
			if h.Seq == c.Seq {
				met = true
				if h.Root != c.Root {
					return damaged(checkpointFile, 0, "the log's first %d records have another root", c.Seq)
				}
			}
			return told.take(f, h, seg.first, last || v.opts.Every)
		}, fresh: told.fresh}
		got, err := sc.file(seg.first, t)
		if err != nil {
			return err
		}
		v.report.Files++
		t = got.tree
		end := state.Seq(t.size)
		if got.torn != nil {
			if !last || end < c.Seq {
				return damaged(logName(seg.first), got.size, "%v, after record %d; %d records were acknowledged", got.torn, end, c.Seq)
			}
			v.note("%s: after record %d lies a batch that is cut off; it was never acknowledged", logName(seg.first), end)
			continue
		}
		if !last {
			if !v.keys.verify(Head{Seq: end, Root: state.Digest(t.root())}, got.sig) {
				return damaged(logName(seg.first), got.size, "the signature after record %d is wrong", end)
			}
			seg.count, seg.index, seg.size = got.count, got.index, got.size
			beside.check(&seg)
		}
	}
	if err := c.isMet(state.Seq(t.size), met, kept); err != nil {
		return err
	}
	if err := told.wait(); err != nil {
		return err
	}
	v.rotated(c)
	return v.strangers(files)
}

// isMet says what is wrong with a log that was read whole: its end, whether a batch
// ended at the checkpoint, and what was signed elsewhere and not found.
func (c Checkpoint) isMet(end state.Seq, met bool, kept map[state.Seq]keptHead) error {
	if end < c.Seq {
		return damaged(logDir, 0, "the log ends with record %d, but %d were acknowledged", end, c.Seq)
	}
	if !met {
		return damaged(checkpointFile, 0, "no batch ends with record %d", c.Seq)
	}
	for seq, w := range kept {
		return damaged(logDir, 0, "no batch ends with record %d, where %s was signed: another history", seq, w.where)
	}
	return nil
}

// batch checks one batch, whose checksum, place and root are right.
func (v *verifier) batch(f *frame, h Head, file state.Seq, signature bool) error {
	v.report.Batches++
	if signature {
		v.report.Signatures++
		if !v.keys.verify(h, f.sig) {
			return damaged(logName(file), 0, "the signature after record %d is wrong", h.Seq)
		}
	}
	for i, raw := range f.records {
		seq := f.first + state.Seq(i)
		r, err := recordpb.UnmarshalRecord(raw)
		if err != nil {
			return damaged(logName(file), f.starts[i], "record %d: %v", seq, err)
		}
		if r.Seq != seq {
			return damaged(logName(file), f.starts[i], "record %d says that it is record %d", seq, r.Seq)
		}
		if r.At.Wall < v.last.Wall || r.At.Mono < v.last.Mono {
			return damaged(logName(file), f.starts[i], "record %d is earlier than the one before it", seq)
		}
		v.last, v.end = r.At, seq
		v.report.Records++
		v.names(r)
		if v.opts.Record == nil {
			continue
		}
		if err := v.opts.Record(r); err != nil {
			return damaged(logName(file), f.starts[i], "record %d does not fold: %v", seq, err)
		}
	}
	return nil
}

// names remembers what a record names beside the log.
func (v *verifier) names(r *state.Record) {
	remember := func(m map[state.Digest]state.Seq, d state.Digest) {
		if _, ok := m[d]; !ok && !d.IsZero() {
			m[d] = r.Seq
		}
	}
	switch f := r.Fact.(type) {
	case *state.SigningKeyRotated:
		v.rotations[r.Seq] = f.Key
	case *state.RevisionApplied:
		remember(v.manifests, f.Manifest)
	case *state.Revised:
		remember(v.templates, f.Template)
	case *state.PodPlaced:
		remember(v.templates, f.Template)
		return // it has no texts, and there are many
	case *state.PodGone, *state.PodStopping, *state.PodHurried:
		return
	case *state.PodObserved:
		if f.Detail.IsZero() {
			return
		}
	}
	for _, t := range TextsOf(r) {
		if _, ok := v.texts[t]; !ok {
			v.texts[t] = r.Seq
		}
	}
}

// index holds a sealed segment's index against the segment.
func (v *verifier) index(seg *segment) (note string, err error) {
	x, err := openIndex(v.disk, seg.first, seg.size)
	if errors.Is(err, fs.ErrNotExist) {
		return indexName(seg.first) + " is not there; it is a cache", nil
	}
	if err != nil {
		return "", err
	}
	postings, err := x.section(v.disk, sectionPostings)
	if err != nil {
		return "", err
	}
	if v.opts.Every {
		if postings, err = collectPostings(v.disk, seg); err != nil {
			return "", err
		}
	}
	want := encodeIndex(seg, postings)
	got, err := readFile(v.disk, x.name)
	if err != nil {
		return "", err
	}
	if !slices.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		return "", damaged(x.name, int64(at), "it does not belong to the segment's records; the file is a cache: delete it")
	}
	return "", nil
}

// strangers names files in the log's directory that don't belong there.
func (v *verifier) strangers(files []segment) error {
	known := map[string]bool{}
	for _, f := range files {
		known[logName(f.first)], known[indexName(f.first)] = true, true
	}
	entries, err := v.disk.List(logDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := logDir + "/" + e.Name
		switch {
		case known[name]:
		case strings.HasSuffix(name, ".tmp"):
			v.note("%s was left by a crash, or is being written", name)
		case strings.HasSuffix(name, ".log"): // begun since
		default:
			_ = v.found(damaged(name, 0, "the log has no such file"))
		}
	}
	return nil
}

func (v *verifier) blobs(ctx context.Context, _ Checkpoint) error {
	digests, err := blobDigests(v.disk)
	if err != nil {
		return err
	}
	b := &Blobs{disk: v.disk, pack: v.pack}
	there := map[state.Digest]bool{}
	for _, d := range digests {
		if err := ctx.Err(); err != nil {
			return err
		}
		there[d] = true
		v.report.Blobs++
		raw, err := b.read(d)
		if err == nil {
			if _, ok := v.templates[d]; ok && state.DigestOf(raw) != d {
				err = damaged(blobName(d), 0, "it is not the template that the log names")
			}
			if _, ok := v.manifests[d]; ok && v.opts.Manifest != nil {
				if merr := v.opts.Manifest(d, raw); merr != nil {
					err = damaged(blobName(d), 0, "it is not the manifest that the log names: %v", merr)
				}
			}
		}
		if err := v.found(err); err != nil {
			return err
		}
	}
	for what, named := range map[string]map[state.Digest]state.Seq{"manifest": v.manifests, "template": v.templates} {
		for _, d := range slices.SortedFunc(maps.Keys(named), func(a, b state.Digest) int { return slices.Compare(a[:], b[:]) }) {
			if !there[d] {
				_ = v.found(damaged(blobName(d), 0, "the %s is missing that record %d names", what, named[d]))
			}
		}
	}
	return nil
}

func (v *verifier) words(context.Context, Checkpoint) error {
	raw, err := readFile(v.disk, textsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	there := map[state.Text]bool{}
	for at := 0; at < len(raw); {
		e, err := parseText(raw[at:])
		if errors.Is(err, errTorn) && at+e.size >= len(raw) {
			v.note("%s: at byte %d lies a text that is cut off", textsFile, at)
			break
		}
		if err != nil {
			if err := v.found(damaged(textsFile, int64(at), "%v", err)); err != nil {
				return err
			}
			if e.size == 0 {
				break
			}
		}
		v.report.Texts++
		if !e.live && err == nil {
			v.report.Erased++
		}
		there[e.token] = true
		at += e.size
	}
	for t, seq := range v.texts {
		if !there[t] {
			_ = v.found(damaged(textsFile, int64(len(raw)), "text %s is missing that record %d names", t, seq))
		}
	}
	slices.SortStableFunc(v.report.Findings, func(a, b Damage) int { return strings.Compare(a.File, b.File) })
	return nil
}

func (v *verifier) snapshots(ctx context.Context, c Checkpoint) error {
	if newer, err := readCheckpoint(v.disk, v.keys); err == nil {
		c = newer // a live writer went on
	}
	seqs, err := SnapshotsOn(v.disk)
	if err != nil {
		return err
	}
	entries, err := v.disk.List(snapDir)
	if err != nil {
		return err
	}
	if n := slices.IndexFunc(entries, func(e Entry) bool { return !strings.HasSuffix(e.Name, ".tmp") && !strings.HasSuffix(e.Name, ".snap") }); n >= 0 {
		_ = v.found(damaged(snapDir+"/"+entries[n].Name, 0, "this is not the name of a snapshot"))
	}
	for _, seq := range seqs {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.report.Snapshots++
		snap, err := readSnapshot(v.disk, v.keys, seq)
		if err == nil && seq > c.Seq {
			err = damaged(snapName(seq), 0, "it is of a record after the log's end, %d", c.Seq)
		}
		if err == nil && v.opts.Snapshot != nil {
			if serr := v.opts.Snapshot(snap); serr != nil {
				err = damaged(snapName(seq), 0, "%v", serr)
			}
		}
		if err := v.found(err); err != nil {
			return err
		}
	}
	return nil
}

// secrets checks the private keys, as far as they can be read.
func (v *verifier) secrets(context.Context, Checkpoint) error {
	check := func(name string, parse func(string) error) error {
		raw, err := readFile(v.disk, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // an auditor's copy has none
		case errors.Is(err, fs.ErrPermission):
			v.report.NotChecked = append(v.report.NotChecked, name+": it can't be read")
			return nil
		case err != nil:
			return err
		}
		if perr := parse(string(raw)); perr != nil {
			return v.found(damaged(name, 0, "the key is not as it was written"))
		}
		return nil
	}
	return errors.Join(
		check(keyFile, func(s string) error {
			k, err := parsePrivate(s)
			if err == nil && (k.Name() != v.keys.verifier.Name() || k.KeyHash() != v.keys.newest().KeyHash()) {
				err = ErrDamaged
			}
			return err
		}),
		check(identityFile, func(s string) error {
			id, err := age.ParseX25519Identity(strings.TrimSuffix(s, "\n"))
			if err == nil && id.String()+"\n" != s {
				err = ErrDamaged
			}
			return err
		}),
		check(tokenFile, func(s string) error {
			line, ok := strings.CutSuffix(s, "\n")
			_, err := parseToken(line)
			if !ok {
				err = ErrDamaged
			}
			return err
		}),
	)
}
