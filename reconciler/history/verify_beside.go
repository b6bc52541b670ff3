package history

import (
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// besides checks the indexes of segments, each beside the reading of the next.
type besides struct {
	*verifier
	running sync.WaitGroup
	slots   chan struct{}
	results []*indexed // in the order of the segments
}

type indexed struct {
	note string
	err  error
}

func (b *besides) check(seg *segment) {
	if b.slots == nil {
		b.slots = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))
	}
	out, mine := &indexed{}, *seg
	b.results = append(b.results, out)
	b.slots <- struct{}{}
	b.running.Go(func() {
		defer func() { <-b.slots }()
		out.note, out.err = b.index(&mine)
	})
}

// said waits, and puts what was found into the report.
func (b *besides) said() error {
	b.running.Wait()
	for _, r := range b.results {
		if r.note != "" {
			b.note("%s", r.note)
		}
		if err := b.found(r.err); err != nil {
			return err
		}
	}
	return nil
}

// keptHead is a checkpoint kept elsewhere.
type keptHead struct {
	Head
	where string
}

// kept reads the checkpoints that somebody kept, by their size.
func (v *verifier) kept(c Checkpoint) (map[state.Seq]keptHead, error) {
	out := map[state.Seq]keptHead{}
	seen, err := v.seen(c)
	if err != nil {
		return nil, err
	}
	if seen.Seq > 0 {
		out[seen.Seq] = keptHead{seen.Head, keptByYou}
		v.report.Witnessed++
	}
	others := 0
	for _, w := range v.opts.Witnessed {
		if !strings.HasPrefix(string(w.Text), v.keys.verifier.Name()+"\n") {
			others++
			continue
		}
		n, err := v.keys.parse(w.Text)
		switch had, ok := out[n.Seq]; {
		case err != nil:
			return nil, damaged(pubFile, 0, "%s is not signed with this log's key: %v", w.Where, err)
		case n.Seq > c.Seq:
			return nil, damaged(checkpointFile, 0, "the log ends with record %d, but %s is of %d: this is an old copy", c.Seq, w.Where, n.Seq)
		case ok && had.Root != n.Root:
			return nil, damaged(logDir, 0, "%s and %s were both signed for %d records, and differ: two histories", had.where, w.Where, n.Seq)
		case n.Seq > 0:
			out[n.Seq] = keptHead{n.Head, w.Where}
		}
		v.report.Witnessed++
	}
	switch {
	case others > 0 && others == len(v.opts.Witnessed):
		return nil, damaged(pubFile, 0, "all %d checkpoints that were kept elsewhere are of other logs: this is not the log that was witnessed", others)
	case others > 0:
		v.note("%d checkpoints that were kept elsewhere are of other logs", others)
	}
	return out, nil
}

// keptByYou names the checkpoint of --seen.
const keptByYou = "the checkpoint that you kept"

// seen reads the checkpoint that somebody kept; zero where nobody did.
func (v *verifier) seen(c Checkpoint) (Checkpoint, error) {
	if len(v.opts.Seen) == 0 {
		if len(v.opts.Witnessed) > 0 {
			return Checkpoint{}, nil
		}
		v.report.NotChecked = append(v.report.NotChecked, "that this is the newest checkpoint: give one that was kept elsewhere (--seen FILE), or a repository that has notes of it (--witness REPO)")
		return Checkpoint{}, nil
	}
	seen, err := v.keys.parse(v.opts.Seen)
	if err != nil {
		return seen, fmt.Errorf("the checkpoint that you kept: %w", err)
	}
	if seen.Seq > c.Seq {
		return seen, damaged(checkpointFile, 0, "the log ends with record %d, but the checkpoint that you kept is of %d: this is an old copy", c.Seq, seen.Seq)
	}
	return seen, nil
}
