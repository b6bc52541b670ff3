package manifest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// pipeline is kind Pipeline of tandem.dev/v1 as it is written.
type pipeline struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`
	Spec              pipelineSpec `json:"spec,omitzero"`
}

type pipelineSpec struct {
	Repo    string          `json:"repo,omitempty"`
	Promote pipelinePromote `json:"promote,omitzero"`
	Stages  []pipelineStage `json:"stages,omitempty"`
}

type pipelinePromote struct {
	Method string `json:"method,omitempty"`
	Auto   bool   `json:"auto,omitempty"`
}

type pipelineStage struct {
	Name        string           `json:"name,omitempty"`
	Application string           `json:"application,omitempty"`
	After       []string         `json:"after,omitempty"`
	Auto        *bool            `json:"auto,omitempty"`
	Gates       []pipelineGate   `json:"gates,omitempty"`
	Freezes     []pipelineFreeze `json:"freezes,omitempty"`
}

// pipelineGate has exactly one of its fields.
type pipelineGate struct {
	Healthy   *gateHealthy   `json:"healthy,omitempty"`
	Signed    *gateSigned    `json:"signed,omitempty"`
	Approvals *gateApprovals `json:"approvals,omitempty"`
	Window    *gateWindow    `json:"window,omitempty"`
	External  *gateExternal  `json:"external,omitempty"`
	Job       *gateJob       `json:"job,omitempty"`
}

type gateJob struct {
	CronJob   string `json:"cronJob,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

type gateHealthy struct {
	For string `json:"for,omitempty"`
}

type gateSigned struct {
	By string `json:"by,omitempty"`
}

type gateApprovals struct {
	Count     int32    `json:"count,omitempty"`
	From      []string `json:"from,omitempty"`
	NotAuthor *bool    `json:"notAuthor,omitempty"`
}

type gateWindow struct {
	Days     []string `json:"days,omitempty"`
	From     string   `json:"from,omitempty"`
	To       string   `json:"to,omitempty"`
	TimeZone string   `json:"timeZone,omitempty"`
}

type gateExternal struct {
	Name   string `json:"name,omitempty"`
	Secret string `json:"secret,omitempty"`
}

