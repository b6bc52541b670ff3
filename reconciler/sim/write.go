package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
)

// Write makes a story of a scenario and a seed: everything that will come from
// outside, before anything happens.
func Write(seed uint64, scenario Scenario, cast *Cast) (*Story, error) {
	if cast == nil {
		text, err := scenario.Text()
		if err != nil {
			return nil, err
		}
		if cast, err = ParseScenario(text); err != nil {
			return nil, fmt.Errorf("scenario %s: %w", scenario, err)
		}
	}
	p := &pen{Cast: cast, r: rand.New(rand.NewPCG(seed, 0x7a6e64656d)), story: &Story{Seed: seed, Rates: maps.Clone(cast.rates)}}
	p.long = cast.options["long-hangs"] || !cast.options["short-hangs"] && p.r.IntN(3) == 0
	for i := range cast.nodes[0] + p.r.IntN(cast.nodes[1]-cast.nodes[0]+1) {
		p.story.Nodes = append(p.story.Nodes, fmt.Sprintf("%s-%d", [2]string{"linux", "windows"}[i%2], i/2+1))
	}
	for range 3 {
		p.add(0)
	}
	p.regular("commit", p.edits, p.edit)
	p.regular("people", p.people, p.ask)
	p.regular("faults", p.faults, p.breaks)
	p.line(trouble, peace)
	slices.SortStableFunc(p.story.Lines, func(a, b Line) int { return int(a.At - b.At) })
	return p.story, nil
}

// pen writes one story.
type pen struct {
	*Cast
	r     *rand.Rand
	story *Story
	apps  []*spec
	named int
	long  bool // agents stand still, or are away, for longer than a lease lets them
}

func (p *pen) line(at time.Duration, verb string, args ...string) {
	p.story.Lines = append(p.story.Lines, Line{at.Truncate(time.Millisecond), verb, args})
}

func (p *pen) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.r.Int64N(int64(high-low)+1))
}

// span is a duration as a word.
func (p *pen) span(low, high time.Duration) string {
	return p.between(low, high).Truncate(100 * time.Millisecond).String()
}

func (p *pen) count(low, high int) string { return strconv.Itoa(low + p.r.IntN(high-low+1)) }

func pick[T any](p *pen, all ...T) T { return all[p.r.IntN(len(all))] }

func (p *pen) node() string { return pick(p, p.story.Nodes...) }

// regular does something again and again while there is trouble.
func (p *pen) regular(word string, what choice, do func(time.Duration, string)) {
	every, ok := p.every[word]
	if !ok || len(what) == 0 {
		return
	}
	for at := p.between(every[0], every[1]); at < trouble; at += p.between(every[0], every[1]) {
		do(at, what.draw(p.r))
	}
}

// add writes a new workload.
func (p *pen) add(at time.Duration) {
	p.named++
	s := newSpec(fmt.Sprintf("app%d", p.named))
	s.kind = p.kinds.draw(p.r)
	s.settle = pick(p, 0, 0, 5, 20)
	s.surge, s.away = p.r.IntN(3), p.r.IntN(3)
	switch p.r.IntN(4) {
	case 0:
		s.windows = 1 + p.r.IntN(4)
	case 1:
		s.linux, s.windows = 1+p.r.IntN(5), 1+p.r.IntN(4)
	default:
		s.linux = 1 + p.r.IntN(5)
	}
	s.service = p.r.IntN(3) == 0
	if p.r.IntN(4) == 0 {
		s.app = pick(p, "web", "data")
	}
	if p.r.IntN(4) == 0 {
		s.pdb = 1 + p.r.IntN(2)
	}
	if p.options["classes"] {
		s.prio = pick(p, "", "high", "low")
		s.cpu = pick(p, 100, 400, 1200)
	}
	p.character(s)
	if p.options["claims"] {
		p.store(s)
	}
	p.apps = append(p.apps, s)
	p.line(at, "add", append([]string{s.name}, s.words()...)...)
}

