package overlay

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/tandem-gitops/tandem/reconciler/lease"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/render/manifest"
)

// longGrace warns of a grace that a lost node would cut short: identities must
// have ended by the end of its lease. The default, which nobody wrote, is none.
func longGrace(o *object, d *manifest.Decoded) []state.Problem {
	set, ok := d.Body.(*appsv1.StatefulSet)
	if !ok {
		return nil
	}
	path := manifest.Path(nil).Key("spec", "template", "spec", "terminationGracePeriodSeconds")
	written, _, _, ok := o.value.Lookup(path)
	if !ok {
		return nil
	}
	class, ok := lease.Parse(set.Annotations[lease.Annotation])
	grace := time.Duration(*set.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
	most := class.Terms().Kill - lease.Margin
	if !ok || class == lease.Wait || grace <= most {
		return nil
	}
	return []state.Problem{{
		Object: d.Ref, Field: path.String(), At: o.place(path, written),
		Cause:  fmt.Sprintf("is %s, but on a node that is cut off pods of class %s get %s before they are killed", plain(grace), class, plain(most)),
		Remedy: fmt.Sprintf("see to it that a kill after %s loses nothing, or write %s: wait", plain(most), lease.Annotation),
	}}
}

func plain(d time.Duration) string { return fmt.Sprintf("%d s", int64(d/time.Second)) }