type pipelineFreeze struct {
	From     string `json:"from,omitempty"`
	To       string `json:"to,omitempty"`
	TimeZone string `json:"timeZone,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// maxStages bounds a pipeline.
const maxStages = 32

// pipeline decodes a Pipeline.
func (d *Decoder) pipeline(v *Value, ref state.Ref, place Place) (Decoded, []state.Problem) {
	var in pipeline
	val, problems := d.read(v, &in, ref, place)
	if len(problems) > 0 {
		return Decoded{Ref: ref}, problems
	}
	out := val.pipeline(&in)
	out.At = place(Path(nil).Key("metadata", "name"), v.Find("metadata").Find("name"))
	return Decoded{Ref: ref, Pipeline: &out}, val.problems
}

func (c *validator) pipeline(in *pipeline) state.Pipeline {
	c.name(Path(nil).Key("metadata", "name"), in.Name, nameLabel)
	spec := Path(nil).Key("spec")
	out := state.Pipeline{Name: state.PipelineName(in.Name), Repo: in.Spec.Repo}
	c.address(spec.Key("repo"), in.Spec.Repo)
	if m := in.Spec.Promote.Method; m != "" && m != "fast-forward" {
		c.fail(spec.Key("promote", "method"), fmt.Sprintf("want fast-forward, got %q", clip(m)), "method: fast-forward; where it can't be, a merge commit with the tested tree is made")
	}
	switch n := len(in.Spec.Stages); {
	case n == 0:
		c.missing(spec.Key("stages"), "name the stages, the first one first")
	case n > maxStages:
		c.fail(spec.Key("stages"), fmt.Sprintf("has more than %d stages", maxStages), "make two pipelines of it")
		return out
	}
	for i := range in.Spec.Stages {
		out.Stages = append(out.Stages, c.stage(spec.Key("stages").At(i, ""), &in.Spec.Stages[i], out.Stages, in.Spec.Promote.Auto))
	}
	return out
}

// stage reads a stage; those before it are the only ones that it may come after,
// so that there is no cycle.
func (c *validator) stage(at Path, in *pipelineStage, before []state.Stage, auto bool) state.Stage {
	out := state.Stage{Name: in.Name, App: state.AppName(in.Application), After: slices.Compact(append([]string(nil), in.After...)), Auto: auto}
	c.name(at.Key("name"), in.Name, nameLabel)
	if in.Auto != nil {
		out.Auto = *in.Auto
	}
	if in.Application == "" {
		c.missing(at.Key("application"), "name the Application whose branch is the stage's")
	}
	for i := range before {
		if before[i].Name == in.Name {
			c.fail(at.Key("name"), fmt.Sprintf("%s is there twice", clip(in.Name)), "give each stage a name of its own")
		}
		if before[i].App == out.App && in.Application != "" {
			c.fail(at.Key("application"), fmt.Sprintf("%s is the Application of stage %s already", clip(in.Application), before[i].Name), "give each stage an Application of its own")
		}
	}
	for i, name := range in.After {
		if !slices.ContainsFunc(before, func(s state.Stage) bool { return s.Name == name }) {
			c.fail(at.Key("after").At(i, ""), fmt.Sprintf("there is no stage %q before this one", clip(name)), "name a stage that is written above")
		}
	}
	if len(in.After) == 0 && len(in.Gates) > 0 {
		c.fail(at.Key("gates"), "nothing is promoted to a stage without `after`", "say which stages come before it, or remove the gates")
	}
	for i := range in.Gates {
		if g, ok := c.gate(at.Key("gates").At(i, ""), &in.Gates[i]); ok {
			out.Gates = append(out.Gates, g)
		}
	}
	for i := range in.Freezes {
		out.Freezes = append(out.Freezes, c.freeze(at.Key("freezes").At(i, ""), &in.Freezes[i]))
	}
	return out
}

func (c *validator) gate(at Path, in *pipelineGate) (state.Gate, bool) {
	var out []state.Gate
	if in.Healthy != nil {
		out = append(out, state.Gate{Kind: state.GateHealthy, For: c.duration(at.Key("healthy", "for"), in.Healthy.For)})
	}
	if in.Signed != nil {
		if in.Signed.By == "" {
			c.missing(at.Key("signed", "by"), "name the file of allowed signers, a path in the root")
		}
		out = append(out, state.Gate{Kind: state.GateSigned, Name: in.Signed.By})
	}
	if in.Approvals != nil {
		out = append(out, c.approvals(at.Key("approvals"), in.Approvals))
	}
	if in.Window != nil {
		out = append(out, c.window(at.Key("window"), in.Window))
	}
	if in.External != nil {
		c.name(at.Key("external", "name"), in.External.Name, nameLabel)
		if in.External.Secret == "" {
			c.missing(at.Key("external", "secret"), "name the Secret of the root whose key signs the answers")
		}
		out = append(out, state.Gate{Kind: state.GateExternal, Name: in.External.Name, Secret: in.External.Secret})
	}
	if in.Job != nil {
		if in.Job.CronJob == "" {
			c.missing(at.Key("job", "cronJob"), "name the CronJob of the root whose Job judges the commit; `suspend: true` keeps it from running by the clock")
		} else {
			c.name(at.Key("job", "cronJob"), in.Job.CronJob, nameSubdomain)
		}
		if in.Job.Namespace == "" {
			in.Job.Namespace = "default"
		}
		out = append(out, state.Gate{Kind: state.GateJobs, Name: in.Job.CronJob, Namespace: in.Job.Namespace})
	}
	if len(out) != 1 {
		c.fail(at, "want one of healthy, signed, approvals, window, external and job", "write one gate an item")
		return state.Gate{}, false
	}
	return out[0], true
}

func (c *validator) duration(at Path, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		c.fail(at, fmt.Sprintf("want a length of time, got %q", clip(text)), "write it as 10m or 1h30m")
	}
	return d
}

// groupPrefix marks a group where people are named.
const groupPrefix = "group:"

func (c *validator) approvals(at Path, in *gateApprovals) state.Gate {
	g := state.Gate{Kind: state.GateApprovals, Count: in.Count, NotAuthor: in.NotAuthor == nil || *in.NotAuthor}
	if in.Count < 1 {
		c.fail(at.Key("count"), "must be 1 or more", "say how many people must approve")
	}
	if len(in.From) == 0 {
		c.missing(at.Key("from"), "name who may approve: group:release-managers, or a user")
	}
	for i, who := range in.From {
		group, is := strings.CutPrefix(who, groupPrefix)
		switch {
		case who == "" || is && group == "":
			c.fail(at.Key("from").At(i, ""), "names nobody", "write group:release-managers, or a user's name")
		case is:
			g.Groups = append(g.Groups, group)
		default:
			g.Names = append(g.Names, who)
		}
	}
	slices.Sort(g.Groups)
	g.Groups = slices.Compact(g.Groups)
	slices.Sort(g.Names)
	g.Names = slices.Compact(g.Names)
	if len(g.Groups) == 0 && int(in.Count) > len(g.Names) && len(g.Names) > 0 {
		c.fail(at.Key("count"), fmt.Sprintf("wants %d approvals of %d people", in.Count, len(g.Names)), "name more people, or a group")
	}
	return g
}

func (c *validator) window(at Path, in *gateWindow) state.Gate {
	g := state.Gate{Kind: state.GateWindow, Zone: c.zone(at.Key("timeZone"), in.TimeZone), To: 24 * 60}
	for i, day := range in.Days {
		found := false
		for d := time.Sunday; d <= time.Saturday; d++ {
			if day == d.String() || day == d.String()[:3] {
				g.Days |= 1 << d
				found = true
			}
		}
		if !found {
			c.fail(at.Key("days").At(i, ""), fmt.Sprintf("want a day of the week, got %q", clip(day)), "write Mon, Tue, Wed, Thu, Fri, Sat or Sun")
		}
	}
	if in.From != "" {
		g.From = c.minute(at.Key("from"), in.From)
	}
	if in.To != "" {
		g.To = c.minute(at.Key("to"), in.To)
	}
	if g.From >= g.To {
		c.fail(at.Key("to"), "must be after from", "write a window over midnight as two pipelines' stages, or widen it")
	}
	return g
}

func (c *validator) minute(at Path, text string) int32 {
	if text == "24:00" {
		return 24 * 60
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		c.fail(at, fmt.Sprintf("want a time of day, got %q", clip(text)), `write it as "09:00"`)
		return 0
	}
	return int32(t.Hour()*60 + t.Minute())
}

// zone checks a time zone; without one, times are UTC.
func (c *validator) zone(at Path, name string) string {
	if name == "" {
		return "UTC"
	}
	if _, err := time.LoadLocation(name); err != nil || name == "Local" {
		c.fail(at, fmt.Sprintf("there is no time zone %q", clip(name)), "write it as Europe/Oslo, or UTC")
	}
	return name
}

func (c *validator) freeze(at Path, in *pipelineFreeze) state.Freeze {
	f := state.Freeze{From: in.From, To: in.To, Reason: in.Reason, Zone: c.zone(at.Key("timeZone"), in.TimeZone)}
	for _, day := range [][2]string{{"from", in.From}, {"to", in.To}} {
		if _, err := time.Parse(time.DateOnly, day[1]); err != nil {
			c.fail(at.Key(day[0]), fmt.Sprintf("want a day, got %q", clip(day[1])), "write it as 2026-12-18")
		}
	}
	if in.From > in.To {
		c.fail(at.Key("to"), "is before from", "exchange the two")
	}
	if in.Reason == "" {
		c.missing(at.Key("reason"), "say why, for those who will wonder")
	}
	return f
}
