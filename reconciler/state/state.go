package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/lease"
)

// Blobs finds what lies beside the log by digest. A blob is there before a
// record that names it.
type Blobs interface {
	Manifest(Digest) (*Manifest, error)
	Template(Digest) (*Template, error)
}

// A State is the fold of the log's records and nothing else. Only Apply changes
// it. It is not safe for concurrent use.
type State struct {
	LogID     Digest
	Seq       Seq     // of the last record
	At        Instant // of the last record
	Started   Instant // of the newest ControllerStarted
	Stopped   bool    // the last controller stopped cleanly
	Apps      map[AppName]*App
	Objects   map[Ref]*Owned
	Workloads map[Ref]*Workload
	Pods      map[UID]*Pod
	ByName    map[PodKey]*Pod // the newest life of each name
	Nodes     map[NodeName]*Node
	Daemons   map[Ref]*Workload  // the DaemonSets among Workloads
	Affine    map[Ref]*Workload  // those among Workloads whose Affine is not 0
	Rules     map[Ref]*Owned     // the PriorityClasses and PodDisruptionBudgets among Objects
	Restless  map[NodeName]*Node // those among Nodes that a pod may have to leave; see Node.restless
	NodeCount uint32             // how many Index were given out
	Holds     map[string]*Hold
	Images    map[ImageKey]*Image
	Services  map[Ref]*ServiceAddress
	Claims    map[Ref]*Claim // that have a volume
	Routing   Routing        // between nodes; zero: nobody chose

	Lines          map[PipelineName]*Line
	Promotions     map[string]*Promotion // that haven't ended
	PromotionCount uint64                // that there ever were

	Access *Access // nil: the root says nothing of it

	Sessions map[Seq]*Session // that haven't ended

	blobs Blobs
	made  map[Ref]map[Ref]*Claim // Claims, by the StatefulSet that made them
	facts uint64                 // see Facts
	apps  uint64                 // see Declarations
	indexes
}

// ImageKey is the scope in which an image name has one meaning.
type ImageKey struct {
	App      AppName
	Manifest Digest
	Name     string
}

// An App is an application and how far it has come.
type App struct {
	Spec        Application
	Declared    Instant
	Removed     bool     // it left the root; its objects are going
	Revision    Revision // applied, or seen to change nothing
	Commit      Commit
	Manifest    Digest // zero: nothing was applied yet
	Changed     Commit // the commit that last changed the render
	ChangedRev  Revision
	AppliedAt   Instant
	AppliedSeq  Seq
	Rejected    *Rejection // the newest commit, where it has problems
	Converged   bool
	ConvergedAt Instant
	SourceLost  bool
	SourceSince Instant
	SourceText  Text
	Suspended   Suspend // by a person
	Good        Good
	Failed      FailedRevision // zero: none, or another render was applied since
	// FailedBefore are those that other renders took the place of, oldest first.
	FailedBefore []FailedRevision
	Noted        string // the commit that the repository has a note of
}

// A Rejection is a commit of which nothing was applied.
type Rejection struct {
	Revision  Revision `pb:"1"`
	Commit    Commit   `pb:"2"`
	Problems  int32    `pb:"3"`
	Detail    Text     `pb:"4"`
	At        Instant  `pb:"5"`
	Conflicts []Ref    `pb:"6"`
	Fixed     []Fixed  `pb:"70"`
}

// Owned is an object of the inventory.
type Owned struct {
	Object   *Object
	App      AppName
	Manifest Digest // where the content comes from
	Retired  bool   // left the text, a pod still needs it
	Kept     bool   // left the text, and is not pruned
	Created  Instant
	Changed  Seq

	places places
}

// A Workload is an object that has pods, or Jobs, and is wanted or is going.
type Workload struct {
	Ref       Ref
	App       AppName
	Owned     *Owned
	Deleting  bool
	Variants  []*WorkloadVariant // sorted by OS; at least one
	Pods      []*Pod             // every life that isn't gone, in the order of placement
	Affine    int                // how many of Pods say which pods they want near or far
	Serial    uint64             // names given to pods so far
	Revision  int64              // highest number in use
	Created   Instant
	Since     Instant // when what is wanted last changed
	Progress  Instant // when the rollout last made progress
	Complete  bool    // rolled out since what is wanted last changed
	IsStalled bool
	Holds     map[string]*Hold
	Restart   Seq      // of the last restart that a person asked for
	Job       *Job     // of kind Job alone
	Cron      *Cron    // of kind CronJob alone
	Parent    *Fired   // of a Job that a CronJob began; nil: it is in the text
	Finished  Finished // of a bare Pod alone

	jobs   map[Ref]*Workload // of a CronJob
	places places
}

// Finished is a bare Pod that ran to its end and is gone since: it isn't run again
// before the text changes or a person asks.
type Finished struct {
	Template Digest `pb:"1"`
	Failed   bool   `pb:"2"`
}

