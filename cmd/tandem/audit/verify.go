package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// Options say what Verify holds a directory or bundle against.
type Options struct {
	PublicKey string // known from elsewhere; empty: the one that is there
	Seen      []byte // a checkpoint that was kept elsewhere
	Chain     []byte // of keys, from PublicKey on: only a proof needs it, a directory has its own
	Every     bool   // the signature of every batch
	Witnessed []history.Witnessed
}

// Verify reads all of a data directory or bundle, folds its records anew, and
// holds what lies beside the log against what the records say. Where a controller
// changes the log's key meanwhile, it begins again.
func Verify(ctx context.Context, path string, o Options) (*history.Report, error) {
	const tries = 5
	for try := 1; ; try++ {
		before := chainOf(path)
		r, err := verify(ctx, path, o)
		if err != nil || r.OK() || try == tries || bytes.Equal(before, chainOf(path)) {
			return r, err
		}
	}
}

// chainOf is a live directory's chain of keys; a bundle's can't change.
func chainOf(path string) []byte {
	raw, err := os.ReadFile(filepath.Join(path, history.ChainFile))
	if err != nil {
		return nil // what is wrong with it is Verify's to say
	}
	return raw
}

func verify(ctx context.Context, path string, o Options) (*history.Report, error) {
	disk, file, err := diskOf(path)
	if err != nil {
		return nil, err
	}
	if file != nil {
		defer file.Close()
	}
	if len(o.Chain) > 0 {
		return nil, errors.New("a chain of keys goes with a proof: a directory and a bundle have their own")
	}
	v, err := newVerifier(disk)
	if err != nil {
		return nil, err
	}
	r, err := history.Verify(ctx, path, history.VerifyOptions{
		Disk: disk, PublicKey: o.PublicKey, Seen: o.Seen, Every: o.Every, Witnessed: o.Witnessed, Record: v.record, Snapshot: v.snapshot, Manifest: v.manifest,
	})
	if err != nil {
		return nil, err
	}
	r.NotChecked = append(r.NotChecked, v.unchecked()...)
	return r, nil
}

// verifier folds the log anew.
type verifier struct {
	shelf   *shelf
	keysBad error
	fold    *state.State
	wanted  []state.Seq // snapshots that are there
	states  map[state.Seq][]byte
	sealed  int // manifests with values that nobody here can open
	later   int // snapshots beyond what was folded
}

func newVerifier(disk history.Disk) (*verifier, error) {
	v := &verifier{states: map[state.Seq][]byte{}}
	var err error
	if v.shelf, err = openShelf(disk); errors.Is(err, history.ErrDamaged) {
		// The keys' own check says what is wrong with them.
		v.keysBad = err
		blobs, berr := history.ReadBlobs(disk)
		if berr != nil {
			return nil, berr
		}
		v.shelf = &shelf{blobs: blobs}
	} else if err != nil {
		return nil, err
	}
	if v.wanted, err = history.SnapshotsOn(disk); err != nil {
		return nil, err
	}
	v.fold = state.New(act.NewLibrary(v.shelf, v.shelf))
	return v, nil
}

// record folds one, and keeps the state where a snapshot says it has it.
func (v *verifier) record(r *state.Record) error {
	if err := v.fold.Apply(r); err != nil {
		return err
	}
	if _, ok := slices.BinarySearch(v.wanted, r.Seq); !ok {
		return nil
	}
	raw, err := recordpb.Marshal(v.fold.Snapshot())
	if err != nil {
		return err
	}
	v.states[r.Seq] = raw
	return nil
}

func (v *verifier) snapshot(snap history.Snapshot) error {
	raw, ok := v.states[snap.Seq]
	switch {
	case !ok:
		v.later++
		return nil
	case snap.Digest != state.DigestOf(raw) || !bytes.Equal(snap.State, raw):
		return fmt.Errorf("it is not the state that the first %d records fold to", snap.Seq)
	}
	return nil
}

// manifest decodes a manifest and recomputes every digest in it. Without the
// keys the values of its Secrets stay unchecked, and all else is.
func (v *verifier) manifest(name state.Digest, raw []byte) error {
	m, err := v.shelf.Decode(raw)
	if err != nil {
		return err
	}
	if m.Digest != name {
		return fmt.Errorf("its content is manifest %s", m.Digest.Short())
	}
	hidden, tokens := false, manifest.HasTokens(raw)
	for _, o := range m.Objects {
		for i := range o.Variants {
			known, err := v.variant(&o.Variants[i], tokens)
			if err != nil {
				return fmt.Errorf("%s: %w", o.Ref, err)
			}
			hidden = hidden || !known
		}
	}
	if hidden {
		v.sealed++
	}
	return nil
}

// variant recomputes one digest; no where the keys for it aren't here.
func (v *verifier) variant(variant *state.Variant, replaced bool) (bool, error) {
	var tokens manifest.Tokens = clearTokens{}
	if s, ok := variant.Body.(*corev1.Secret); ok && len(s.Data) > 0 && !replaced {
		if v.shelf.secrets == nil {
			return false, nil
		}
		tokens = v.shelf.secrets
	}
	d, err := manifest.VariantDigest(variant.Body, tokens)
	if err != nil {
		return true, err
	}
	if d != variant.Digest {
		return true, errors.New("its text is not what its digest stands for")
	}
	return true, nil
}

// clearTokens is for objects without secret values, or with tokens for them.
type clearTokens struct{}

// Token implements manifest.Tokens.
func (clearTokens) Token(value []byte) string { return string(value) }

func (v *verifier) unchecked() []string {
	var out []string
	if v.sealed > 0 {
		out = append(out, fmt.Sprintf("the Secrets' values in %d manifests: the keys for them are not here", v.sealed))
	}
	if v.later > 0 {
		out = append(out, fmt.Sprintf("%d snapshots of records after the checkpoint", v.later))
	}
	return out
}
