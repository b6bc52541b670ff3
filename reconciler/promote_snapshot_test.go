package reconciler_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A start from a snapshot knows of promotions what a replay knows.
func TestPromotionSnapshot(t *testing.T) {
	t.Parallel()
	w := playModel(t, []string{"commit", "see dev", "tick", "push", "see staging", "promote rita", "approve sam", "tick", "tick", "suspend"})
	want := w.m.State().Snapshot()
	if len(want.Lines) != 1 || len(want.Promotions) != 1 || want.Promotions[0].Started == nil {
		t.Fatalf("the world has %d pipelines and %d promotions, want one of each, begun", len(want.Lines), len(want.Promotions))
	}
	raw, err := recordpb.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var read state.Snapshot
	if err := recordpb.Unmarshal(raw, &read); err != nil {
		t.Fatal(err)
	}
	restored, err := state.Restore(&read, w.shelf)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.Lines, restored.Snapshot().Lines); d != "" {
		t.Errorf("pipelines differ:\n%s", d)
	}
	if d := cmp.Diff(want.Promotions, restored.Snapshot().Promotions); d != "" {
		t.Errorf("promotions differ:\n%s", d)
	}
}
