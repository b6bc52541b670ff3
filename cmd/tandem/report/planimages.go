package report

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/forecast"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/runtimes/images"
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
		out, err := decoded(o)
		if err != nil {
			return nil, err
		}
		m.Objects = append(m.Objects, out)
	}
	return forecast.ImageNames(m), nil
}

func decoded(o *PlanObject) (*state.Object, error) {
	out := &state.Object{Ref: o.Ref}
	for _, v := range o.Variants {
		body, err := manifest.DecodeBody(o.Ref.Kind, v.Body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Ref, err)
		}
		out.Variants = append(out.Variants, state.Variant{OS: v.OS, Body: body})
	}
	return out, nil
}

// UnknownImages are those of which the state knows no meaning.
func (r *PlanRequest) UnknownImages(s *state.State) ([]string, error) {
	names, err := r.ImageNames()
	return slices.DeleteFunc(names, func(name string) bool {
		im := forecast.Known(s, r.App.Name, name)
		return im != nil && !im.Assumed
	}), err
}

// PullCredentials are those of pull Secrets. Where one is written for each OS,
// both count: what an image name means is asked for all nodes.
func PullCredentials(secrets []*state.Object) images.Credentials {
	var bodies []*corev1.Secret
	for _, o := range secrets {
		for i := range o.Variants {
			if s, ok := o.Variants[i].Body.(*corev1.Secret); ok {
				bodies = append(bodies, s)
			}
		}
	}
	return images.NewCredentials(bodies)
}

// Pulls finds the pull Secrets for the images of a request.
type Pulls struct {
	objects map[state.Ref]*state.Object
	state   *state.State
}

// NewPulls reads what a request says of Secrets, ServiceAccounts and workloads.
// What it doesn't say is as the state has it.
func NewPulls(r *PlanRequest, s *state.State) (*Pulls, error) {
	p := &Pulls{objects: map[state.Ref]*state.Object{}, state: s}
	for i := range r.Objects {
		o := &r.Objects[i]
		if o.Ref.Kind != "Secret" && o.Ref.Kind != state.AccountKind && !state.IsWorkload(o.Ref.Kind) {
			continue
		}
		out, err := decoded(o)
		if err != nil {
			return nil, err
		}
		p.objects[o.Ref] = out
	}
	return p, nil
}

func (p *Pulls) find(ref state.Ref) *state.Object {
	if o := p.objects[ref]; o != nil {
		return o
	}
	if o := p.state.Objects[ref]; o != nil {
		return o.Object
	}
	return nil
}

// Secrets are the pull Secrets of the request's pods that name an image.
func (p *Pulls) Secrets(image string) []*state.Object {
	var out []*state.Object
	for _, ref := range slices.SortedFunc(maps.Keys(p.objects), state.Ref.Compare) {
		for i := range p.objects[ref].Variants {
			t := state.TemplateOf(p.objects[ref].Variants[i].Body)
			if t == nil || !slices.Contains(state.ImageNames(&t.Spec), image) {
				continue
			}
			for _, name := range state.PullSecrets(&t.Spec, func(account string) *state.Object {
				return p.find(state.Ref{Kind: state.AccountKind, Namespace: ref.Namespace, Name: account})
			}) {
				if o := p.find(state.Ref{Kind: "Secret", Namespace: ref.Namespace, Name: name}); o != nil && !slices.Contains(out, o) {
					out = append(out, o)
				}
			}
		}
	}
	return out
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
