package agent

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// measureEvery is how often directories with a limit are measured: a pod may go
// beyond it for so long.
const measureEvery = 5 * time.Second

// measure looks at the emptyDir volumes on disk that have a limit. One that holds
// more evicts its pod, as under Kubernetes; in memory the kernel sees to it.
func (a *Agent) measure(ctx context.Context) {
	if a.facts.Simulated {
		return
	}
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.mu.Lock()
		applied := a.applied
		a.mu.Unlock()
		if applied == nil {
			continue
		}
		for _, p := range applied.Pods {
			if text := a.exceeds(ctx, p); text != "" {
				a.post(&step.Exceeded{UID: p.UID, Text: text})
			}
		}
	}
}

// exceeds says which volume of a pod holds more than it may.
func (a *Agent) exceeds(ctx context.Context, p *state.AssignedPod) string {
	if p.Template == nil || p.Stop {
		return ""
	}
	for i := range p.Template.Spec.Spec.Volumes {
		v := &p.Template.Spec.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.IsZero() || v.EmptyDir.Medium == corev1.StorageMediumMemory {
			continue
		}
		if used, limit := dirSize(ctx, a.volumeDir(p.UID, v.Name)), v.EmptyDir.SizeLimit.Value(); used > limit {
			return fmt.Sprintf("emptyDir volume %s holds %s, its sizeLimit is %s", v.Name, resource.NewQuantity(used, resource.BinarySI), v.EmptyDir.SizeLimit)
		}
	}
	return ""
}

// dirSize is what the files below a directory hold. What goes meanwhile counts
// as nothing.
func dirSize(ctx context.Context, dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
