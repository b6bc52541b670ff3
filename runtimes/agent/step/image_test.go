package step_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// windowsPod is a pod of one image that has these Windows builds.
func windowsPod(iso state.Isolation, builds ...string) *state.AssignedPod {
	im := state.Image{Name: "i", Platforms: []state.Platform{{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte("linux"))}}}
	for _, b := range builds {
		im.Platforms = append(im.Platforms, state.Platform{OS: state.Windows, Arch: "amd64", OSVersion: b, Digest: state.DigestOf([]byte(b))})
	}
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "i"}}}}
	t, _ := state.NewTemplate(state.Windows, &spec, []state.Image{im})
	return &state.AssignedPod{UID: one, Template: t, Isolation: iso}
}

// TestImageOfTheNode: a node pulls what the scheduler placed the pod for, never
// what it can't run, and of one build's revisions the newest, as numbers go
// (containerd#6693 compared them as strings).
func TestImageOfTheNode(t *testing.T) {
	tests := []struct {
		name, host string
		iso        state.Isolation
		builds     []string
		want       string // "": nothing
	}{
		{"the newest revision", "10.0.20348.2113", state.Process, []string{"10.0.20348.587", "10.0.20348.1000"}, "10.0.20348.1000"},
		{"nothing newer than the host", "10.0.25398.1", state.Process, []string{"10.0.20348.1", "10.0.26100.1"}, "10.0.20348.1"},
		{"a guest's", "10.0.26100.1", state.HyperV, []string{"10.0.17763.1", "10.0.14393.1"}, "10.0.17763.1"},
		{"only a newer build", "10.0.20348.1", state.Process, []string{"10.0.26100.1"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			facts := &state.NodeFacts{OS: state.Windows, Arch: "amd64", OSVersion: tt.host}
			got, ok := step.ImageDigest(windowsPod(tt.iso, tt.builds...), "i", facts)
			if ok != (tt.want != "") || ok && got != state.DigestOf([]byte(tt.want)) {
				t.Errorf("got %s, %t; want %q", got.Short(), ok, tt.want)
			}
		})
	}
}

func FuzzImageOfTheNode(f *testing.F) { f.Fuzz(rapid.MakeFuzz(imageOfTheNode)) }

func TestImageOfTheNodeIsTheScheduler(t *testing.T) { rapid.Check(t, imageOfTheNode) }

// imageOfTheNode: whatever the index has, what the node pulls is a manifest that
// the node runs, where there is one.
func imageOfTheNode(t *rapid.T) {
	build := rapid.SampledFrom([]string{"10.0.14393.5", "10.0.17763.587", "10.0.20348.587", "10.0.20348.1000", "10.0.25398.9", "10.0.26100.10", ""})
	facts := &state.NodeFacts{OS: state.Windows, Arch: "amd64", OSVersion: build.Draw(t, "host")}
	iso := rapid.SampledFrom([]state.Isolation{state.Process, state.HyperV}).Draw(t, "isolation")
	p := windowsPod(iso, rapid.SliceOfN(build, 0, 5).Draw(t, "builds")...)
	im, _ := p.Template.Image("i")
	want, fits := platform.Of(im, *facts, iso)
	got, ok := step.ImageDigest(p, "i", facts)
	if ok != fits || got != want.Digest {
		t.Fatalf("pulls %s (%t), placed for %s (%t)", got.Short(), ok, want.OSVersion, fits)
	}
}

// TestOnePull: an image that is on its way is pulled once for all who want it,
// and by the next one where that failed or the pod that asked is gone
// (containerd#11451).
func TestOnePull(t *testing.T) {
	image := state.Image{Name: "i", Platforms: []state.Platform{{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte("i"))}}}
	spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "i"}}}}
	tmpl, _ := state.NewTemplate(state.Linux, &spec, []state.Image{image})
	begin := func(t *testing.T) (*world, step.Action) {
		w := newWorld(t, nil)
		w.step(&step.Observed{Whole: true})
		var pods []*state.AssignedPod
		for i := range byte(3) {
			pods = append(pods, &state.AssignedPod{UID: state.UID{i + 1}, Key: state.PodKey{Namespace: "default", Name: string('a' + rune(i))}, Template: tmpl})
		}
		w.step(&step.Assigned{Assignment: &state.Assignment{Node: "n1", Epoch: 1, Generation: 1, Seq: 1, Pods: pods}})
		pulls := w.take(step.Pull)
		if len(pulls) != 1 {
			t.Fatalf("%d pulls of one image are under way, want 1", len(pulls))
		}
		return w, pulls[0]
	}
	t.Run("is everybody's", func(t *testing.T) {
		w, first := begin(t)
		w.step(&step.Done{ID: first.ID, UID: first.UID, Class: step.OK})
		if again := w.take(step.Pull); len(again) > 0 {
			t.Errorf("the image is there and pulled again: %v", again)
		}
		w.answer(nil)
		for i := range byte(3) {
			w.want(state.UID{i + 1}, state.Running, true, state.ReasonNone)
		}
	})
	t.Run("that failed", func(t *testing.T) {
		w, first := begin(t)
		w.step(&step.Done{ID: first.ID, UID: first.UID, Class: step.Unavailable})
		next := w.take(step.Pull)
		if len(next) != 1 || next[0].UID == first.UID {
			t.Fatalf("after a failure %v is asked for, want one pull of another pod", next)
		}
		w.step(&step.Done{ID: next[0].ID, UID: next[0].UID, Class: step.OK})
		if again := w.take(step.Pull); len(again) > 0 {
			t.Errorf("the image is there and pulled again: %v", again)
		}
	})
	t.Run("of a pod that is gone", func(t *testing.T) {
		w, first := begin(t)
		w.step(&step.Assigned{Assignment: &state.Assignment{Node: "n1", Epoch: 1, Generation: 2, Seq: 2, Pods: []*state.AssignedPod{{UID: state.UID{2}, Key: state.PodKey{Namespace: "default", Name: "b"}, Template: tmpl}}}})
		w.answer(nil) // the others are removed; the pull goes on
		w.step(&step.Done{ID: first.ID, UID: first.UID, Class: step.Unavailable})
		if next := w.take(step.Pull); len(next) != 1 || next[0].UID != (state.UID{2}) {
			t.Fatalf("%v is asked for, want a pull of the pod that is left", next)
		}
	})
}

