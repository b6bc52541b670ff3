package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// answer ends a call of the runtime.
type answer func(class step.Class, text, ip string)

// act does an action, some time later; the answer is void for another process.
func (n *node) act(a step.Action) {
	w := n.w
	life := n.life
	done := func(class step.Class, text, ip string) {
		if n.life == life {
			n.drive(&step.Done{ID: a.ID, UID: a.UID, Class: class, Text: text, IP: ip})
		}
	}
	switch a.Do {
	case step.Pull:
		n.pull(a, done)
	case step.Prepare:
		n.call(done, n.dice.between(time.Millisecond, 5*time.Millisecond), func() {
			n.mounts[a.UID] = true
			for _, v := range a.Volumes {
				n.makeVolume(v)
			}
			done(step.OK, "", "")
		})
	case step.MakeSandbox:
		n.call(done, n.dice.between(time.Millisecond, 50*time.Millisecond), func() {
			if _, ok := n.sandboxes[a.UID]; !ok {
				n.address++
				n.sandboxes[a.UID] = step.Sandbox{UID: a.UID, Key: a.Pod.Key, IP: fmt.Sprintf("10.88.%d.%d", n.address/250, n.address%250+2)}
			}
			done(step.OK, "", n.sandboxes[a.UID].IP)
		})
	case step.Run:
		n.start(a, done)
	case step.Stop:
		w.mayStop(n, &a)
		n.call(done, n.dice.between(time.Millisecond, min(a.Grace, 3*time.Second)+time.Millisecond), func() {
			n.end(ckey{a.UID, a.Container}, 143)
			done(step.OK, "", "")
		})
	case step.Remove:
		n.call(done, n.dice.between(time.Millisecond, 200*time.Millisecond), func() {
			delete(n.sandboxes, a.UID)
			delete(n.mounts, a.UID)
			maps.DeleteFunc(n.containers, func(k ckey, _ *container) bool { return k.uid == a.UID })
			done(step.OK, "", "")
		})
	case step.DropVolume:
		n.call(done, n.dice.between(time.Millisecond, 200*time.Millisecond), func() {
			if n.dice.chance("run-fails") {
				done(step.Unavailable, "the disk does not answer", "")
				return
			}
			n.deleteVolume(a.UID)
			done(step.OK, "", "")
		})
	case step.StartProbe:
		n.probe(ckey{a.UID, a.Container}, a, life)
	case step.Cancel, step.StopProbe:
	}
}

// call is a call of the runtime: it fails when the runtime restarts meanwhile.
func (n *node) call(done answer, took time.Duration, do func()) {
	n.calls++
	id, boot := n.calls, n.boot
	if n.flying == nil {
		n.flying = map[uint64]func(){}
	}
	n.flying[id] = func() { done(step.Unavailable, "the runtime went away", "") }
	n.w.after(took, func() {
		if n.boot != boot || n.flying[id] == nil {
			return
		}
		if n.frozen { // nothing on this machine goes on
			n.w.after(time.Second, func() { n.resumed(boot, id, do) })
			return
		}
		delete(n.flying, id)
		do()
	})
}

// resumed goes on with a call once the machine does.
func (n *node) resumed(boot int, id uint64, do func()) {
	switch {
	case n.boot != boot || n.flying[id] == nil:
	case n.frozen:
		n.w.after(time.Second, func() { n.resumed(boot, id, do) })
	default:
		delete(n.flying, id)
		do()
	}
}

// pull brings an image: the one that the node can run best, and once.
func (n *node) pull(a step.Action, done answer) {
	w := n.w
	took := n.dice.between(time.Millisecond, 3*time.Second)
	if w.now < n.slowPull {
		took = n.dice.between(30*time.Second, 3*time.Minute)
	}
	w.obeyPull(n, &a)
	digest, ok := step.ImageDigest(a.Pod, a.Image, &n.facts)
	if !ok {
		n.call(done, time.Millisecond, func() { done(step.Unsupported, "the image has nothing for this machine", "") })
		return
	}
	key := pullKey{n.life, digest}
	if n.pulling[key] {
		w.fail("pulls", "%s pulls %s again while it is on its way", n.name, a.Image)
	}
	n.pulling[key] = true
	ended := func(class step.Class, text, ip string) {
		delete(n.pulling, key)
		done(class, text, ip)
	}
	n.call(ended, took, func() {
		if w.now < w.hub.down || n.dice.chance("pull-fails") {
			ended(step.Unavailable, "the registry does not answer", "")
			return
		}
		ended(step.OK, "", "")
	})
}