// WorkloadVariant is a workload's part for one OS.
type WorkloadVariant struct {
	OS       OS
	Replicas int32
	Start    int32 // first ordinal
	Scaled   int32 // Replicas when the rollout began, or its revisions were last given their shares
	Spec     *corev1.PodTemplateSpec
	Update   *Template // what new pods are made from; nil until the images are known
	Current  *Template // StatefulSet: the last that was rolled out whole
	History  []TemplateRevision
}

// TemplateRevision is a template that a variant has had: what Kubernetes keeps
// as a ReplicaSet or ControllerRevision.
type TemplateRevision struct {
	Template *Template
	Number   int64
	Created  Instant
}

// A Hold is a Held that wasn't released.
type Hold struct {
	Held
	App      AppName
	Since    Instant
	Seq      Seq
	Approved bool
}

// New is the state before the first record.
func New(blobs Blobs) *State {
	return &State{
		Apps: map[AppName]*App{}, Objects: map[Ref]*Owned{}, Workloads: map[Ref]*Workload{},
		Pods: map[UID]*Pod{}, ByName: map[PodKey]*Pod{}, Nodes: map[NodeName]*Node{},
		Holds: map[string]*Hold{}, Images: map[ImageKey]*Image{},
		Services: map[Ref]*ServiceAddress{}, Claims: map[Ref]*Claim{}, made: map[Ref]map[Ref]*Claim{}, Daemons: map[Ref]*Workload{}, Restless: map[NodeName]*Node{}, Affine: map[Ref]*Workload{}, Rules: map[Ref]*Owned{}, blobs: blobs,
		indexes: newIndexes(), Lines: map[PipelineName]*Line{}, Promotions: map[string]*Promotion{}, Sessions: map[Seq]*Session{},
	}
}

// IsWorkload says whether objects of the kind have pods.
func IsWorkload(kind string) bool {
	switch kind {
	case "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod":
		return true
	default:
		return false
	}
}

// Variant returns the workload's variant for an OS; a variant that names no OS
// stands for each.
func (w *Workload) Variant(os OS) *WorkloadVariant {
	for _, v := range w.Variants {
		if v.OS == os || v.OS == AnyOS {
			return v
		}
	}
	return nil
}

// Replicas is the sum over the variants.
func (w *Workload) Replicas() int32 {
	var n int32
	for _, v := range w.Variants {
		n += v.Replicas
	}
	return n
}

// Deployment returns the workload's object as a Deployment: of its first
// variant, in which everything but template and replicas is the same.
func (w *Workload) Deployment() (*appsv1.Deployment, bool) {
	d, ok := w.Owned.Object.First().(*appsv1.Deployment)
	return d, ok
}

// StatefulSet returns the workload's object as a StatefulSet.
func (w *Workload) StatefulSet() (*appsv1.StatefulSet, bool) {
	d, ok := w.Owned.Object.First().(*appsv1.StatefulSet)
	return d, ok
}

// NodeLoss is what becomes of the workload's pods when their node is lost; Wait
// where they are no identities.
func (w *Workload) NodeLoss() lease.Class {
	set, ok := w.StatefulSet()
	if !ok {
		return lease.Wait
	}
	class, ok := lease.Parse(set.Annotations[lease.Annotation])
	if !ok {
		return lease.Wait // its text was refused; of another version, perhaps
	}
	return class
}

// Has says whether a pod is one of the workload's: they lie in the order of placement.
func (w *Workload) Has(p *Pod) bool {
	i, ok := slices.BinarySearchFunc(w.Pods, p.PlacedSeq, func(q *Pod, seq Seq) int { return cmp.Compare(q.PlacedSeq, seq) })
	return ok && w.Pods[i] == p
}

// IsCurrent says whether the pod is made from what its variant wants now.
func (w *Workload) IsCurrent(p *Pod) bool {
	v := w.Variant(p.OS)
	return v != nil && v.Update != nil && p.Template.Digest == v.Update.Digest
}

// Object finds a ConfigMap, Secret or other object of the inventory.
func (s *State) Object(kind, namespace, name string) *Object {
	if o := s.Objects[Ref{Kind: kind, Namespace: namespace, Name: name}]; o != nil {
		return o.Object
	}
	return nil
}

// PodLabels are the labels that a pod carries: the template's and those that
// its workload adds.
func (p *Pod) PodLabels() map[string]string {
	return podLabels(p.Workload, p.Key.Name, p.Ordinal, p.Template)
}

// PodLabels are the same labels, as an agent knows the pod.
func (p *AssignedPod) PodLabels() map[string]string {
	return podLabels(p.Workload, p.Key.Name, p.Ordinal, p.Template)
}

