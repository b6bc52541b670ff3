package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// ErrFailed means that a write failed before, and with it the Store: what is on
// disk is known again only after a new start. Decision 5: fail-stop.
var ErrFailed = errors.New("the log failed earlier; start again from it")

// ErrReadOnly means that the Store was opened for reading.
var ErrReadOnly = errors.New("the log was opened for reading only")

// ErrNoLog means that there is no log in the directory.
var ErrNoLog = errors.New("no log here")

// SegmentRecords is how many records a file of the log holds before the next
// one begins (a batch is never split).
const SegmentRecords = 1 << 16

// checkpointSync is how long the checkpoint's file may lag behind the log on
// the disk itself. A process that is killed loses nothing by it; a machine that
// loses power finds the newer checkpoint in the log's last batch.
const checkpointSync = time.Second

// liveTries is how often a reader looks again before it takes what it sees for damage.
const liveTries = 20

// Options are how a Store is opened.
type Options struct {
	// ReadOnly reads up to the newest checkpoint, beside a live writer or on a
	// stopped directory, and changes nothing.
	ReadOnly bool
	// Disk replaces the file system, for tests and the simulation.
	Disk Disk
	// SegmentRecords replaces the constant, for tests.
	SegmentRecords int
	Logger         *slog.Logger
}

// A Store is a Log in a data directory, with what lies beside it.
//
//	log/…1.log       records in batches, each with the signed root after it;
//	                 append-only, one write and one sync a batch
//	log/…1.idx       cache: where records are, tree hashes, postings
//	checkpoint       the newest acknowledged head, signed
//	log.key log.pub  the log's signing key, and its first public one
//	log.keys         the public keys that followed, where any did
//	blobs/ texts/ snapshots/
type Store struct {
	disk    Disk
	keys    atomic.Pointer[keys] // another after SigningKeyRotated
	opts    Options
	logger  *slog.Logger
	lock    io.Closer
	texts   *Texts
	note    []byte // the checkpoint that was found at the start
	sealing sync.WaitGroup

	mu       sync.Mutex // guards what follows; never held while waiting for the disk but by the writer
	head     Head
	list     []segment
	sealErr  error
	writing  sync.Mutex // one Append at a time; guards what follows
	tree     tree
	tail     File
	headFile File
	headSync time.Time
	failed   error
}

// Open opens the log in a directory; for writing it is made where there is
// none. A batch that was never acknowledged and lies cut off at the end is
// removed; anything else that is not as it was written is a Damage.
func Open(dir string, opts Options) (*Store, error) {
	s := &Store{disk: opts.Disk, opts: opts, logger: opts.Logger}
	if s.disk == nil {
		s.disk = osDisk{dir}
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.opts.SegmentRecords <= 0 {
		s.opts.SegmentRecords = SegmentRecords
	}
	err := s.open()
	for tries := 0; s.opts.ReadOnly && errors.Is(err, ErrDamaged) && tries < liveTries; tries++ {
		// A listing or a file read while a live writer changes it is not
		// always of one moment. Damage stays.
		s.list = nil
		err = s.open()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the log in %s: %w", dir, err), s.release())
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if !s.opts.ReadOnly {
		if s.lock, err = s.disk.Lock("lock"); err != nil {
			return err
		}
	}
	files, err := logFiles(s.disk)
	if err != nil {
		return err
	}
	if !s.opts.ReadOnly {
		if err := s.halfTaken(); err != nil {
			return err
		}
	}
	k, err := loadKeys(s.disk, !s.opts.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		switch {
		case len(files) > 0:
			return damaged(pubFile, 0, "the log's public key is missing")
		case s.opts.ReadOnly:
			return ErrNoLog
		}
		k, err = makeKeys(s.disk)
	}
	if err != nil {
		return err
	}
	s.keys.Store(k)
	c, err := s.acknowledged(len(files) > 0)
	if err != nil {
		return err
	}
	if s.opts.ReadOnly {
		// The writer may have begun a file since.
		if files, err = logFiles(s.disk); err != nil {
			return err
		}
		files = slices.DeleteFunc(files, func(f segment) bool { return f.first > c.Seq })
	}
	if err := s.load(files, c); err != nil {
		return err
	}
	if s.texts, err = openTexts(s.disk, s.opts.ReadOnly); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return nil
	}
	if err := s.startWriting(c); err != nil {
		return err
	}
	return s.halfRotated()
}

// acknowledged reads the newest checkpoint, and makes the first one of a new log.
func (s *Store) acknowledged(hasLog bool) (Checkpoint, error) {
	c, text, err := readNote(s.disk, s.keys.Load())
	if !errors.Is(err, fs.ErrNotExist) {
		s.note = text
		return c, err
	}
	if hasLog {
		return c, damaged(checkpointFile, 0, "it is missing, so nobody knows whether the log is whole")
	}
	if s.opts.ReadOnly {
		return c, ErrNoLog
	}
	var t tree
	text, _, err = s.keys.Load().sign(Head{Root: state.Digest(t.root())})
	if err != nil {
		return c, err
	}
	padded, err := padCheckpoint(text)
	if err != nil {
		return c, err
	}
	if err := writeFile(s.disk, checkpointFile, 0o644, padded); err != nil {
		return c, err
	}
	return readCheckpoint(s.disk, s.keys.Load())
}

// logFiles are the first sequence numbers of the log's files, with their sizes.
func logFiles(d Disk) ([]segment, error) {
	entries, err := d.List(logDir)
	if err != nil {
		return nil, err
	}
	var out []segment
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name, ".log")
		if !ok {
			continue
		}
		first, err := strconv.ParseUint(base, 10, 62)
		if err != nil || first == 0 || logName(state.Seq(first)) != logDir+"/"+e.Name {
			return nil, damaged(logDir+"/"+e.Name, 0, "this is not the name of a log file")
		}
		out = append(out, segment{first: state.Seq(first), size: e.Size})
	}
	return out, nil
}

