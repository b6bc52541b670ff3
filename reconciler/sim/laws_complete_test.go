package sim

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// The law of outcomes notices what a log lacks.
func TestCompleteNoticesWhatTheLogLacks(t *testing.T) {
	t.Parallel()
	place := &state.PodPlaced{Pod: state.PodKey{Namespace: "default", Name: "web-0"}, Node: "linux-1"}
	uid := state.NewUID(state.Digest{}, 1, "default", "web-0") // of the first record
	for name, c := range map[string]struct {
		log  []state.Fact
		want string // empty: nothing is wrong
	}{
		"a whole life":       {[]state.Fact{place, &state.PodObserved{UID: uid}, &state.PodStopping{UID: uid}, &state.PodGone{UID: uid}}, ""},
		"it vanished":        {[]state.Fact{place, &state.PodGone{UID: uid, Vanished: true}}, ""},
		"no outcome":         {[]state.Fact{place}, "placing"},
		"a stop without end": {[]state.Fact{place, &state.PodObserved{UID: uid}, &state.PodStopping{UID: uid}}, "stopping"},
		"no intent to stop":  {[]state.Fact{place, &state.PodGone{UID: uid}}, "nothing says that it should"},
		"no intent to run":   {[]state.Fact{&state.PodGone{UID: uid, Vanished: true}}, "nothing placed it"},
		"a lost node":        {[]state.Fact{&state.NodeLost{Node: "linux-1"}}, "the loss of linux-1"},
		"a node back":        {[]state.Fact{&state.NodeLost{Node: "linux-1"}, &state.NodeReady{Node: "linux-1"}}, ""},
		"not converged":      {[]state.Fact{&state.RevisionApplied{}}, "applying to"},
		"removed meanwhile":  {[]state.Fact{&state.RevisionApplied{}, &state.AppRemoved{Name: "shop"}}, ""},
		"a volume kept":      {[]state.Fact{&state.ClaimDropped{Volume: uid}}, "deleting the volume"},
	} {
		w := &world{trace: sha256.New(), laws: newLaws(), story: &Story{}}
		w.ctl = newController(w)
		for i, f := range c.log {
			raw, err := recordpb.MarshalRecord(&state.Record{Seq: state.Seq(i + 1), App: "shop", Fact: f})
			if err != nil {
				t.Fatal(err)
			}
			w.ctl.disk = append(w.ctl.disk, raw)
		}
		w.complete()
		switch {
		case c.want == "" && w.err != nil:
			t.Errorf("%s: %v", name, w.err)
		case c.want != "" && (w.err == nil || !strings.Contains(w.err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, w.err, c.want)
		}
	}
}