// character is what only its kind has.
func (p *pen) character(s *spec) {
	switch s.kind {
	case "deployment":
		s.recreate = p.r.IntN(6) == 0
		if s.linux > 0 && s.windows > 0 && p.r.IntN(2) == 0 {
			s.order = pick(p, "linux,windows", "windows,linux")
		}
		if p.r.IntN(5) == 0 {
			s.any, s.linux, s.windows = 1+p.r.IntN(5), 0, 0
		}
	case "statefulset":
		s.parallel, s.ondelete = p.r.IntN(4) == 0, p.r.IntN(8) == 0
		s.loss = pick(p, lease.Words()...)
		if p.long && !p.options["fenced"] {
			// Nobody ends its identities while an agent stands still for long.
			s.loss = lease.Wait.String()
		}
		s.away = pick(p, 0, 0, 1, 2)
	case "daemonset":
		s.ondelete = p.r.IntN(8) == 0
		s.surge = pick(p, 0, 0, 1)
	case "job", "cronjob":
		s.linux, s.windows = min(s.linux, 1), min(s.windows, 1)
		if s.linux > 0 {
			s.windows = 0
		}
		s.indexed = p.r.IntN(2) == 0
		s.completions, s.parallelism = 1+p.r.IntN(5), 1+p.r.IntN(3)
		s.fails, s.backoff = pick(p, 0, 20, 50), pick(p, 1, 3, 6)
		s.perindex = pick(p, 0, 0, 2)
		s.ttl, s.deadline = pick(p, 0, 0, 60), pick(p, 0, 0, 300)
		s.runs = pick(p, 5*time.Second, 20*time.Second, 90*time.Second)
		s.every, s.concurrency = 1+p.r.IntN(3), pick(p, "Allow", "Forbid", "Replace")
	case "pod":
		s.linux, s.windows = min(s.linux, 1), min(s.windows, 1)
		if s.linux > 0 {
			s.windows = 0
		}
	}
}

// store gives a workload data of its own.
func (p *pen) store(s *spec) {
	switch s.kind {
	case "statefulset":
		s.claims, s.forget, s.once = pick(p, 0, 1, 1, 2), p.r.IntN(2) == 0, p.r.IntN(4) == 0
	case "deployment":
		if s.claims = p.r.IntN(2); s.claims > 0 && s.linux > 0 {
			s.windows, s.order = 0, "" // the data is on one node, so of one OS
		}
	case "job", "pod":
		s.claims = p.r.IntN(2)
	}
}

// editWords are what an author does to the text.
func editWords() []string {
	return []string{"add", "bump", "break", "mend", "scale", "config", "drop", "rename", "revert", "partition", "pause", "suspend", "move", "policy", "malform", "huge", "twice"}
}

func (p *pen) edit(at time.Duration, word string) {
	if len(p.apps) == 0 || word == "add" {
		if len(p.apps) < p.most {
			p.add(at)
		}
		return
	}
	i := p.r.IntN(len(p.apps))
	s := p.apps[i]
	set := func(words ...string) { p.line(at, "set", append([]string{s.name}, words...)...) }
	switch word {
	case "bump", "break", "mend", "config":
		p.line(at, word, s.name)
	case "malform", "huge":
		p.line(at, word)
	case "drop":
		if len(p.apps) > 1 {
			p.apps = slices.Delete(p.apps, i, i+1)
			p.line(at, word, s.name)
		}
	case "rename":
		p.named++
		name := fmt.Sprintf("app%d", p.named)
		p.line(at, word, s.name, name)
		s.name = name
	case "revert":
		p.line(at, word, s.name, p.count(1, 4))
	case "scale":
		if s.kind == "deployment" || s.kind == "statefulset" {
			set(p.scaled(s)...)
		}
	case "partition":
		if s.kind == "statefulset" {
			set("partition=" + p.count(0, 3))
			p.line(at, "bump", s.name)
		}
	case "pause":
		if s.kind == "deployment" {
			set("paused=" + pick(p, "true", "false", "false"))
		}
	case "suspend":
		if s.kind == "job" || s.kind == "cronjob" {
			set("suspend=" + pick(p, "true", "false", "false"))
		}
	case "move":
		set("app=" + pick(p, "web", "data", ""))
	case "policy":
		set("surge="+p.count(0, 2), "away="+p.count(0, 2), "settle="+pick(p, "0", "10"), "pdb="+p.count(0, 2))
	case "twice": // two commits before the next poll
		p.line(at, "break", s.name)
		p.line(at+p.between(200*time.Millisecond, 2*time.Second), "mend", s.name)
	}
}