// load finds out what the files hold, and holds it against the checkpoint.
func (s *Store) load(files []segment, c Checkpoint) error {
	sc := scanner{disk: s.disk, keys: s.keys.Load()}
	next := state.Seq(1)
	for i := range files {
		seg := files[i]
		last := i == len(files)-1
		if seg.first != next {
			return damaged(logName(next), 0, "the file is missing: the next one begins with record %d", seg.first)
		}
		if x, err := openIndex(s.disk, seg.first, seg.size); !last && err == nil {
			seg.count, seg.disk = x.count, x
			s.list = append(s.list, seg)
			next = seg.end() + 1
			continue
		}
		before, err := treeAt(int64(next)-1, s.view())
		if err != nil {
			return err
		}
		got, err := sc.file(seg.first, before)
		if err != nil {
			return err
		}
		end := seg.first + state.Seq(got.count) - 1
		if got.torn != nil && (!last || end < c.Seq) {
			return damaged(logName(seg.first), got.size, "%v, after record %d; %d records were acknowledged", got.torn, end, c.Seq)
		}
		if got.count > 0 && !s.keys.Load().verify(Head{Seq: end, Root: state.Digest(got.tree.root())}, got.sig) {
			return damaged(logName(seg.first), got.size, "the signature after record %d is wrong", end)
		}
		if got.count == 0 && !last {
			return damaged(logName(seg.first), got.size, "it holds no records")
		}
		seg.count, seg.index, seg.size = got.count, got.index, got.size
		next = end + 1
		s.list = append(s.list, seg)
	}
	return s.settle(next-1, c)
}

// settle holds what was found against what was acknowledged.
func (s *Store) settle(end state.Seq, c Checkpoint) error {
	if end < c.Seq {
		name := logName(1)
		if n := len(s.list); n > 0 {
			name = logName(s.list[n-1].first)
		}
		return damaged(name, 0, "the log ends with record %d, but %d were acknowledged", end, c.Seq)
	}
	root, err := treeAt(int64(c.Seq), s.view())
	if err != nil {
		return err
	}
	if state.Digest(root.root()) != c.Root {
		return damaged(checkpointFile, 0, "the log's first %d records have another root", c.Seq)
	}
	if s.opts.ReadOnly {
		s.head = c.Head
		s.limit(c.Seq)
		return nil
	}
	if s.tree, err = treeAt(int64(end), s.view()); err != nil {
		return err
	}
	s.head = Head{Seq: end, Root: state.Digest(s.tree.root())}
	return nil
}