// obeyPull: what a node pulls is of its own OS and, of what its build runs, the
// newest.
func (w *world) obeyPull(n *node, a *step.Action) {
	meaning := step.ImageDigest
	if w.opts.Image != nil {
		meaning = w.opts.Image
	}
	im, _ := a.Pod.Template.Image(a.Image)
	got, _ := meaning(a.Pod, a.Image, &n.facts)
	var pulled, best *state.Platform
	for i := range im.Platforms {
		p := &im.Platforms[i]
		if p.Digest == got {
			pulled = p
		}
		fits := p.OS == n.facts.OS && (p.OSVersion == "" || runs(n.facts.OSVersion, p.OSVersion))
		if fits && (best == nil || newer(p.OSVersion, best.OSVersion)) {
			best = p
		}
	}
	if best != nil && pulled != nil && pulled != best {
		w.fail("pulls", "%s (%s %s) pulls another manifest of %s than %s, which it can run", n.name, n.facts.OS, n.facts.OSVersion, a.Image, best.OSVersion)
	}
}

// newer says whether a Windows version is a later one than another.
func newer(a, b string) bool {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		m, _ := strconv.Atoi(x)
		n, _ := strconv.Atoi(y)
		return m - n
	}) > 0
}

// start is a call that begins a container. One that times out may have begun it
// all the same.
func (n *node) start(a step.Action, done answer) {
	if n.w.now < n.createHangs {
		boot := n.boot
		begins := n.dice.rng.IntN(2) == 0
		n.w.after(n.dice.between(time.Second, 3*time.Minute), func() {
			if n.boot == boot && begins && !n.frozen {
				n.runContainer(a, func(step.Class, string, string) {})
			}
		})
		n.call(done, 4*time.Minute, func() { done(step.Unavailable, "the runtime did not answer for 4 minutes", "") })
		return
	}
	n.call(done, n.dice.between(5*time.Millisecond, 500*time.Millisecond), func() { n.runContainer(a, done) })
}

func (n *node) runContainer(a step.Action, done answer) {
	w, k := n.w, ckey{a.UID, a.Container}
	if _, ok := n.sandboxes[a.UID]; !ok {
		done(step.NotFound, "no sandbox", "")
		return
	}
	if old := n.containers[k]; old != nil {
		if old.Attempt >= a.Attempt {
			done(step.OK, "", "")
			return
		}
		if old.Running && !old.stopped {
			w.fail("I8", "%s restarts container %s of %s, which runs", n.name, a.Container, a.Pod.Key)
		}
	}
	if n.guard != nil && n.guard.shut[a.UID] {
		done(step.Unavailable, "its cell is shut", "")
		return
	}
	if !suits(&n.facts, a.Pod.Template) {
		done(step.Unsupported, "the image is of another build", "")
		return
	}
	if n.dice.chance("run-fails") {
		done(step.Unavailable, "the runtime does not answer", "")
		return
	}
	c := &container{pod: a.Pod, Container: step.Container{UID: a.UID, Name: a.Container, Attempt: a.Attempt, Running: true, Started: w.wall + n.wall + int64(w.now)}}
	n.containers[k] = c
	w.logf("%s: runs %s/%s attempt %d", n.name, a.Pod.Key, a.Container, a.Attempt)
	w.alone(a.Pod)
	w.sole(n, a.Pod)
	life := n.life
	done(step.OK, "", "")
	if n.life == life && n.machine != nil {
		n.drive(&step.Observed{Containers: []step.Container{c.Container}})
	}
	n.lives(k, c)
}

