package git

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/tandem-gitops/tandem/sources/tree"
)

// A store is what was fetched, on disk: a bare repository of packs, and the list
// of commits that it has whole. Packs add up, so after some of them a new
// generation starts; the one before stays for snapshots that still read it.
type store struct {
	dir        string // of all generations
	generation int
	objects    *objects
	whole      []plumbing.Hash // newest first
	damaged    atomic.Bool     // a file's content was found damaged: time for another generation
}

// errDamaged is a store that lacks what it should have.
var errDamaged = errors.New("the store is damaged")

const (
	maxTips  = 16 // commits that are told to the server as had
	maxPacks = 64 // of one generation
	tipsFile = "tips"
)

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	generations, err := listGenerations(dir)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, generation: 1}
	if len(generations) > 0 {
		s.generation = generations[len(generations)-1]
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	if packs, err := filepath.Glob(filepath.Join(s.packs(), "*.pack")); err != nil || len(packs) > 0 && len(s.whole) == 0 {
		return s, errors.Join(err, s.renew()) // of what these packs are part is not known
	}
	return s, nil
}

func listGenerations(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && e.IsDir() {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (s *store) path() string { return filepath.Join(s.dir, fmt.Sprintf("%06d", s.generation)) }

func (s *store) packs() string { return filepath.Join(s.path(), "objects", "pack") }

// load opens the current generation, and makes it where it isn't there.
func (s *store) load() error {
	if err := os.MkdirAll(s.packs(), 0o700); err != nil {
		return err
	}
	if err := s.clean(); err != nil {
		return err
	}
	s.whole = nil
	partial := false
	text, err := os.ReadFile(filepath.Join(s.path(), tipsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		switch line := lines.Text(); {
		case line == "partial":
			partial = true
		case plumbing.IsHash(line):
			s.whole = append(s.whole, plumbing.NewHash(line))
		}
	}
	path := s.path()
	s.objects, err = openObjects(func() (*filesystem.Storage, error) {
		return filesystem.NewStorage(osfs.New(path), cache.NewObjectLRU(objectCache)), nil
	}, path)
	if err != nil {
		return err
	}
	s.damaged.Store(false)
	s.objects.partial = partial
	s.objects.damaged = func() {
		// The list goes at once, so that another process doesn't trust it either.
		_ = os.Remove(filepath.Join(path, tipsFile))
		s.damaged.Store(true)
	}
	return nil
}

// clean removes what an interrupted transfer or a killed process left.
func (s *store) clean() error {
	left, err := filepath.Glob(filepath.Join(s.packs(), "incoming-*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// renew starts an empty generation and removes all but the one before it.
func (s *store) renew() error {
	generations, err := listGenerations(s.dir)
	if err != nil {
		return err
	}
	for _, n := range generations {
		if n < s.generation {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, fmt.Sprintf("%06d", n))))
		}
	}
	if err != nil {
		return err
	}
	s.generation++
	return s.load()
}

// has says whether the store has the commit with all that belongs to it.
func (s *store) has(hash plumbing.Hash) bool { return slices.Contains(s.whole, hash) }

// tips are the commits that the store has whole. A tag object stands for its
// commit: servers refuse to hear of a shallow tag.
func (s *store) tips() []plumbing.Hash {
	var out []plumbing.Hash
	for _, h := range s.whole {
		if commit, err := s.objects.peel(h); err == nil && !slices.Contains(out, commit) {
			out = append(out, commit)
		}
	}
	return out
}

// full says whether it is time for another generation.
func (s *store) full() bool {
	packs, err := filepath.Glob(filepath.Join(s.packs(), "*.pack"))
	return err == nil && len(packs) >= maxPacks
}

// add puts a pack into the store. Nothing of it counts before all of it is on
// disk and every object's hash is computed; a transfer that breaks leaves the
// store as it was.
func (s *store) add(pack io.Reader, wants []plumbing.Hash, partial bool) error {
	incoming, err := os.CreateTemp(s.packs(), "incoming-*")
	if err != nil {
		return err
	}
	err = s.receive(incoming, pack)
	err = errors.Join(err, incoming.Close())
	if err != nil {
		return errors.Join(err, os.Remove(incoming.Name()))
	}
	if err := s.index(incoming.Name()); err != nil {
		return err
	}
	s.objects.mu.Lock()
	s.objects.partial = s.objects.partial || partial
	err = s.objects.reopen()
	s.objects.mu.Unlock()
	if err != nil {
		return err
	}
	return s.keep(wants)
}

func (s *store) receive(to *os.File, pack io.Reader) error {
	n, err := io.Copy(to, io.LimitReader(pack, MaxPack+1))
	switch {
	case err != nil:
		return fmt.Errorf("the transfer broke after %d bytes: %w", n, err)
	case n > MaxPack:
		return &tree.LimitError{Name: "git.MaxPack", Limit: MaxPack, What: "the server sends more for one commit", Remedy: "keep manifests in a repository of their own"}
	case n == 0:
		return errors.New("the server sent nothing")
	default:
		return nil
	}
}

// index checks a pack and gives it, with an index, the names that Git gives.
func (s *store) index(incoming string) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(incoming))
		}
	}()
	f, err := os.Open(incoming)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = checkPack(f, info.Size())
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	writer := new(idxfile.Writer)
	var sum plumbing.Hash
	if err == nil {
		sum, err = parsePack(f, writer)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("the pack is damaged: %w", err)
	}
	index, err := writer.Index()
	if err != nil {
		return err
	}
	var encoded bytes.Buffer
	if _, err := idxfile.NewEncoder(&encoded).Encode(index); err != nil {
		return err
	}
	base := filepath.Join(s.packs(), "pack-"+sum.String())
	if _, err := os.Stat(base + ".idx"); err == nil {
		return os.Remove(incoming) // the same pack again
	}
	if err := os.Rename(incoming, base+".pack"); err != nil {
		return err
	}
	return replace(base+".idx", encoded.Bytes())
}

// parsePack computes the hash of every object in a pack.
func parsePack(f *os.File, to packfile.Observer) (plumbing.Hash, error) {
	parser, err := packfile.NewParser(packfile.NewScanner(f), to)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	return parser.Parse()
}

// keep remembers commits as whole.
func (s *store) keep(hashes []plumbing.Hash) error {
	whole := slices.Clone(hashes)
	for _, h := range s.whole {
		if !slices.Contains(whole, h) && len(whole) < maxTips {
			whole = append(whole, h)
		}
	}
	var text strings.Builder
	if s.objects.partial {
		text.WriteString("partial\n")
	}
	for _, h := range whole {
		text.WriteString(h.String() + "\n")
	}
	if err := replace(filepath.Join(s.path(), tipsFile), []byte(text.String())); err != nil {
		return err
	}
	s.whole = whole
	return nil
}

// replace writes a file so that it is there whole or not at all.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "incoming-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
