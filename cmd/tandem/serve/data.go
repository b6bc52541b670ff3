package serve

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tandem-gitops/tandem/cmd/tandem/audit"
	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/act"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// Data is a data directory: the log and what lies beside it.
type Data struct {
	Store   *history.Store
	Secrets *history.Secrets
	Library *act.Library
}

// OpenData opens a data directory. With readOnly nothing in it is changed, and
// a running controller is not disturbed.
func OpenData(dir string, readOnly bool) (*Data, error) {
	store, err := history.Open(dir, history.Options{ReadOnly: readOnly})
	if err != nil {
		return nil, fmt.Errorf("open data directory %s: %w", dir, err)
	}
	d := &Data{Store: store}
	blobs, err := store.OpenBlobs()
	if err == nil {
		d.Secrets, err = store.OpenSecrets()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open data directory %s: %w", dir, err), store.Close())
	}
	d.Library = act.NewLibrary(shelf{blobs}, codec{d.Secrets})
	return d, nil
}

// Close ends the use of the directory.
func (d *Data) Close() error { return d.Store.Close() }

// Fold is the state as of a record, from the log alone; 0 means its end.
func (d *Data) Fold(ctx context.Context, until state.Seq) (*state.State, error) {
	s := state.New(d.Library)
	if snap, err := (snapshots{d.Store}).until(until); err == nil && snap != nil {
		if s, err = state.Restore(snap, d.Library); err != nil {
			return nil, err
		}
	}
	for r, err := range d.Store.Read(ctx, s.Seq+1) {
		if err != nil {
			return nil, err
		}
		if until > 0 && r.Seq > until {
			break
		}
		if err := s.Apply(r); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// past answers the API's questions about what was.
func (d *Data) past(dir string) past {
	return past{&audit.Archive{Store: d.Store, Blobs: d.Library}, dir}
}

type past struct {
	*audit.Archive
	dir string
}

// Stats implements kubeapi.Past.
func (p past) Stats(ctx context.Context) (*report.Growth, error) { return p.Growth(ctx, p.dir) }

// Prove implements kubeapi.Past.
func (p past) Prove(seq state.Seq) ([]byte, error) { return p.Store.Prove(seq) }

// Keys implements kubeapi.Past.
func (p past) Keys() kubeapi.KeysAnswer {
	return kubeapi.KeysAnswer{Keys: p.Store.Keys(), Chain: string(p.Store.Chain())}
}

// Export implements kubeapi.Past. A bundle is of what is durable now, so it is
// read as a stranger reads it.
func (p past) Export(ctx context.Context, w io.Writer, format string, f report.Filter) error {
	if format != audit.FormatBundle {
		return p.Archive.Export(ctx, w, format, f, p.dir)
	}
	a, err := audit.Open(p.dir)
	if err != nil {
		return err
	}
	return errors.Join(a.Bundle(ctx, w, p.dir), a.Close())
}

// Snapshots are the captures of the fold that a controller keeps.
func (d *Data) Snapshots() act.Snapshots { return snapshots{d.Store} }

// shelf keeps blobs in the store's directory.
type shelf struct{ blobs *history.Blobs }

func (s shelf) Put(name state.Digest, raw []byte) error { return s.blobs.Put(name, raw) }
func (s shelf) Open(name state.Digest) ([]byte, error)  { return s.blobs.Blob(name) }

// codec is the stored form of manifests.
type codec struct{ secrets *history.Secrets }

func (c codec) Encode(m *state.Manifest) ([]byte, error) { return manifest.Encode(m, c.secrets) }
func (c codec) Decode(raw []byte) (*state.Manifest, error) {
	return manifest.DecodeManifest(raw, c.secrets)
}

// snapshots keeps captures of the fold.
type snapshots struct{ store *history.Store }

// Save implements act.Snapshots.
func (s snapshots) Save(snap *state.Snapshot) error {
	raw, err := recordpb.Marshal(snap)
	if err != nil {
		return err
	}
	return s.store.SaveSnapshot(history.Snapshot{Seq: snap.Seq, Digest: state.DigestOf(raw), State: raw})
}

// Latest implements act.Snapshots.
func (s snapshots) Latest() (*state.Snapshot, error) { return s.until(0) }

// until is the newest snapshot at or before a record; 0 means the end. What is
// wrong with others is for verify to say: a snapshot is a cache.
func (s snapshots) until(seq state.Seq) (*state.Snapshot, error) {
	if seq == 0 {
		seq = s.store.Head().Seq
	}
	kept, err := s.store.LatestSnapshot(seq)
	if kept.Seq == 0 {
		return nil, err
	}
	snap := new(state.Snapshot)
	if err := recordpb.Unmarshal(kept.State, snap); err != nil {
		return nil, fmt.Errorf("snapshot of record %d: %w", kept.Seq, err)
	}
	return snap, nil
}
