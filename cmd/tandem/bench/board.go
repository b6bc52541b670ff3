package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"
)

// board prints figures as they come.
type board struct {
	floors        map[string]float64
	lines, missed int
	apps          int    // of mono-large
	heap          string // file for what it holds in memory; empty: none
}

// atMost prints a figure that should be no more than its goal; 0: none is set.
func (b *board) atMost(name string, value float64, unit string, goal float64) {
	b.print(name, value, unit, goal, "≤", value <= goal)
}

// atLeast prints a figure that should be no less than its goal.
func (b *board) atLeast(name string, value float64, unit string, goal float64) {
	b.print(name, value, unit, goal, "≥", value >= goal)
}

// none prints a count of what must not be.
func (b *board) none(name string, count int64) {
	b.lines++
	verdict := "met"
	if count != 0 {
		verdict = "missed"
		b.missed++
	}
	fmt.Printf("%-44s %12d %-6s %-12s %s\n", name, count, "", "= 0", verdict)
}

func (b *board) print(name string, value float64, unit string, goal float64, sign string, met bool) {
	b.lines++
	verdict, aim := "-", "-"
	if goal != 0 {
		aim = fmt.Sprintf("%s %s", sign, number(goal))
		verdict = "met"
		if !met {
			verdict = "missed"
			b.missed++
		}
	}
	fmt.Printf("%-44s %12s %-6s %-12s %s\n", name, number(value), unit, aim, verdict)
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// p99 is the value that 99 of 100 don't exceed.
func p99(samples []time.Duration) time.Duration {
	s := slices.Clone(samples)
	slices.Sort(s)
	return s[(len(s)*99+99)/100-1]
}

// resident is this process's resident set and the anonymous part of it, in MB
// (Linux; 0 elsewhere).
func resident() (all, anonymous float64) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			all = kb / 1024
		case "RssAnon:":
			anonymous = kb / 1024
		}
	}
	return all, anonymous
}

// cpuTime is what this process has used of the processors.
func cpuTime() time.Duration {
	raw, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(after)
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * time.Second / 100
}

// keepHeap writes what is in memory, where that was asked for.
func (b *board) keepHeap() error {
	if b.heap == "" {
		return nil
	}
	f, err := os.Create(b.heap)
	if err != nil {
		return err
	}
	runtime.GC()
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}
