package state

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// ClaimKind is the kind of Refs that name claims.
const ClaimKind = "PersistentVolumeClaim"

// StorageClass is the one that there is: a directory of the node that a claim's
// first pod was placed on.
const StorageClass = "tandem-local"

// ClaimBound says where a claim's data is from now on: on the node that its
// first pod goes to. The volume's UID is NewUID(log, this record's Seq, claim).
type ClaimBound struct {
	Claim    Ref      `json:"claim" pb:"1"`
	Node     NodeName `json:"node" pb:"2"`
	Capacity int64    `json:"capacity,omitempty" pb:"3"` // bytes asked for
	Once     bool     `json:"once,omitempty" pb:"4"`     // ReadWriteOncePod: for one pod at a time
	// Of a claim that a StatefulSet makes for one of its identities.
	Workload Ref    `json:"workload,omitzero" pb:"5"`
	Template string `json:"template,omitempty" pb:"6"`
	Ordinal  int32  `json:"ordinal,omitempty" pb:"7"`
}

// ClaimDropped says that a claim's data is to be deleted, once no pod uses it.
// The node is told after this record is durable, and tells when it is done.
type ClaimDropped struct {
	Claim  Ref        `json:"claim" pb:"1"`
	Volume UID        `json:"volume" pb:"2"`
	Why    ClaimsFate `json:"why" pb:"3"`
}

// VolumeGone says that nothing of a dropped claim's data is left.
type VolumeGone struct {
	Volume UID `json:"volume" pb:"1"`
	// Unseen: its node is removed, so nobody looked.
	Unseen bool `json:"unseen,omitempty" pb:"2"`
}

// ClaimResized says that a claim asks for another amount than before.
type ClaimResized struct {
	Claim    Ref   `json:"claim" pb:"1"`
	Capacity int64 `json:"capacity" pb:"2"`
}

// Kind implements Fact.
func (*ClaimBound) Kind() Kind { return KindClaimBound }

// Kind implements Fact.
func (*ClaimDropped) Kind() Kind { return KindClaimDropped }

// Kind implements Fact.
func (*VolumeGone) Kind() Kind { return KindVolumeGone }

// Kind implements Fact.
func (*ClaimResized) Kind() Kind { return KindClaimResized }

// ClaimsFate is why a claim's data is deleted.
type ClaimsFate uint8

// Why a claim's data is deleted.
const (
	DropScaled    ClaimsFate = iota + 1 // persistentVolumeClaimRetentionPolicy.whenScaled: Delete
	DropDeleted                         // persistentVolumeClaimRetentionPolicy.whenDeleted: Delete
	DropApproved                        // it left the text, and a person approved
	DropRequested                       // a person deleted it
)

// String says it in words.
func (f ClaimsFate) String() string {
	names := [...]string{"", "scaled down, whenScaled is Delete", "StatefulSet deleted, whenDeleted is Delete", "left the text, approved", "requested"}
	if int(f) < len(names) {
		return names[f]
	}
	return "unknown"
}

// A Claim is a PersistentVolumeClaim that has a volume. One that no pod has
// used yet has none, and is in the text or nowhere.
type Claim struct {
	Ref      Ref        `pb:"1"`
	Volume   UID        `pb:"2"`
	App      AppName    `pb:"3"`
	Node     NodeName   `pb:"4"`
	Capacity int64      `pb:"5"`
	Once     bool       `pb:"6"`
	Workload Ref        `pb:"7"` // that made it; none: it is in the text
	Template string     `pb:"8"`
	Ordinal  int32      `pb:"9"`
	Bound    Instant    `pb:"10"`
	Changed  Seq        `pb:"11"`
	Dropped  ClaimsFate `pb:"12"` // not 0: its data goes once no pod uses it
	DropAt   Instant    `pb:"13"`
	Begun    bool       `pb:"14"` // a pod has run with it
}

// A ClaimUse is a volume of a pod spec that is a claim.
type ClaimUse struct {
	Volume string // as the spec calls it
	Name   string // of the claim; of one that a StatefulSet makes, without the ordinal
	Each   bool   // each identity has its own
}

// each ends the claim name of a volume that every identity of a StatefulSet has
// for itself. It is no part of a name.
const each = "-*"