func podLabels(w Ref, name string, ordinal int32, t *Template) map[string]string {
	l := make(map[string]string, len(t.Spec.Labels)+3)
	maps.Copy(l, t.Spec.Labels)
	switch w.Kind {
	case "StatefulSet":
		l["statefulset.kubernetes.io/pod-name"] = name
		l["apps.kubernetes.io/pod-index"] = fmt.Sprint(ordinal)
		l["controller-revision-hash"] = w.Name + "-" + t.Hash
	case "Deployment":
		l["pod-template-hash"] = t.Hash
	case "DaemonSet":
		l["controller-revision-hash"] = t.Hash
	case "Job":
		l["job-name"], l["batch.kubernetes.io/job-name"] = w.Name, w.Name
		if ordinal >= 0 {
			l["batch.kubernetes.io/job-completion-index"] = fmt.Sprint(ordinal)
		}
	}
	return l
}

// Assignment captures what a node should run as of the last record.
func (s *State) Assignment(n *Node) Assignment {
	a := Assignment{Node: n.Name, Epoch: n.Epoch, Generation: n.Generation, Seq: s.Seq, Pods: make([]*AssignedPod, 0, len(n.Pods))}
	seen := map[Ref]bool{}
	send := func(kind, namespace, name string) {
		ref := Ref{Kind: kind, Namespace: namespace, Name: name}
		if o := s.Objects[ref]; o != nil && !seen[ref] {
			seen[ref] = true
			a.Objects = append(a.Objects, o.Object)
		}
	}
	for _, p := range n.Pods {
		given := AccountSecrets(s.account(p.Key.Namespace, p.Template.Account), n.Facts.OS)
		a.Pods = append(a.Pods, s.assigned(p, strings.Join(given, ",")))
		for _, c := range p.Template.Configs {
			send(c.Kind, p.Key.Namespace, c.Name)
		}
		for _, name := range given {
			send("Secret", p.Key.Namespace, name)
		}
	}
	slices.SortFunc(a.Pods, func(x, y *AssignedPod) int { return x.UID.Compare(y.UID) })
	slices.SortFunc(a.Objects, func(x, y *Object) int { return x.Ref.Compare(y.Ref) })
	a.Volumes = s.volumes(n)
	return a
}

func (s *State) assigned(p *Pod, given string) *AssignedPod {
	if p.assigned != nil && p.assigned.Stop == p.Stopping && p.assigned.Given == given && (!p.Stopping || p.assigned.Grace == p.Grace()) {
		return p.assigned
	}
	a := &AssignedPod{
		UID: p.UID, Key: p.Key, Workload: p.Workload, Ordinal: p.Ordinal, Template: p.Template,
		Isolation: p.Isolation, Placement: p.PlacedSeq, Loss: p.Loss, Stop: p.Stopping, Given: given,
	}
	if p.Stopping {
		a.Grace = p.Grace()
	}
	if w := s.Workloads[p.Workload]; w != nil {
		if set, ok := w.StatefulSet(); ok {
			a.Service = set.Spec.ServiceName
		}
	}
	p.assigned = a
	return a
}

// Facts counts, for this value of State, how often a node joined, left or said
// something else of itself: while it stays, what was worked out of the nodes'
// names and Facts holds.
func (s *State) Facts() uint64 { return s.facts }

// Declarations counts, for this value of State, how often an application was
// declared, removed or forgotten: while it stays, the applications and what they
// ask for are the same.
func (s *State) Declarations() uint64 { return s.apps }

// SortedNodes are the nodes by name.
func (s *State) SortedNodes() []*Node {
	nodes := make([]*Node, 0, len(s.Nodes))
	for _, n := range s.Nodes {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b *Node) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return nodes
}

// SortedApps are the applications by name.
func (s *State) SortedApps() []*App {
	apps := make([]*App, 0, len(s.Apps))
	for _, a := range s.Apps {
		apps = append(apps, a)
	}
	slices.SortFunc(apps, func(a, b *App) int { return strings.Compare(string(a.Spec.Name), string(b.Spec.Name)) })
	return apps
}

// SortedWorkloads are the workloads in canonical order.
func (s *State) SortedWorkloads() []*Workload {
	ws := make([]*Workload, 0, len(s.Workloads))
	for _, w := range s.Workloads {
		ws = append(ws, w)
	}
	slices.SortFunc(ws, func(a, b *Workload) int { return a.Ref.Compare(b.Ref) })
	return ws
}

// SortedPods are the pods by name, newest life of a name last.
func (s *State) SortedPods() []*Pod {
	ps := make([]*Pod, 0, len(s.Pods))
	for _, p := range s.Pods {
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b *Pod) int {
		if c := a.Key.Compare(b.Key); c != 0 {
			return c
		}
		return int(int64(a.PlacedSeq) - int64(b.PlacedSeq))
	})
	return ps
}
