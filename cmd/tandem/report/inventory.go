package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// An Inventory is a state as a file: what `tandem plan --inventory` plans
// against, without a controller. It has nodes, pods and what Git says, and no
// value of a Secret.
type Inventory struct {
	Format    int                          `json:"format"`
	State     *state.Snapshot              `json:"state"`
	Manifests map[string]json.RawMessage   `json:"manifests"` // by digest; Secrets have tokens for values
	Templates map[string]inventoryTemplate `json:"templates"` // by digest
}

// inventoryTemplate is a template's stored form: JSON, whose bytes count.
type inventoryTemplate string

// inventoryFormat is the only one so far.
const inventoryFormat = 1

// NewInventory captures a state.
func NewInventory(base *forecast.Base) (*Inventory, error) {
	s, err := state.Restore(base.Snapshot(), base.Blobs())
	if err != nil {
		return nil, err
	}
	out := &Inventory{Format: inventoryFormat, State: base.Snapshot(), Manifests: map[string]json.RawMessage{}, Templates: map[string]inventoryTemplate{}}
	wanted := map[state.Digest]bool{}
	for _, o := range s.Objects {
		wanted[o.Manifest] = true
	}
	keep := func(t *state.Template) {
		if t != nil && out.Templates[t.Digest.String()] == "" {
			_, raw := state.NewTemplate(t.OS, &t.Spec, t.Images)
			out.Templates[t.Digest.String()] = inventoryTemplate(raw)
		}
	}
	for _, w := range s.Workloads {
		if w.Parent != nil {
			wanted[w.Parent.Manifest] = true
		}
		for _, v := range w.Variants {
			keep(v.Update)
			keep(v.Current)
			for _, h := range v.History {
				keep(h.Template)
			}
		}
		for _, p := range w.Pods {
			keep(p.Template)
		}
	}
	for d := range wanted {
		m, err := base.Blobs().Manifest(d)
		if err != nil {
			return nil, err
		}
		sorted := *m
		sorted.Objects = slices.SortedFunc(slices.Values(m.Objects), func(a, b *state.Object) int { return a.Ref.Compare(b.Ref) })
		raw, err := manifest.EncodeTokens(&sorted, silent{})
		if err != nil {
			return nil, err
		}
		out.Manifests[d.String()] = raw
	}
	return out, nil
}

// silent is the token of every value: an inventory is handed around, and not
// even equality of values is told.
type silent struct{}

// Token implements manifest.Tokens.
func (silent) Token([]byte) string { return "" }

// Base is what an inventory captured, to plan against.
func (in *Inventory) Base() (*forecast.Base, error) {
	if in.Format != inventoryFormat || in.State == nil {
		return nil, fmt.Errorf("inventory of format %d: this version reads format %d; save one with `tandem status -o json`", in.Format, inventoryFormat)
	}
	b := &inventoryBlobs{manifests: map[state.Digest]*state.Manifest{}, templates: map[state.Digest]*state.Template{}}
	for _, name := range slices.Sorted(maps.Keys(in.Manifests)) {
		var d state.Digest
		if err := d.UnmarshalText([]byte(name)); err != nil {
			return nil, err
		}
		m, err := manifest.DecodeManifest(in.Manifests[name], nil)
		if err != nil {
			return nil, err
		}
		m.Digest = d
		b.manifests[d] = m
	}
	for _, name := range slices.Sorted(maps.Keys(in.Templates)) {
		t, err := state.ParseTemplate([]byte(in.Templates[name]))
		if err != nil {
			return nil, err
		}
		if t.Digest.String() != name {
			return nil, fmt.Errorf("inventory: template %s has the content of %s", name, t.Digest)
		}
		b.templates[t.Digest] = t
	}
	return forecast.NewBase(in.State, b), nil
}

type inventoryBlobs struct {
	manifests map[state.Digest]*state.Manifest
	templates map[state.Digest]*state.Template
}

// Manifest implements state.Blobs.
func (b *inventoryBlobs) Manifest(d state.Digest) (*state.Manifest, error) {
	if m := b.manifests[d]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("the inventory lacks manifest %s", d.Short())
}

// Template implements state.Blobs.
func (b *inventoryBlobs) Template(d state.Digest) (*state.Template, error) {
	if t := b.templates[d]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("the inventory lacks template %s", d.Short())
}