// ClaimName is the claim's name for one identity.
func (u ClaimUse) ClaimName(ordinal int32) string {
	if u.Each {
		return fmt.Sprintf("%s-%d", u.Name, ordinal)
	}
	return u.Name
}

// Claim is the claim's name for one pod.
func (u ClaimUse) Claim(namespace string, ordinal int32) Ref {
	return Ref{Kind: ClaimKind, Namespace: namespace, Name: u.ClaimName(ordinal)}
}

// podClaims are the claims that a spec names, by volume.
func podClaims(spec *corev1.PodSpec) []ClaimUse {
	var out []ClaimUse
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if v.PersistentVolumeClaim == nil {
			continue
		}
		name, own := strings.CutSuffix(v.PersistentVolumeClaim.ClaimName, each)
		out = append(out, ClaimUse{Volume: v.Name, Name: name, Each: own})
	}
	return out
}

// withClaims is a StatefulSet's pod template with a volume for each of its claim
// templates. One that is named like a volume of the pod takes its place
// (Kubernetes: updateStorage).
func withClaims(set *appsv1.StatefulSet) *corev1.PodTemplateSpec {
	if len(set.Spec.VolumeClaimTemplates) == 0 {
		return &set.Spec.Template
	}
	t := set.Spec.Template.DeepCopy()
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		v := corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name + "-" + set.Name + each},
		}}
		if j := slices.IndexFunc(t.Spec.Volumes, func(x corev1.Volume) bool { return x.Name == name }); j >= 0 {
			t.Spec.Volumes[j] = v
		} else {
			t.Spec.Volumes = append(t.Spec.Volumes, v)
		}
	}
	return t
}

// PodSpec is what the pod was made from, with the names of its own claims.
func (p *Pod) PodSpec() *corev1.PodSpec {
	spec := &p.Template.Spec.Spec
	if !slices.ContainsFunc(p.Template.Claims, func(u ClaimUse) bool { return u.Each }) {
		return spec
	}
	spec = spec.DeepCopy()
	for i := range spec.Volumes {
		c := spec.Volumes[i].PersistentVolumeClaim
		if c == nil {
			continue
		}
		for _, u := range p.Template.Claims {
			if u.Volume == spec.Volumes[i].Name {
				c.ClaimName = u.ClaimName(p.Ordinal)
			}
		}
	}
	return spec
}

// Uses says whether the pod has the claim among its volumes.
func (p *Pod) Uses(claim Ref) bool {
	return p.Key.Namespace == claim.Namespace && slices.ContainsFunc(p.Template.Claims, func(u ClaimUse) bool { return u.ClaimName(p.Ordinal) == claim.Name })
}

// Volume is the claim's, where the pod may use it.
func (a *Assignment) Volume(claim Ref) (AssignedVolume, bool) {
	for _, v := range a.Volumes {
		if v.Claim == claim && !v.Drop {
			return v, true
		}
	}
	return AssignedVolume{}, false
}

// An AssignedVolume is one that a node has, or is to delete. What a node has and
// nobody tells it of it keeps.
type AssignedVolume struct {
	UID   UID  `pb:"1"`
	Claim Ref  `pb:"2"`
	Drop  bool `pb:"3"`
	Begun bool `pb:"4"` // a pod has run with it: where it isn't there any more, data is lost
}

// ClaimsOf are the claims that a StatefulSet made, by name, whether it is still
// there or not.
func (s *State) ClaimsOf(set Ref) []*Claim {
	out := make([]*Claim, 0, len(s.made[set]))
	for _, c := range s.made[set] {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *Claim) int { return a.Ref.Compare(b.Ref) })
	return out
}

// keep puts a claim where it is looked for.
func (s *State) keep(c *Claim) {
	s.Claims[c.Ref] = c
	if !c.Workload.IsZero() {
		if s.made[c.Workload] == nil {
			s.made[c.Workload] = map[Ref]*Claim{}
		}
		s.made[c.Workload][c.Ref] = c
	}
	if n := s.Nodes[c.Node]; n != nil {
		n.Claims[c.Ref] = c
	}
}