// lives ends a container that ends by itself.
func (n *node) lives(k ckey, c *container) {
	b := behaviour(c.pod.Template)
	ends := func(after time.Duration, code int32, why string) {
		n.w.after(after, func() {
			if n.containers[k] == c && c.Running {
				n.w.logf("%s: %s/%s %s", n.name, c.pod.Key, k.name, why)
				n.end(k, code)
			}
		})
	}
	switch {
	case n.startDies > 0:
		n.startDies--
		ends(10*time.Millisecond, 1, "dies as soon as it has started")
	case b.runs > 0:
		code := int32(0)
		if b.broken || n.dice.rng.IntN(100) < b.fails {
			code = 1
		}
		ends(n.dice.between(b.runs/2, b.runs*3/2), code, fmt.Sprintf("ends with %d", code))
	case n.dice.chance("container-dies"):
		ends(n.dice.between(time.Second, 4*time.Minute), 1, "dies")
	}
}

// end ends a container, by itself or because it was told to.
func (n *node) end(k ckey, code int32) {
	c := n.containers[k]
	if c == nil || !c.Running {
		return
	}
	c.Running, c.ExitCode, c.Finished, c.stopped = false, code, n.w.wall+n.wall+int64(n.w.now), true
	n.drive(&step.Observed{Containers: []step.Container{c.Container}})
}

// probe answers as the container's template says: a broken one is never ready.
func (n *node) probe(k ckey, a step.Action, life int) {
	w, c := n.w, n.containers[k]
	if c == nil || !c.Running {
		return
	}
	broken := behaviour(c.pod.Template).broken
	took := n.dice.between(10*time.Millisecond, 4*time.Second) + max(0, n.probesHang-w.now)
	w.after(took, func() {
		if n.life != life || n.containers[k] != c || !c.Running {
			return
		}
		n.drive(&step.Probed{UID: k.uid, Container: k.name, Attempt: c.Attempt, Probe: a.Probe, OK: !broken, Times: 3})
	})
	if n.dice.chance("app-flaps") {
		for i := range 30 {
			w.after(time.Duration(i)*2*time.Second+5*time.Second, func() {
				if n.life == life && n.containers[k] == c && c.Running && !broken {
					n.drive(&step.Probed{UID: k.uid, Container: k.name, Attempt: c.Attempt, Probe: a.Probe, OK: i%2 == 1, Times: 3})
				}
			})
		}
	}
}

// mayStop is the law I8: a container is stopped because the assignment says so,
// because nobody assigned it, or because the node's lease has run out; never
// because an agent or a controller began anew.
func (w *world) mayStop(n *node, a *step.Action) {
	c := n.containers[ckey{a.UID, a.Container}]
	applied := n.machine.Applied()
	if c == nil || !c.Running || applied == nil {
		return
	}
	for _, p := range applied.Pods {
		if p.UID != a.UID || p.Stop || c.condemned {
			continue
		}
		if terms := p.Loss.Terms(); terms.Length == 0 || n.clock() < n.leased[p.Loss]+terms.Length-terms.Kill {
			w.fail("I8", "%s stops %s of %s, which nobody told it to", n.name, a.Container, p.Key)
		}
	}
	c.condemned = true
}

// suits says whether a node can run what a pod's images are: one for its OS and,
// on Windows, of its own build or an older one of the same kind.
func suits(facts *state.NodeFacts, t *state.Template) bool {
	for i := range t.Images {
		im := &t.Images[i]
		fits := false
		for _, p := range im.Platforms {
			fits = fits || p.OS == facts.OS && (p.OSVersion == "" || runs(facts.OSVersion, p.OSVersion))
		}
		if im.Assumed || !fits {
			return false
		}
	}
	return true
}

// runs says whether a Windows host runs an image by process isolation: the same
// build, or a newer host since Server 2022.
func runs(host, image string) bool {
	const length = len("10.0.20348")
	h, i := host[:length], image[:length]
	return h == i || i >= "10.0.20348" && h > i
}