func (p *pen) scaled(s *spec) []string {
	var out []string
	counts := []*int{&s.linux, &s.windows, &s.any}
	for i, key := range []string{"linux", "windows", "any"} {
		if *counts[i] > 0 {
			*counts[i] = 1 + p.r.IntN(6)
			out = append(out, fmt.Sprintf("%s=%d", key, *counts[i]))
		}
	}
	return out
}

// peopleWords are what people ask for by hand.
func peopleWords() []string {
	return []string{"delete-pod", "evict", "restart", "cordon", "drain", "drain-slow", "suspend", "approve"}
}

func (p *pen) ask(at time.Duration, word string) {
	if len(p.apps) == 0 {
		return
	}
	app := pick(p, p.apps...).name
	switch word {
	case "delete-pod", "evict":
		p.line(at, word, app, p.count(0, 4))
	case "restart":
		p.line(at, word, app)
	case "cordon", "drain":
		p.line(at, word, p.node(), p.span(10*time.Second, 3*time.Minute))
	case "drain-slow": // the others have to pull first, and are slow about it
		for _, n := range p.story.Nodes {
			p.line(at, "slow-pull", n, p.span(time.Minute, 3*time.Minute))
		}
		p.line(at, "drain", p.node(), p.span(time.Minute, 3*time.Minute))
	case "suspend":
		p.line(at, word, pick(p, "root", "web"), p.span(10*time.Second, 2*time.Minute))
	case "approve":
		p.line(at, word)
	}
}

// faultWords are what breaks: the verbs of what is broken, by their names.
func faultWords() []string {
	var out []string
	for _, some := range []map[string]verb{controllerVerbs(), nodeVerbs(), runtimeVerbs(), sourceVerbs()} {
		out = append(out, sortedKeys(some)...)
	}
	return out
}

// breaks writes a fault, its words drawn by what the verb's usage asks for.
func (p *pen) breaks(at time.Duration, word string) {
	var args []string
	low, high := lengths(word, p.long)
	switch usage := Usage(word); usage {
	case "":
	case "DURATION":
		args = []string{p.span(low, high)}
	case "N":
		args = []string{p.count(1, 500)}
	case "NODE":
		args = []string{p.node()}
	case "NODE N":
		args = []string{p.node(), p.count(1, 6)}
	case "NODE DURATION":
		args = []string{p.node(), p.span(low, high)}
	case "NODE N DURATION":
		args = []string{p.node(), p.count(500, 2000), p.span(low, high)}
	case "NODE VERSION DURATION":
		args = []string{p.node(), pick(p, "10.0.17763.5000", "10.0.26100.1742", "10.0.20348.3000"), p.span(low, high)}
	case "BEFORE|TORN|AFTER DURATION":
		args = []string{pick(p, "BEFORE", "TORN", "AFTER"), p.span(low, high)}
	case "APP":
		if len(p.apps) == 0 {
			return
		}
		args = []string{pick(p, p.apps...).name}
		p.line(at+time.Second, "bump", args[0]) // somebody asks for that image
	}
	if word == "force-push" {
		args = []string{p.count(1, 3)}
	}
	p.line(at, word, args...)
}

// lengths are how long a fault lasts. An agent that is away, or stands still, for
// longer than its lease lets it leaves identities to nobody.
func lengths(word string, long bool) (low, high time.Duration) {
	switch word {
	case "kill-controller", "kill-at-write":
		return 100 * time.Millisecond, 20 * time.Second
	case "clock", "node-clock":
		return -time.Hour, time.Hour
	case "kill-agent":
		if long {
			return 100 * time.Millisecond, 30 * time.Second
		}
		return 100 * time.Millisecond, 3 * time.Second
	case "hang-agent":
		if long {
			return time.Second, 3 * time.Minute
		}
		return time.Second, 3 * time.Second
	case "stall-controller", "usurp":
		return time.Second, 40 * time.Second
	case "reboot":
		return 5 * time.Second, 3 * time.Minute
	case "replace":
		return 4 * time.Minute, 8 * time.Minute
	case "disk-full", "slow-disk":
		return time.Second, time.Minute
	case "cut", "deafen", "mute", "half-open":
		return time.Second, 4 * time.Minute
	}
	return 10 * time.Second, 3 * time.Minute
}