// lose takes it out.
func (s *State) lose(c *Claim) {
	delete(s.Claims, c.Ref)
	delete(s.made[c.Workload], c.Ref)
	if len(s.made[c.Workload]) == 0 {
		delete(s.made, c.Workload)
	}
	if n := s.Nodes[c.Node]; n != nil {
		delete(n.Claims, c.Ref)
	}
}

// returned gives a node that joins the claims that a node of its name had.
func (s *State) returned(n *Node) {
	for ref, c := range s.Claims {
		if c.Node == n.Name {
			n.Claims[ref] = c
		}
	}
}

// InUse says whether a pod that isn't gone has the claim.
func (s *State) InUse(c *Claim) bool {
	if n := s.Nodes[c.Node]; n != nil {
		for _, p := range n.Pods {
			if p.Uses(c.Ref) {
				return true
			}
		}
	}
	return false
}

// volumes are a node's, as an assignment tells it.
func (s *State) volumes(n *Node) []AssignedVolume {
	out := make([]AssignedVolume, 0, len(n.Claims))
	for _, c := range n.Claims {
		out = append(out, AssignedVolume{UID: c.Volume, Claim: c.Ref, Drop: c.Dropped != 0 && !s.InUse(c), Begun: c.Begun})
	}
	slices.SortFunc(out, func(a, b AssignedVolume) int { return a.UID.Compare(b.UID) })
	return out
}

// SortedClaims are the claims that have a volume, by name.
func (s *State) SortedClaims() []*Claim {
	out := make([]*Claim, 0, len(s.Claims))
	for _, c := range s.Claims {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *Claim) int { return a.Ref.Compare(b.Ref) })
	return out
}

// ClaimOfVolume finds the claim that a volume is bound to.
func (s *State) ClaimOfVolume(volume UID) *Claim {
	for _, c := range s.Claims {
		if c.Volume == volume {
			return c
		}
	}
	return nil
}

func (s *State) applyClaim(r *Record) error {
	switch f := r.Fact.(type) {
	case *ClaimBound:
		n, err := s.node(f.Node)
		if err != nil {
			return err
		}
		if s.Claims[f.Claim] != nil {
			return fmt.Errorf("%s is bound already", f.Claim)
		}
		s.keep(&Claim{
			Ref: f.Claim, Volume: NewUID(s.LogID, r.Seq, f.Claim.Namespace, f.Claim.Name), App: r.App, Node: f.Node, Capacity: f.Capacity, Once: f.Once,
			Workload: f.Workload, Template: f.Template, Ordinal: f.Ordinal, Bound: r.At, Changed: r.Seq,
		})
		n.Generation++
	case *ClaimDropped:
		c := s.Claims[f.Claim]
		if c == nil || c.Volume != f.Volume {
			return fmt.Errorf("%s has no volume %s", f.Claim, f.Volume)
		}
		c.Dropped, c.DropAt, c.Changed = f.Why, r.At, r.Seq
		s.moved(c)
	case *VolumeGone:
		c := s.ClaimOfVolume(f.Volume)
		if c == nil {
			return fmt.Errorf("there is no volume %s", f.Volume)
		}
		s.moved(c)
		s.lose(c)
	case *ClaimResized:
		c := s.Claims[f.Claim]
		if c == nil {
			return fmt.Errorf("%s has no volume", f.Claim)
		}
		c.Capacity, c.Changed = f.Capacity, r.Seq
	}
	return nil
}

// begin notes that a pod runs with its claims: their volumes hold data.
func (s *State) begin(p *Pod) {
	for _, c := range s.Unbegun(p) {
		c.Begun = true
		s.moved(c)
	}
}

// Unbegun are the claims of a pod that no pod has run with yet: its node is told
// when one does.
func (s *State) Unbegun(p *Pod) []*Claim {
	var out []*Claim
	for _, u := range p.Template.Claims {
		if c := s.Claims[u.Claim(p.Key.Namespace, p.Ordinal)]; c != nil && !c.Begun {
			out = append(out, c)
		}
	}
	return out
}

// moved makes the claim's node see a change.
func (s *State) moved(c *Claim) {
	if n := s.Nodes[c.Node]; n != nil {
		n.Generation++
	}
}

// CmdDropClaim deletes the data of a claim that the text doesn't want.
const CmdDropClaim CommandVerb = 70
