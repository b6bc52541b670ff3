package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Shrink makes a failing story short: lines, nodes, rates and words are left out
// as long as the same law breaks (delta debugging: Zeller, 1999). Of what is
// left, nothing can go alone.
func Shrink(opts Options, failed Result) *Story {
	s := &shrinker{opts: opts, law: failed.Law, best: failed.Story, left: shrinkRuns}
	s.opts.Trace, s.opts.Seed = nil, failed.Seed
	s.early()
	for range 6 {
		before := s.best.String()
		s.rates()
		s.lines()
		s.nodes()
		s.words()
		s.early()
		if s.best.String() == before {
			break
		}
	}
	return s.best
}

// shrinkRuns bounds how many worlds are lived through for one story.
const shrinkRuns = 2000

type shrinker struct {
	opts Options
	law  string
	best *Story
	left int
}

// fails says whether a story breaks the law; then it is the best so far.
func (s *shrinker) fails(story *Story) bool {
	if s.left == 0 {
		return false
	}
	s.left--
	o := s.opts
	o.Story = story
	r, ok := guarded(o)
	if ok && (r.Err == nil || r.Law != s.law) {
		return false
	}
	if !ok && s.law != "" {
		return false
	}
	s.best = story
	return true
}

// guarded is Run, and whether it came to its end: a machine whose own invariant
// breaks panics.
func guarded(o Options) (r Result, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			r, ok = Result{Err: fmt.Errorf("panic: %v", p)}, false
		}
	}()
	return Run(o), true
}

func (s *shrinker) with(edit func(*Story)) bool {
	c := &Story{Seed: s.best.Seed, Nodes: slices.Clone(s.best.Nodes), Rates: maps.Clone(s.best.Rates), Lines: slices.Clone(s.best.Lines)}
	edit(c)
	return s.fails(c)
}

// early lets peace come as soon as the last thing has happened.
func (s *shrinker) early() {
	last := len(s.best.Lines) - 1
	for _, d := range []time.Duration{0, 10 * time.Second, time.Minute, 3 * time.Minute} {
		at := d
		if last > 0 {
			at += s.best.Lines[last-1].At
		}
		if at < s.best.Lines[last].At && s.with(func(c *Story) { c.Lines[last].At = at.Round(time.Second) + time.Second }) {
			return
		}
	}
}

func (s *shrinker) rates() {
	if len(s.best.Rates) > 0 && s.with(func(c *Story) { c.Rates = map[string]int{} }) {
		return
	}
	for _, name := range sortedKeys(s.best.Rates) {
		s.with(func(c *Story) { delete(c.Rates, name) })
	}
}

// lines leaves out runs of lines, half of them first, then ever shorter ones.
func (s *shrinker) lines() {
	for size := max(1, (len(s.best.Lines)-1)/2); size > 0; size /= 2 {
		for at := 0; at < len(s.best.Lines)-1; {
			end := min(at+size, len(s.best.Lines)-1)
			if !s.with(func(c *Story) { c.Lines = slices.Delete(c.Lines, at, end) }) {
				at += size
			}
		}
	}
}

func (s *shrinker) nodes() {
	for i := len(s.best.Nodes) - 1; i >= 0 && len(s.best.Nodes) > 1; i-- {
		name := s.best.Nodes[i]
		os, _, _ := strings.Cut(name, "-")
		if !slices.ContainsFunc(s.best.Nodes, func(o string) bool { return o != name && strings.HasPrefix(o, os) }) {
			continue // without its last node an OS's pods wait in any world
		}
		s.with(func(c *Story) {
			c.Nodes = slices.Delete(c.Nodes, i, i+1)
			c.Lines = slices.DeleteFunc(c.Lines, func(l Line) bool { return len(l.Args) > 0 && l.Args[0] == name })
		})
	}
}

// words leaves out what is said of a workload, and makes numbers and times
// smaller and rounder.
func (s *shrinker) words() {
	for i := range s.best.Lines {
		for j := len(s.best.Lines[i].Args) - 1; j > 0; j-- {
			l := s.best.Lines[i]
			if l.Verb == "add" && j > 1 || l.Verb == "set" && len(l.Args) > 2 {
				if s.args(i, slices.Delete(slices.Clone(l.Args), j, j+1)) {
					continue
				}
			}
			s.smaller(i, j)
		}
		at := s.best.Lines[i].At
		for _, unit := range []time.Duration{time.Minute, 10 * time.Second, time.Second} {
			if round := at.Round(unit); round != at && s.retimed(i, round) {
				break
			}
		}
	}
}

func (s *shrinker) args(i int, args []string) bool {
	return s.with(func(c *Story) { c.Lines[i].Args = args })
}

// retimed moves a line, and keeps the order of all.
func (s *shrinker) retimed(i int, at time.Duration) bool {
	if i > 0 && at < s.best.Lines[i-1].At || i+1 < len(s.best.Lines) && at > s.best.Lines[i+1].At {
		return false
	}
	return s.with(func(c *Story) { c.Lines[i].At = at })
}

// smaller halves a number, or rounds a duration.
func (s *shrinker) smaller(i, j int) {
	for {
		word := s.best.Lines[i].Args[j]
		key, value := cutWord(word)
		next := ""
		if n, err := strconv.Atoi(value); err == nil && n > 1 {
			next = strconv.Itoa(n / 2)
		} else if d, err := time.ParseDuration(value); err == nil && d.Round(time.Second) != d {
			next = d.Round(time.Second).String()
		}
		args := slices.Clone(s.best.Lines[i].Args)
		args[j] = key + next
		if next == "" || !s.args(i, args) {
			return
		}
	}
}

// cutWord parts "linux=3" into "linux=" and "3".
func cutWord(word string) (key, value string) {
	for i := range word {
		if word[i] == '=' {
			return word[:i+1], word[i+1:]
		}
	}
	return "", word
}
