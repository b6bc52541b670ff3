package network_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A firewall that is loaded anew takes everybody's rules away, and a person can
// take away or add one: the kernel says so, and the table becomes what it was
// (kubernetes#110674 is this on Windows).
func TestRulesChangedBySomebodyElse(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, harm := range map[string]string{
		"everything":        "flush ruleset",
		"the table":         "delete table ip tandem-a",
		"all rules":         "flush table ip tandem-a",
		"a Service's chain": "flush chain ip tandem-a SERVICE",
		"a base chain":      "flush chain ip tandem-a arriving",
		"a rule too many":   "insert rule ip tandem-a find ip daddr " + webIP + " drop",
		"a chain too many":  "add chain ip tandem-a other; add rule ip tandem-a other drop",
		"another endpoint":  "flush chain ip tandem-a SERVICE; add rule ip tandem-a SERVICE meta l4proto tcp dnat ip to 10.88.0.77:1",
		"all Services":      "flush map ip tandem-a services",
		"one Service":       "delete element ip tandem-a services { " + webIP + " . tcp . 80 }",
		"one node port":     "delete element ip tandem-a node-ports { tcp . 30080 }",
		"a host port":       "add element ip tandem-a host-ports { tcp . 99 : 10.88.0.2 . 99 }",
		"a pod from itself": "delete element ip tandem-a itself { 10.88.0.3 . 10.88.0.3 }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newNode(t, "a", "")
			p1, p2 := a.pod(t, "p1", "10.88.0.2"), a.pod(t, "p2", "10.88.0.3")
			a.tell(t, world(1, service("web", webIP, tcp(80, 30080), p2.endpoint(8080))))
			p1.everyone(t, webIP+":80", "p2")
			good := a.run(t, "nft", "list", "ruleset")
			chain := regexp.MustCompile(`svc-[0-9a-f]+`).FindString(good)
			if said := a.run(t, "nft", strings.ReplaceAll(harm, "SERVICE", chain)); said != "" {
				t.Fatal(said)
			}
			a.becomes(t, good)
			p1.everyone(t, webIP+":80", "p2")
			// What comes later is programmed upon what was made anew.
			a.tell(t, world(2, service("web", webIP, tcp(80, 30080), p1.endpoint(8080))))
			p2.everyone(t, webIP+":80", "p1")
		})
	}
}

// becomes waits until the node's table is listed so.
func (n *testNode) becomes(t *testing.T, want string) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		now := n.run(t, "nft", "list", "ruleset")
		if now == want {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("the table is\n%s\nwant\n%s", now, want)
		}
	}
}

// Other tables are nobody's business here: when they change, nothing of the node's
// is written.
func TestOthersRulesChange(t *testing.T) {
	t.Parallel()
	needRoot(t)
	a := &testNode{space: newSpace(t), name: "a", id: "a", look: 5 * time.Millisecond}
	a.start(t, t.TempDir(), "")
	p1 := a.pod(t, "p1", "10.88.0.2")
	web := func(seq state.Seq) { a.tell(t, world(seq, service("web", webIP, tcp(80, 0), p1.endpoint(8080)))) }
	web(1)
	before := a.rules(t)
	for range 20 {
		a.run(t, "nft", "add table ip other; add chain ip other c; add rule ip other c drop")
		a.run(t, "nft", "delete table ip other")
	}
	web(2)
	for rule := range a.rules(t) {
		if !before[rule] {
			t.Errorf("was written again: %s", rule)
		}
	}
}