// limit hides what a live writer has begun and not acknowledged.
func (s *Store) limit(end state.Seq) {
	for len(s.list) > 0 && s.list[len(s.list)-1].first > end {
		s.list = s.list[:len(s.list)-1]
	}
	if n := len(s.list); n > 0 && s.list[n-1].end() > end {
		s.list[n-1].count = int(end - s.list[n-1].first + 1)
	}
}

// startWriting cuts off what was never acknowledged, opens the tail, and
// acknowledges what the last process made durable.
func (s *Store) startWriting(c Checkpoint) (err error) {
	if s.headFile, err = s.disk.Create(checkpointFile, 0o644); err != nil {
		return err
	}
	if n := len(s.list); n > 0 && s.list[n-1].count == 0 {
		// The first batch of a new file was torn.
		if err := s.disk.Remove(logName(s.list[n-1].first)); err != nil {
			return err
		}
		if err := s.disk.SyncDir(logDir); err != nil {
			return err
		}
		s.list = s.list[:n-1]
	}
	if n := len(s.list); n > 0 {
		last := &s.list[n-1]
		if s.tail, err = s.disk.Create(logName(last.first), 0o644); err != nil {
			return err
		}
		size, err := s.tail.Size()
		if err != nil {
			return err
		}
		if size > last.size {
			if err := s.tail.Truncate(last.size); err != nil {
				return err
			}
			s.logger.LogAttrs(context.Background(), slog.LevelWarn, "removed a batch that was cut off and never acknowledged",
				slog.String("file", logName(last.first)), slog.Int64("bytes", size-last.size))
		}
		// What a killed process wrote may not be on the disk yet.
		if err := s.tail.Sync(); err != nil {
			return err
		}
	}
	if s.head.Seq > c.Seq {
		text, _, err := s.keys.Load().sign(s.head)
		if err != nil {
			return err
		}
		if err := s.writeCheckpoint(text, true); err != nil {
			return err
		}
	}
	for i := range s.list[:max(0, len(s.list)-1)] {
		if s.list[i].index != nil {
			s.seal(s.list[i])
		}
	}
	return nil
}

// ID is the log's identity: the digest of its public key.
func (s *Store) ID() state.Digest { return s.keys.Load().id() }

// PublicKey is the log's first public key, in note's encoding: its identity. Keys has
// those that followed.
func (s *Store) PublicKey() string { return s.keys.Load().public }

// Head implements Log.
func (s *Store) Head() Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head
}

// Size is what the log's records take on the disk, in bytes: without what lies
// beside them.
func (s *Store) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum int64
	for i := range s.list {
		sum += s.list[i].size
	}
	return sum
}

// Checkpoint is the head as a signed statement.
func (s *Store) Checkpoint() ([]byte, error) {
	h := s.Head()
	k := s.keys.Load() // after the head: a key that was replaced before it says nothing
	if k.signer == nil {
		return s.note, nil // the one up to which this Store reads; a live writer's is newer
	}
	text, _, err := k.sign(h)
	return text, err
}

// view is all segments as they are now.
func (s *Store) view() *segments {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &segments{disk: s.disk, list: slices.Clone(s.list)}
	if n := len(v.list); n > 0 && v.list[n-1].index != nil {
		// Append goes on adding to the last one.
		x := *v.list[n-1].index
		v.list[n-1].index = &x
	}
	return v
}

// Append implements Log. A batch whose last record is SigningKeyRotated is the last that
// the old key signs; it is replaced before Append returns.
func (s *Store) Append(ctx context.Context, head Head, records []*state.Record) (Head, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	switch {
	case s.opts.ReadOnly:
		return Head{}, ErrReadOnly
	case s.failed != nil:
		return Head{}, fmt.Errorf("%w: %w", ErrFailed, s.failed)
	case head != s.head:
		return Head{}, fmt.Errorf("%w: it ends with record %d, the writer's with %d", ErrConflict, s.head.Seq, head.Seq)
	case ctx.Err() != nil:
		return Head{}, ctx.Err()
	case len(records) == 0:
		return head, nil
	}
	rotated, err := s.mayRotate(records)
	if err != nil {
		return Head{}, err
	}
	b, err := encodeBatch(s.keys.Load(), s.tree, head, records)
	if err != nil {
		return Head{}, err // nothing was written
	}
	if err := s.write(b); err != nil {
		s.failed = err
		return Head{}, fmt.Errorf("append records %d to %d: %w", head.Seq+1, b.head.Seq, err)
	}
	if rotated != nil {
		if err := s.followKey(b.head.Seq, rotated.Key); err != nil {
			s.failed = err
			return Head{}, fmt.Errorf("change the log's signing key: %w", err)
		}
	}
	return b.head, nil
}

