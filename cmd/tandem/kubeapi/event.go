package kubeapi

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

const (
	// maxEvents is how many events the API shows; history has the rest.
	maxEvents = 2000
	// eventsBack is how many records are read for the first answer.
	eventsBack = 20_000
)

// events are Kubernetes events made of records.
type events struct {
	api   *api
	next  state.Seq
	fresh []*state.Record // read, not shown yet
	ring  []*corev1.Event
	told  report.Teller
}

// read takes the records that have come since. It goes before View, which may
// not be held while the log is read.
func (v *events) read() {
	if v.next == 0 {
		v.api.Controller.View(func(s *state.State) {
			v.next = 1
			if s.Seq > eventsBack {
				v.next = s.Seq - eventsBack
			}
			v.told = report.NewTeller(s, v.api.Controller.Words)
		})
	}
	for r, err := range v.api.Controller.Records(context.Background(), v.next) {
		if err != nil {
			v.api.Logger.LogAttrs(context.Background(), slog.LevelWarn, "read no further events", slog.String("err", err.Error()))
			return
		}
		v.next = r.Seq + 1
		v.fresh = append(v.fresh, r)
	}
}

// scan shows the newest events up to the position of the state.
func (v *events) scan(s *scan) {
	for len(v.fresh) > 0 && v.fresh[0].Seq <= s.state.Seq {
		if e := v.event(s.state, v.fresh[0]); e != nil {
			v.ring = append(v.ring, e)
		}
		v.fresh = v.fresh[1:]
	}
	if n := len(v.ring); n > 2*maxEvents {
		v.ring = append([]*corev1.Event(nil), v.ring[n-maxEvents:]...)
	}
	for _, e := range v.ring[max(0, len(v.ring)-maxEvents):] {
		k := key{e.Namespace, e.Name}
		if !s.same(k, string(e.UID), fingerStart) {
			s.put(k, string(e.UID), fingerStart, e)
		}
	}
}

// event is what kubectl shows of a record, or nil where it is about no object.
func (v *events) event(s *state.State, r *state.Record) *corev1.Event {
	line := v.told.Tell(r)
	if line.Object.IsZero() {
		return nil
	}
	ref := involved(s, line)
	at := metav1.NewTime(r.At.Time())
	namespace := ref.Namespace
	if namespace == "" {
		namespace = "default"
	}
	kind := corev1.EventTypeNormal
	if line.Bad {
		kind = corev1.EventTypeWarning
	}
	message := line.Outcome
	if line.Reason != "" {
		message += ": " + line.Reason
	}
	name := fmt.Sprintf("%s.%x", ref.Name, uint64(r.Seq))
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace, CreationTimestamp: at, UID: uidOf(s, state.Ref{Kind: "Event", Namespace: namespace, Name: name}, r.At),
		},
		InvolvedObject: ref, Reason: r.Fact.Kind().String(), Message: message, Type: kind, Count: 1,
		FirstTimestamp: at, LastTimestamp: at, Source: corev1.EventSource{Component: "tandem"}, ReportingController: "tandem.dev", ReportingInstance: "tandem",
	}
}

func involved(s *state.State, line report.Line) corev1.ObjectReference {
	ref := line.Object
	out := corev1.ObjectReference{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, APIVersion: "v1", UID: types.UID(line.UID)}
	switch ref.Kind {
	case "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob":
		out.APIVersion = "apps/v1"
		if ref.Kind == "Job" || ref.Kind == "CronJob" {
			out.APIVersion = "batch/v1"
		}
		if w := s.Workloads[ref]; w != nil {
			out.UID = uidOf(s, ref, w.Created)
		}
	case "Application":
		out.APIVersion = "tandem.dev/v1"
		if a := s.Apps[state.AppName(ref.Name)]; a != nil {
			out.UID = uidOf(s, ref, a.Declared)
		}
	case "Node":
		// describe node asks for the events of this UID, and for those of the name as UID.
		out.UID = types.UID(ref.Name)
	}
	return out
}

// eventFields are what events can be selected by: describe relies on them.
func eventFields(o object) fields.Set {
	set := fields.Set{
		"involvedObject.kind": "", "involvedObject.namespace": "", "involvedObject.name": "", "involvedObject.uid": "",
		"involvedObject.apiVersion": "", "involvedObject.fieldPath": "", "involvedObject.resourceVersion": "", "reason": "", "type": "", "source": "", "reportingComponent": "",
	}
	if e, ok := o.(*corev1.Event); ok {
		set["involvedObject.kind"], set["involvedObject.namespace"] = e.InvolvedObject.Kind, e.InvolvedObject.Namespace
		set["involvedObject.name"], set["involvedObject.uid"] = e.InvolvedObject.Name, string(e.InvolvedObject.UID)
		set["involvedObject.apiVersion"], set["reason"], set["type"] = e.InvolvedObject.APIVersion, e.Reason, e.Type
		set["source"], set["reportingComponent"] = e.Source.Component, e.ReportingController
	}
	return set
}

func eventColumns() []metav1.TableColumnDefinition {
	return columns("Last Seen", "Type", "Reason", "Object", "Message", "+Name")
}

func eventRow(o object, now time.Time) []any {
	e, ok := o.(*corev1.Event)
	if !ok {
		return nil
	}
	return []any{age(e.LastTimestamp, now), e.Type, e.Reason, lower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name, e.Message, e.Name}
}

func lower(kind string) string {
	b := []byte(kind)
	for i := range b {
		if b[i] >= 'A' && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
