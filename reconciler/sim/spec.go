package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/lease"
)

// A spec is a workload as its author thinks of it; objects.go writes it as
// Kubernetes's types.
type spec struct {
	name    string
	kind    string // a word of kindWords
	app     string // the Application; empty: root
	version int
	config  int
	broken  bool // never ready; a Job: every run fails

	linux, windows, any int // replicas, or any number where the OS takes part

	parallel, ondelete, recreate, paused, indexed, suspend, service, forget, once bool // forget: claims go with what is scaled down or deleted; once: they are for one pod at a time

	partition, surge, away, settle int // settle: minReadySeconds
	order, loss, prio              string
	pdb, cpu, claims               int // claims: volumes of each pod

	completions, parallelism, fails, backoff, perindex, ttl, deadline int // fails: of a hundred
	runs                                                              time.Duration
	every                                                             int // minutes between a CronJob's times
	concurrency                                                       string
}

// kindWords are the kinds that an author writes.
func kindWords() []string {
	return []string{"deployment", "statefulset", "daemonset", "job", "cronjob", "pod"}
}

func newSpec(name string) *spec {
	return &spec{name: name, kind: "deployment", version: 1, cpu: 100, runs: 20 * time.Second, completions: 1, parallelism: 1, backoff: 6, every: 1, loss: lease.Failover.String()}
}

// field is one word of "set": how it is read and written.
type field struct {
	key string
	ptr any
}

func (s *spec) fields() []field {
	return []field{
		{"linux", &s.linux},
		{"windows", &s.windows},
		{"any", &s.any},
		{"app", &s.app},
		{"parallel", &s.parallel},
		{"ondelete", &s.ondelete},
		{"recreate", &s.recreate},
		{"paused", &s.paused},
		{"indexed", &s.indexed},
		{"suspend", &s.suspend},
		{"service", &s.service},
		{"partition", &s.partition},
		{"surge", &s.surge},
		{"away", &s.away},
		{"settle", &s.settle},
		{"order", &s.order},
		{"loss", &s.loss},
		{"prio", &s.prio},
		{"pdb", &s.pdb},
		{"claims", &s.claims},
		{"forget", &s.forget},
		{"once", &s.once},
		{"cpu", &s.cpu},
		{"completions", &s.completions},
		{"parallelism", &s.parallelism},
		{"fails", &s.fails},
		{"backoff", &s.backoff},
		{"perindex", &s.perindex},
		{"ttl", &s.ttl},
		{"deadline", &s.deadline},
		{"runs", &s.runs},
		{"every", &s.every},
		{"concurrency", &s.concurrency},
		{"broken", &s.broken},
		{"version", &s.version},
	}
}

// set takes words like "linux=3", "parallel=true" and a kind.
func (s *spec) set(words []string) error {
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			if !slices.Contains(kindWords(), w) {
				return fmt.Errorf("%q is no kind; kinds: %s", w, strings.Join(kindWords(), ", "))
			}
			s.kind = w
			continue
		}
		if err := s.setOne(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (s *spec) setOne(key, value string) error {
	all := s.fields()
	i := slices.IndexFunc(all, func(f field) bool { return f.key == key })
	if i < 0 {
		return fmt.Errorf("a workload has no %q", key)
	}
	var err error
	switch p := all[i].ptr.(type) {
	case *int:
		*p, err = strconv.Atoi(value)
	case *bool:
		*p, err = strconv.ParseBool(value)
	case *string:
		*p = value
	case *time.Duration:
		*p, err = time.ParseDuration(value)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// words are what set takes to make this spec from a new one.
func (s *spec) words() []string {
	out := []string{s.kind}
	fresh := newSpec(s.name).fields()
	for i, f := range s.fields() {
		now, before := written(f.ptr), written(fresh[i].ptr)
		if now != before {
			out = append(out, f.key+"="+now)
		}
	}
	return out
}

func written(ptr any) string {
	switch p := ptr.(type) {
	case *int:
		return strconv.Itoa(*p)
	case *bool:
		return strconv.FormatBool(*p)
	case *string:
		return *p
	case *time.Duration:
		return p.String()
	}
	return ""
}

func (s *spec) clone() *spec {
	c := *s
	return &c
}

// calm makes a workload one that can come to rest: the author's last commit.
func (s *spec) calm() {
	// A Job that failed, for whatever reason, runs again with another text alone.
	if s.broken || s.kind == "job" || s.kind == "cronjob" {
		s.version++
	}
	s.broken, s.paused, s.ondelete, s.partition, s.fails, s.deadline, s.ttl, s.cpu = false, false, false, 0, 0, 0, 0, 100
	s.suspend = s.kind == "cronjob"
	s.pdb = min(s.pdb, 1)
}