// robot is an assignment's Secret of that name; empty: it isn't there.
func robot(digest string) []*state.Object {
	if digest == "" {
		return nil
	}
	return []*state.Object{{Ref: state.Ref{Kind: "Secret", Namespace: "default", Name: "robot"}, Variants: []state.Variant{{Body: &corev1.Secret{}, Digest: state.DigestOf([]byte(digest))}}}}
}

// TestPullSecrets: a pull has the Secrets of the pod, else of its ServiceAccount;
// it is tried without one that isn't there, and again at once where one comes.
func TestPullSecrets(t *testing.T) {
	image := state.Image{Name: "i", Platforms: []state.Platform{{OS: state.Linux, Arch: "amd64", Digest: state.DigestOf([]byte("i"))}}}
	template := func(policy corev1.PullPolicy, secrets ...corev1.LocalObjectReference) *state.Template {
		spec := corev1.PodTemplateSpec{Spec: corev1.PodSpec{ImagePullSecrets: secrets, Containers: []corev1.Container{{Name: "main", Image: "i", ImagePullPolicy: policy}}}}
		tmpl, _ := state.NewTemplate(state.Linux, &spec, []state.Image{image})
		return tmpl
	}
	seq := state.Seq(0)
	assign := func(w *world, objects []*state.Object, templates ...*state.Template) {
		seq++
		a := &state.Assignment{Node: "n1", Epoch: 1, Generation: uint64(seq), Seq: seq, Objects: objects}
		for i, tmpl := range templates {
			a.Pods = append(a.Pods, &state.AssignedPod{UID: state.UID{byte(i) + 1}, Key: state.PodKey{Namespace: "default", Name: string('a' + rune(i))}, Template: tmpl, Given: "robot,gone"})
		}
		w.step(&step.Assigned{Assignment: a})
	}
	begin := func() *world {
		w := newWorld(t, nil)
		w.step(&step.Observed{Whole: true})
		return w
	}
	t.Run("come late", func(t *testing.T) {
		w := begin()
		assign(w, robot(""), template(corev1.PullIfNotPresent))
		first := w.take(step.Pull)
		if len(first) != 1 || len(first[0].Objects) != 0 || len(first[0].Missing) != 2 {
			t.Fatalf("pulls %+v, want one without Secrets, two missing", first)
		}
		w.step(&step.Done{ID: first[0].ID, UID: first[0].UID, Class: step.Unavailable, Text: "refused"})
		if early := w.take(step.Pull); len(early) > 0 {
			t.Fatal("it is pulled again without back-off")
		}
		w.want(one, state.Pending, false, state.ReasonImagePull)
		assign(w, robot("v1"), template(corev1.PullIfNotPresent))
		second := w.take(step.Pull)
		if len(second) != 1 || len(second[0].Objects) != 1 || second[0].Objects[0].Ref.Name != "robot" || len(second[0].Missing) != 1 {
			t.Fatalf("with the Secret it pulls %+v", second)
		}
		w.step(&step.Done{ID: second[0].ID, UID: second[0].UID, Class: step.OK})
		w.answer(nil)
		w.want(one, state.Running, true, state.ReasonNone)
	})
	t.Run("the pod's own, not the account's", func(t *testing.T) {
		w := begin()
		assign(w, robot("v1"), template(corev1.PullIfNotPresent, corev1.LocalObjectReference{Name: "mine"}))
		if got := w.take(step.Pull); len(got) != 1 || len(got[0].Objects) != 0 || len(got[0].Missing) != 1 || got[0].Missing[0] != "mine" {
			t.Fatalf("pulls %+v, want one that lacks the Secret mine", got)
		}
	})
	// What one pod pulled with its credentials is another's: unless it says Always.
	for policy, again := range map[corev1.PullPolicy]int{corev1.PullIfNotPresent: 0, corev1.PullAlways: 1} {
		t.Run("and "+string(policy), func(t *testing.T) {
			w := begin()
			assign(w, robot("v1"), template(policy), template(policy, corev1.LocalObjectReference{Name: "mine"}))
			first := w.take(step.Pull)
			if len(first) != 1 {
				t.Fatalf("%d pulls of one image are under way", len(first))
			}
			w.step(&step.Done{ID: first[0].ID, UID: first[0].UID, Class: step.OK})
			if got := w.take(step.Pull); len(got) != again {
				t.Errorf("%d pulls by the pod with other credentials, want %d", len(got), again)
			}
		})
	}
}

// take is the pending actions of a verb; they pend no longer.
func (w *world) take(verb step.Verb) []step.Action {
	var out, rest []step.Action
	for _, a := range w.pending {
		if a.Do == verb {
			out = append(out, a)
		} else {
			rest = append(rest, a)
		}
	}
	w.pending = rest
	return out
}
