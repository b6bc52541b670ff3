package sim

import (
	"bufio"
	"cmp"
	"embed"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Scenario is the name of a file of scenarios/: it says which authors there
// are and what breaks. With a seed it becomes a Story.
type Scenario string

// The scenarios that tests name.
const (
	Calm      Scenario = "calm"
	Faults    Scenario = "faults"
	Partition Scenario = "partition"
)

//go:embed scenarios/*.scenario
var files embed.FS

// Scenarios are all of them.
func Scenarios() []Scenario {
	entries, err := files.ReadDir("scenarios")
	if err != nil {
		panic(err) // it is compiled in
	}
	var out []Scenario
	for _, e := range entries {
		out = append(out, Scenario(strings.TrimSuffix(e.Name(), ".scenario")))
	}
	return out
}

// Text is the scenario's file.
func (s Scenario) Text() (string, error) {
	raw, err := files.ReadFile(path.Join("scenarios", string(s)+".scenario"))
	if err != nil {
		var names []string
		for _, n := range Scenarios() {
			names = append(names, string(n))
		}
		return "", fmt.Errorf("there is no scenario %q; there are %s", s, strings.Join(names, ", "))
	}
	return string(raw), nil
}

// Cast is a scenario as read: who acts, how often, and what breaks.
type Cast struct {
	nodes   [2]int
	most    int // workloads
	kinds   choice
	edits   choice
	people  choice
	faults  choice
	every   map[string][2]time.Duration // commit, people, faults
	options map[string]bool
	rates   map[string]int
}

// choice draws a word by weight.
type choice []struct {
	word   string
	weight int
}

func (c choice) draw(r *rand.Rand) string {
	sum := 0
	for _, o := range c {
		sum += o.weight
	}
	if sum == 0 {
		return ""
	}
	n := r.IntN(sum)
	for _, o := range c {
		if n -= o.weight; n < 0 {
			return o.word
		}
	}
	return ""
}

// ParseScenario reads a scenario:
//
//	nodes 3 6                       how many, of both OSes
//	workloads deployment 3 job 1    which kinds, by weight
//	commit 5s 90s bump 4 scale 1    how often, and which edits
//	people 20s 3m restart 1         how often, and what they ask for
//	faults 5s 60s reboot 1          how often, and what breaks
//	rate message-lost 150           what breaks once in so many times
//	with short-hangs                options
func ParseScenario(text string) (*Cast, error) {
	c := &Cast{nodes: [2]int{3, 6}, most: 6, every: map[string][2]time.Duration{}, options: map[string]bool{}, rates: map[string]int{}}
	n := 0
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		n++
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if err := c.read(words[0], words[1:]); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", n, strings.TrimSpace(line), err)
		}
	}
	if len(c.kinds) == 0 {
		return nil, fmt.Errorf(`a scenario has a line "workloads KIND WEIGHT …"`)
	}
	return c, nil
}

func (c *Cast) read(word string, rest []string) error {
	var err error
	switch word {
	case "nodes":
		if len(rest) != 2 {
			return fmt.Errorf("want: nodes LEAST MOST")
		}
		for i := range c.nodes {
			if c.nodes[i], err = strconv.Atoi(rest[i]); err != nil {
				return err
			}
		}
	case "most":
		if len(rest) != 1 {
			return fmt.Errorf("want: most WORKLOADS")
		}
		c.most, err = strconv.Atoi(rest[0])
	case "workloads":
		c.kinds, err = weighed(rest, kindWords())
	case "commit":
		c.edits, err = c.often(word, rest, editWords())
	case "people":
		c.people, err = c.often(word, rest, peopleWords())
	case "faults":
		c.faults, err = c.often(word, rest, faultWords())
	case "rate":
		err = readRate(c.rates, rest)
	case "with":
		for _, o := range rest {
			if !slices.Contains(optionWords(), o) {
				return fmt.Errorf("want: with %s", strings.Join(optionWords(), " "))
			}
			c.options[o] = true
		}
	default:
		return fmt.Errorf("want nodes, most, workloads, commit, people, faults, rate or with")
	}
	return err
}

// optionWords are what "with" may name.
func optionWords() []string {
	return []string{"classes", "claims", "fenced", "short-hangs", "long-hangs"}
}

func (c *Cast) often(word string, rest, known []string) (choice, error) {
	if len(rest) < 4 {
		return nil, fmt.Errorf("want: %s LEAST MOST WHAT WEIGHT …", word)
	}
	low, err := time.ParseDuration(rest[0])
	high, err2 := time.ParseDuration(rest[1])
	if err != nil || err2 != nil || low > high || low <= 0 {
		return nil, fmt.Errorf("want two durations, the shorter one first")
	}
	c.every[word] = [2]time.Duration{low, high}
	return weighed(rest[2:], known)
}

func weighed(words, known []string) (choice, error) {
	var out choice
	for i := 0; i+1 < len(words); i += 2 {
		n, err := strconv.Atoi(words[i+1])
		if err != nil || n < 0 || !slices.Contains(known, words[i]) {
			return nil, fmt.Errorf("%q %q: want a word and its weight; words: %s", words[i], words[i+1], strings.Join(known, ", "))
		}
		out = append(out, struct {
			word   string
			weight int
		}{words[i], n})
	}
	if len(words)%2 == 1 {
		return nil, fmt.Errorf("%q has no weight", words[len(words)-1])
	}
	return out, nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
