package sim

import (
	"maps"
	"strconv"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A verb is what a line of a story does.
type verb struct {
	usage string // its words: NODE, APP, N, DURATION, others as they are; … is any number of them
	do    func(*world, args)
}

// args are a line's words; check has seen them.
type args []string

func (a args) duration(i int) time.Duration {
	d, _ := time.ParseDuration(a[i])
	return d
}

func (a args) number(i int) int {
	n, _ := strconv.Atoi(a[i])
	return n
}

// verbs are all there are.
func verbs() map[string]verb {
	all := map[string]verb{}
	for _, some := range []map[string]verb{authorVerbs(), peopleVerbs(), controllerVerbs(), nodeVerbs(), runtimeVerbs(), sourceVerbs()} {
		maps.Copy(all, some)
	}
	all[peace] = verb{"", func(w *world, _ args) { w.heal() }}
	return all
}

// authorVerbs change the text.
func authorVerbs() map[string]verb {
	bump := func(s *spec) { s.version++ }
	return map[string]verb{
		"add":  {"APP KEY=VALUE…", func(w *world, a args) { w.repo.add(a[0], a[1:]) }},
		"set":  {"APP KEY=VALUE…", func(w *world, a args) { w.repo.edit(a[0], func(s *spec) { _ = s.set(a[1:]) }) }}, // check has read them
		"bump": {"APP", func(w *world, a args) { w.repo.edit(a[0], bump) }},
		"break": {"APP", func(w *world, a args) {
			w.repo.edit(a[0], func(s *spec) { s.version++; s.broken = true })
		}},
		"mend": {"APP", func(w *world, a args) {
			w.repo.edit(a[0], func(s *spec) { s.version++; s.broken = false })
		}},
		"config": {"APP", func(w *world, a args) { w.repo.edit(a[0], func(s *spec) { s.config++ }) }},
		"drop":   {"APP", func(w *world, a args) { w.repo.drop(a[0]) }},
		"rename": {"APP NEW", func(w *world, a args) {
			if w.repo.find(a[1]) == nil {
				w.repo.edit(a[0], func(s *spec) { s.name = a[1] })
			}
		}},
		"revert": {"APP N", func(w *world, a args) { w.repo.revert(a[0], a.number(1)) }},
		"huge":   {"", func(w *world, _ args) { w.repo.extra = true; w.repo.edited() }},
		"malform": {"", func(w *world, _ args) {
			w.repo.bad = true
			w.repo.edited()
		}},
	}
}

// peopleVerbs are what somebody asks for by hand.
func peopleVerbs() map[string]verb {
	pod := func(verb state.CommandVerb) func(*world, args) {
		return func(w *world, a args) {
			if w.ctl.machine == nil {
				return
			}
			n := a.number(1)
			for _, p := range w.ctl.machine.State().SortedPods() {
				if p.Workload.Name == a[0] {
					if n--; n < 0 {
						w.command(verb, state.Ref{Kind: "Pod", Namespace: p.Key.Namespace, Name: p.Key.Name})
						return
					}
				}
			}
		}
	}
	return map[string]verb{
		"delete-pod": {"APP N", pod(state.CmdDeletePod)},
		"evict":      {"APP N", pod(state.CmdEvict)},
		"restart": {"APP", func(w *world, a args) {
			if w.ctl.machine == nil {
				return
			}
			for _, wl := range w.ctl.machine.State().SortedWorkloads() {
				if wl.Ref.Name == a[0] {
					w.command(state.CmdRestart, wl.Ref)
				}
			}
		}},
		"cordon": {"NODE DURATION", func(w *world, a args) { w.cordon(a[0], state.CmdCordon, a.duration(1)) }},
		"drain":  {"NODE DURATION", func(w *world, a args) { w.cordon(a[0], state.CmdDrain, a.duration(1)) }},
		"suspend": {"APPLICATION DURATION", func(w *world, a args) {
			ref := state.Ref{Kind: "Application", Name: a[0]}
			w.command(state.CmdSuspend, ref)
			w.after(a.duration(1), func() { w.resume(state.AppName(a[0])) })
		}},
		"approve": {"", func(w *world, _ args) { w.approve() }},
	}
}

// controllerVerbs break the controller, its disk and its clock.
func controllerVerbs() map[string]verb {
	return map[string]verb{
		"kill-controller": {"DURATION", func(w *world, a args) { w.ctl.crash("killed", a.duration(0)) }},
		"kill-at-write": {"BEFORE|TORN|AFTER DURATION", func(w *world, a args) {
			w.ctl.dies, w.ctl.pause = a[0], a.duration(1)
		}},
		"stall-controller": {"DURATION", func(w *world, a args) { w.ctl.stall(a.duration(0)) }},
		"usurp":            {"DURATION", func(w *world, a args) { w.ctl.usurp(a.duration(0)) }},
		"disk-full": {"DURATION", func(w *world, a args) {
			w.logf("the disk is full for %s", a[0])
			w.ctl.full = w.now + a.duration(0)
		}},
		"disk-error": {"", func(w *world, _ args) { w.ctl.errors = true }},
		"slow-disk":  {"DURATION", func(w *world, a args) { w.ctl.slow = w.now + a.duration(0) }},
		"bit-flip":   {"N", func(w *world, a args) { w.ctl.flip(a.number(0)) }},
		"clock": {"DURATION", func(w *world, a args) {
			w.logf("the wall clock steps by %s", a[0])
			w.wall += int64(a.duration(0))
		}},
	}
}

// nodeVerbs break nodes and the network to them.
func nodeVerbs() map[string]verb {
	on := func(do func(*node, args)) func(*world, args) {
		return func(w *world, a args) {
			if n := w.node(state.NodeName(a[0])); n != nil && !n.dead {
				do(n, a)
			}
		}
	}
	part := func(how string) func(*world, args) {
		return on(func(n *node, a args) { n.w.part(n, how, a.duration(1), true) })
	}
	return map[string]verb{
		"kill-agent":  {"NODE DURATION", on(func(n *node, a args) { n.stopAgent(a.duration(1)) })},
		"hang-agent":  {"NODE DURATION", on(func(n *node, a args) { n.hang(a.duration(1)) })},
		"reboot":      {"NODE DURATION", on(func(n *node, a args) { n.reboot(a.duration(1)) })},
		"bury":        {"NODE", on(func(n *node, _ args) { n.w.bury(n) })},
		"replace":     {"NODE DURATION", on(func(n *node, a args) { n.w.exile(n, a.duration(1)) })},
		"node-clock":  {"NODE DURATION", on(func(n *node, a args) { n.wall += int64(a.duration(1)) })},
		"suspend-vm":  {"NODE DURATION", on(func(n *node, a args) { n.freeze(a.duration(1)) })},
		"cut":         {"NODE DURATION", part("cut off")},
		"deafen":      {"NODE DURATION", part("deaf")},
		"mute":        {"NODE DURATION", part("mute")},
		"half-open":   {"NODE DURATION", on(func(n *node, a args) { n.w.part(n, "cut off", a.duration(1), false) })},
		"flap":        {"NODE N", on(func(n *node, a args) { n.flap(a.number(1)) })},
		"jitter":      {"NODE DURATION", on(func(n *node, a args) { n.lag = n.w.now + a.duration(1) })},
		"build":       {"NODE VERSION DURATION", on(func(n *node, a args) { n.rebuild(a[1], a.duration(2)) })},
		"shrink":      {"NODE N DURATION", on(func(n *node, a args) { n.shrink(int64(a.number(1)), a.duration(2)) })},
		"taint":       {"NODE DURATION", on(func(n *node, a args) { n.taint(a.duration(1)) })},
		"cut-windows": {"DURATION", func(w *world, a args) { w.cutAll(state.Windows, a.duration(0)) }},
	}
}

// runtimeVerbs break what runs containers.
func runtimeVerbs() map[string]verb {
	on := func(do func(*node, args)) func(*world, args) {
		return func(w *world, a args) {
			if n := w.node(state.NodeName(a[0])); n != nil && !n.dead && !n.gone {
				do(n, a)
			}
		}
	}
	return map[string]verb{
		"kill-container":    {"NODE N", on(func(n *node, a args) { n.killOne(a.number(1)) })},
		"restart-runtime":   {"NODE", on(func(n *node, _ args) { n.restartRuntime() })},
		"create-hangs":      {"NODE DURATION", on(func(n *node, a args) { n.createHangs = n.w.now + a.duration(1) })},
		"start-dies":        {"NODE N", on(func(n *node, a args) { n.startDies = a.number(1) })},
		"unknown-container": {"NODE", on(func(n *node, _ args) { n.foreign() })},
		"forget-services":   {"NODE", on(func(n *node, _ args) { n.forget() })},
		"probe-hangs":       {"NODE DURATION", on(func(n *node, a args) { n.probesHang = n.w.now + a.duration(1) })},
		"slow-pull":         {"NODE DURATION", on(func(n *node, a args) { n.slowPull = n.w.now + a.duration(1) })},
	}
}

// sourceVerbs break Git and the registry.
func sourceVerbs() map[string]verb {
	odd := func(what string) func(*world, args) {
		return func(w *world, a args) { w.hub.odd[a[0]] = what }
	}
	return map[string]verb{
		"git-down":    {"DURATION", func(w *world, a args) { w.repo.down = w.now + a.duration(0) }},
		"branch-gone": {"DURATION", func(w *world, a args) { w.repo.gone = w.now + a.duration(0) }},
		"force-push":  {"N", func(w *world, a args) { w.repo.rewind(a.number(0)) }},
		"registry-down": {"DURATION", func(w *world, a args) {
			w.logf("the registry is down for %s", a[0])
			w.hub.down = w.now + a.duration(0)
		}},
		"registry-429":     {"DURATION", func(w *world, a args) { w.hub.down = w.now + a.duration(0) }},
		"move-tag":         {"APP", func(w *world, a args) { w.hub.tag[a[0]]++ }},
		"no-os-version":    {"APP", odd("no-os-version")},
		"newer-build":      {"APP", odd("newer-build")},
		"linux-only":       {"APP", odd("linux-only")},
		"wrong-media-type": {"APP", odd("wrong-media-type")},
	}
}

// rateNames are the faults that happen once in so many times.
func rateNames() []string {
	return []string{
		"message-lost", "message-late", "message-twice", "grant-late", "assignment-again", "pull-fails", "run-fails", "container-dies", "app-flaps",
		"lookup-fails", "write-slow", "write-fails", "crash-after-write",
	}
}
