package report

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// maxLooks is how many images are looked up at a time for one plan.
const maxLooks = 8

// ImageNames are all that the request's workloads name.
func (r *PlanRequest) ImageNames() ([]string, error) {
	m := &state.Manifest{}
	for i := range r.Objects {
		o := &r.Objects[i]
		if !state.IsWorkload(o.Ref.Kind) {
			continue
		}
		out := &state.Object{Ref: o.Ref}
		for _, v := range o.Variants {
			body, err := manifest.DecodeBody(o.Ref.Kind, v.Body)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", o.Ref, err)
			}
			out.Variants = append(out.Variants, state.Variant{OS: v.OS, Body: body})
		}
		m.Objects = append(m.Objects, out)
	}
	return forecast.ImageNames(m), nil
}

// UnknownImages are those of which the state knows no meaning.
func (r *PlanRequest) UnknownImages(s *state.State) ([]string, error) {
	names, err := r.ImageNames()
	return slices.DeleteFunc(names, func(name string) bool {
		im := forecast.Known(s, r.App.Name, name)
		return im != nil && !im.Assumed
	}), err
}

// LookUp asks for several images beside each other.
func LookUp(ctx context.Context, names []string, look func(context.Context, string) state.Image) map[string]state.Image {
	out := make(map[string]state.Image, len(names))
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, maxLooks)
	for _, name := range names {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			im := look(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			out[name] = im
		})
	}
	all.Wait()
	return out
}
