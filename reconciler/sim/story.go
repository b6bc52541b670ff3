package sim

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Story is all that comes to a world from outside: what authors commit, what
// people ask for and what breaks. With its seed it is the whole world, and its
// text can be read, edited and lived through again.
//
//	seed 4711
//	nodes linux-1 linux-2 windows-1
//	rate message-lost 150
//	0s add app1 statefulset linux=3
//	1m3s reboot linux-2 40s
//	2m0s peace
type Story struct {
	Seed  uint64 // of the small things: how long each takes, and which of the rates' faults happen
	Nodes []string
	Rates map[string]int // a fault that happens once in so many times
	Lines []Line         // sorted by At; the last is peace
}

// A Line is one thing that happens.
type Line struct {
	At   time.Duration
	Verb string
	Args []string
}

// String is the line as it is written.
func (l Line) String() string {
	return strings.TrimRight(fmt.Sprintf("%s %s %s", l.At, l.Verb, strings.Join(l.Args, " ")), " ")
}

// peace is the verb that ends all trouble.
const peace = "peace"

// String is the story as it is written.
func (s *Story) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\nnodes %s\n", s.Seed, strings.Join(s.Nodes, " "))
	for _, name := range rateNames() {
		if n := s.Rates[name]; n > 0 {
			fmt.Fprintf(&b, "rate %s %d\n", name, n)
		}
	}
	for _, l := range s.Lines {
		b.WriteString(l.String() + "\n")
	}
	return b.String()
}

// ParseStory reads a story.
func ParseStory(text string) (*Story, error) {
	s := &Story{Rates: map[string]int{}}
	n := 0
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		n++
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if err := s.read(words); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", n, strings.TrimSpace(line), err)
		}
	}
	slices.SortStableFunc(s.Lines, func(a, b Line) int { return int(a.At - b.At) })
	switch {
	case len(s.Nodes) == 0:
		return nil, fmt.Errorf(`a story has a line "nodes linux-1 …"`)
	case len(s.Lines) == 0 || s.Lines[len(s.Lines)-1].Verb != peace:
		return nil, fmt.Errorf(`a story ends with "peace": "10m %s"`, peace)
	}
	return s, nil
}

func (s *Story) read(words []string) error {
	switch words[0] {
	case "seed":
		if len(words) != 2 {
			return fmt.Errorf("want: seed NUMBER")
		}
		n, err := strconv.ParseUint(words[1], 10, 64)
		s.Seed = n
		return err
	case "nodes":
		for _, name := range words[1:] {
			if !strings.HasPrefix(name, "linux-") && !strings.HasPrefix(name, "windows-") {
				return fmt.Errorf("a node is called linux-N or windows-N")
			}
		}
		s.Nodes = words[1:]
		return nil
	case "rate":
		return readRate(s.Rates, words[1:])
	}
	at, err := time.ParseDuration(words[0])
	if err != nil || len(words) < 2 {
		return fmt.Errorf("want: TIME VERB …, as in 1m3s reboot linux-2 40s")
	}
	l := Line{At: at, Verb: words[1], Args: words[2:]}
	if err := l.check(); err != nil {
		return err
	}
	s.Lines = append(s.Lines, l)
	return nil
}

// readRate reads "message-lost 150".
func readRate(into map[string]int, words []string) error {
	if len(words) != 2 || !slices.Contains(rateNames(), words[0]) {
		return fmt.Errorf("want: rate NAME N; names: %s", strings.Join(rateNames(), ", "))
	}
	n, err := strconv.Atoi(words[1])
	if err != nil || n < 0 {
		return fmt.Errorf("once in how many times? want a whole number")
	}
	into[words[0]] = n
	return nil
}

// check says whether the verb is known and has the words that it needs.
func (l Line) check() error {
	v, ok := verbs()[l.Verb]
	if !ok {
		return fmt.Errorf("no verb %q; verbs: %s", l.Verb, strings.Join(Verbs(), ", "))
	}
	need := strings.Fields(v.usage)
	least := len(need)
	more := least > 0 && strings.HasSuffix(need[least-1], "…")
	if more {
		least--
	}
	if len(l.Args) < least || !more && len(l.Args) > least {
		return fmt.Errorf("want: %s %s", l.Verb, v.usage)
	}
	for i := range least {
		switch need[i] {
		case "DURATION":
			if _, err := time.ParseDuration(l.Args[i]); err != nil {
				return fmt.Errorf("%s: %q is no duration", l.Verb, l.Args[i])
			}
		case "N":
			if _, err := strconv.Atoi(l.Args[i]); err != nil {
				return fmt.Errorf("%s: %q is no number", l.Verb, l.Args[i])
			}
		}
	}
	if l.Verb == "add" || l.Verb == "set" {
		s := newSpec(l.Args[0])
		return s.set(l.Args[1:])
	}
	return nil
}

// Verbs are the words that a line may begin with after its time.
func Verbs() []string { return sortedKeys(verbs()) }

// Usage is what follows a verb.
func Usage(verb string) string { return verbs()[verb].usage }