// write makes a batch durable. After an error the Store is done for.
func (s *Store) write(b *batch) error {
	// A text is there before a record that names it.
	if err := s.texts.sync(); err != nil {
		return err
	}
	first := s.head.Seq + 1
	at, err := s.room()
	if err != nil {
		return err
	}
	begins := at == 0
	raw := b.frame
	if begins {
		raw = append(appendHeader(nil, s.head), raw...)
		at = fileHeader
		_, err = s.tail.WriteAt(raw, 0)
	} else {
		_, err = s.tail.WriteAt(raw, at)
	}
	if err != nil {
		return err
	}
	if err := s.tail.Sync(); err != nil {
		return err
	}
	if begins {
		if err := s.disk.SyncDir(logDir); err != nil {
			return err
		}
	}
	if err := s.writeCheckpoint(b.note, false); err != nil {
		return err
	}
	s.tree = b.tree
	s.mu.Lock()
	defer s.mu.Unlock()
	if begins {
		s.list = append(s.list, segment{first: first, index: &index{}})
	}
	seg := &s.list[len(s.list)-1]
	seg.index.add(b, at, first)
	seg.count += len(b.offsets)
	seg.size = at + int64(len(b.frame))
	s.head = b.head
	return nil
}

// room is where the next batch goes: 0 where it begins a new file.
func (s *Store) room() (int64, error) {
	if n := len(s.list); n > 0 {
		last := s.list[n-1]
		if last.index != nil {
			if last.count < s.opts.SegmentRecords {
				return last.size, nil
			}
			s.seal(last)
		}
	}
	if s.tail != nil {
		if err := s.tail.Close(); err != nil {
			return 0, err
		}
	}
	var err error
	s.tail, err = s.disk.Create(logName(s.head.Seq+1), 0o644)
	return 0, err
}

func (s *Store) writeCheckpoint(text []byte, sync bool) error {
	padded, err := padCheckpoint(text)
	if err != nil {
		return err
	}
	if _, err := s.headFile.WriteAt(padded, 0); err != nil {
		return err
	}
	if now := time.Now(); sync || now.Sub(s.headSync) >= checkpointSync {
		s.headSync = now
		return s.headFile.Sync()
	}
	return nil
}

// seal writes the index of a segment that grows no more, beside the writer. It
// is a cache, so a failure costs memory and the next start, and no record.
func (s *Store) seal(seg segment) {
	s.sealing.Go(func() {
		x, err := s.writeIndex(&seg)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.sealErr = errors.Join(s.sealErr, err)
			s.logger.LogAttrs(context.Background(), slog.LevelWarn, "kept an index in memory that could not be written",
				slog.String("file", indexName(seg.first)), slog.Any("err", err))
			return
		}
		for i := range s.list {
			if s.list[i].first == seg.first {
				s.list[i].disk, s.list[i].index = x, nil
			}
		}
	})
}

func (s *Store) writeIndex(seg *segment) (*diskIndex, error) {
	ps, err := collectPostings(s.disk, seg)
	if err != nil {
		return nil, err
	}
	if err := writeFile(s.disk, indexName(seg.first), 0o644, encodeIndex(seg, ps)); err != nil {
		return nil, err
	}
	return openIndex(s.disk, seg.first, seg.size)
}

// Close ends a clean use of the log.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.sealing.Wait()
	var err error
	if s.headFile != nil && s.failed == nil {
		err = s.headFile.Sync()
	}
	if s.texts != nil && s.failed == nil {
		err = errors.Join(err, s.texts.sync())
	}
	if s.failed == nil {
		s.failed = errors.New("it was closed")
	}
	return errors.Join(err, s.release())
}

func (s *Store) release() error {
	var errs []error
	for _, c := range []io.Closer{s.tail, s.headFile} {
		if f, ok := c.(File); ok && f != nil {
			errs = append(errs, f.Close())
		}
	}
	s.tail, s.headFile = nil, nil
	if s.texts != nil {
		errs = append(errs, s.texts.close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// interface checks.
var (
	_ Log             = (*Store)(nil)
	_ tlog.HashReader = (*segments)(nil)
)
