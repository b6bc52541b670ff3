package history

import (
	"errors"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A teller checks what records say while the next batches are read and hashed: each
// takes as long as the other.
type teller struct {
	v    *verifier
	todo chan toldBatch
	pool sync.Pool
	now  *readBatch // is being read
	once sync.Once
	all  sync.WaitGroup

	mu  sync.Mutex
	err error
}

type toldBatch struct {
	batch     *readBatch
	head      Head
	file      state.Seq
	signature bool
}

// aheadBatches is how many batches may wait.
const aheadBatches = 16

func (v *verifier) tell() *teller {
	t := &teller{v: v, todo: make(chan toldBatch, aheadBatches), pool: sync.Pool{New: func() any { return new(readBatch) }}}
	t.all.Go(func() {
		for b := range t.todo {
			if t.failed() == nil {
				t.fail(v.batch(&b.batch.frame, b.head, b.file, b.signature))
			}
			t.pool.Put(b.batch)
		}
	})
	return t
}

// fresh gives the frame that the next batch is read into.
func (t *teller) fresh() *readBatch {
	t.now, _ = t.pool.Get().(*readBatch)
	return t.now
}

var errToldEarlier = errors.New("a record before it is wrong")

// take hands over the batch that was just read. It says when one before it was wrong.
func (t *teller) take(f *frame, h Head, file state.Seq, signature bool) error {
	if t.failed() != nil {
		return errToldEarlier // wait has it
	}
	if f != &t.now.frame {
		return errors.New("a batch that wasn't read for this")
	}
	t.todo <- toldBatch{t.now, h, file, signature}
	return nil
}

func (t *teller) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *teller) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// wait is until all that was handed over is checked, and what is wrong with it.
func (t *teller) wait() error {
	t.once.Do(func() { close(t.todo) })
	t.all.Wait()
	return t.failed()
}
