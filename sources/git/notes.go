package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/memory"
)

// A Note is what `git notes` keeps about a commit, below a ref of its own.
type Note struct {
	Ref    string // "refs/notes/tandem/prod"
	Commit string
	Text   []byte
	Once   []byte // Annotate adds nothing where this is there already; empty: the text itself
}

// Limits of notes.
const (
	maxNotesPack = 64 << 20 // bytes that are fetched of one ref
	maxNote      = 1 << 20  // bytes of one note
	noteTries    = 5        // others may write at the same ref
	hexCommit    = 40
)

// notesAuthor is who writes notes.
const notesAuthor = "Tandem <tandem@tandem.invalid>"

// Annotate adds text to the note of a commit, below whatever is there already,
// by compare-and-swap. Text that is there already isn't added again. It returns
// the notes' commit; errors are those of Push.
func Annotate(ctx context.Context, options Options, n Note, when time.Time) (string, error) {
	a, err := notesAddress(&options, n.Ref)
	if err != nil {
		return "", err
	}
	if len(n.Commit) != hexCommit || !plumbing.IsHash(n.Commit) {
		return "", fmt.Errorf("note in %s: %q is no commit", n.Ref, n.Commit)
	}
	for try := 1; ; try++ {
		had, err := openNotes(ctx, a, options.Auth, n.Ref)
		if err != nil {
			return "", fmt.Errorf("read notes of %s: %w", a.text, classed(err))
		}
		move, err := had.with(n, when)
		if err != nil || move == nil {
			return had.tip, err
		}
		err = Push(ctx, options, *move)
		var moved *MovedError
		if err == nil || !errors.As(err, &moved) || try == noteTries {
			return move.New, err
		}
	}
}

// Notes reads the notes below a prefix: "refs/notes/tandem/".
func Notes(ctx context.Context, options Options, prefix string) ([]Note, error) {
	a, err := notesAddress(&options, prefix)
	if err != nil {
		return nil, err
	}
	names, err := notesRefs(ctx, a, options.Auth, prefix)
	if err != nil {
		return nil, fmt.Errorf("look for notes in %s: %w", a.text, classed(err))
	}
	var out []Note
	for _, name := range names {
		n, err := openNotes(ctx, a, options.Auth, name)
		if err == nil {
			err = n.each(func(commit string, text []byte) { out = append(out, Note{Ref: name, Commit: commit, Text: text}) })
		}
		if err != nil {
			return nil, fmt.Errorf("read notes of %s: %w", a.text, classed(err))
		}
	}
	return out, nil
}

func notesAddress(options *Options, ref string) (address, error) {
	a, err := parse(options.URL)
	if err != nil {
		return a, err
	}
	if !strings.HasPrefix(ref, "refs/notes/") {
		return a, fmt.Errorf("%q is no ref of notes", ref)
	}
	options.Ref = "main" // no branch is looked at
	if options.Cache == "" {
		options.Cache = os.DevNull // nothing is kept
	}
	return a, options.check(a)
}

// noteTree is what lies at a ref of notes.
type noteTree struct {
	ref  string
	tip  string // empty: there is no such ref
	root *object.Tree
	from storer.EncodedObjectStorer
}

// openNotes reads where the ref is, with all that lies there.
func openNotes(ctx context.Context, a address, auth Auth, ref string) (*noteTree, error) {
	n := &noteTree{ref: ref, root: &object.Tree{}}
	if a.scheme == local {
		l, err := Locate(a.path)
		if err != nil {
			return nil, err
		}
		storage, err := l.open()
		if err != nil {
			return nil, err
		}
		at, err := storage.Reference(plumbing.ReferenceName(ref))
		if errors.Is(err, plumbing.ErrReferenceNotFound) {
			return n, nil
		}
		if err != nil {
			return nil, err
		}
		n.tip, n.from = at.Hash().String(), storage
		err = n.load()
		return n, err
	}
	s, advertised, err := uploadSession(ctx, a, auth)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	at, ok := advertised.References[ref]
	if !ok {
		return n, nil
	}
	objects := memory.NewStorage()
	if err := fetchNotes(ctx, s, advertised, at, objects); err != nil {
		return nil, explain(err)
	}
	n.tip, n.from = at.String(), objects
	err = n.load()
	return n, err
}

func uploadSession(ctx context.Context, a address, auth Auth) (session, *packp.AdvRefs, error) {
	s, err := dial(ctx, a, auth)
	if err != nil {
		return nil, nil, err
	}
	advertised, err := s.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return s, packp.NewAdvRefs(), nil
	}
	if err != nil {
		_ = s.Close() // the error before counts
		return nil, nil, explain(err)
	}
	return s, advertised, nil
}

// fetchNotes gets the newest commit of a ref with its tree and texts.
func fetchNotes(ctx context.Context, s session, advertised *packp.AdvRefs, tip plumbing.Hash, into *memory.Storage) error {
	request := packp.NewUploadPackRequest()
	request.Wants = []plumbing.Hash{tip}
	for _, c := range []capability.Capability{capability.OFSDelta, capability.Sideband64k, capability.NoProgress} {
		if advertised.Capabilities.Supports(c) {
			if err := request.Capabilities.Set(c); err != nil {
				return err
			}
		}
	}
	if advertised.Capabilities.Supports(capability.Shallow) {
		if err := request.Capabilities.Set(capability.Shallow); err != nil {
			return err
		}
		request.Depth = packp.DepthCommits(1)
	}
	response, err := s.UploadPack(ctx, request)
	if err != nil {
		return err
	}
	var pack io.Reader = response
	if request.Capabilities.Supports(capability.Sideband64k) {
		pack = sideband.NewDemuxer(sideband.Sideband64k, response)
	}
	limited := &io.LimitedReader{R: pack, N: maxNotesPack}
	err = packfile.UpdateObjectStorage(into, limited)
	_ = response.Close() // what counts has been read
	if err != nil && limited.N <= 0 {
		return fmt.Errorf("the notes are larger than %d MB: move the ref away, another begins", maxNotesPack>>20)
	}
	return err
}

// notesRefs are the refs below a prefix, by name.
func notesRefs(ctx context.Context, a address, auth Auth, prefix string) ([]string, error) {
	var all []string
	if a.scheme == local {
		l, err := Locate(a.path)
		if err != nil {
			return nil, err
		}
		storage, err := l.open()
		if err != nil {
			return nil, err
		}
		all = refNames(storage)
	} else {
		s, advertised, err := uploadSession(ctx, a, auth)
		if err != nil {
			return nil, err
		}
		_ = s.Close() // what counts has been read
		all = slices.Collect(maps.Keys(advertised.References))
	}
	all = slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, prefix) })
	slices.Sort(all)
	return all, nil
}

func (n *noteTree) load() error {
	c, err := object.GetCommit(n.from, plumbing.NewHash(n.tip))
	if err != nil {
		return fmt.Errorf("%s: %w", n.ref, err)
	}
	n.root, err = c.Tree()
	return err
}

// each yields every note. Git keeps them flat, or below directories named by the
// first digits.
func (n *noteTree) each(yield func(commit string, text []byte)) error {
	var walk func(t *object.Tree, prefix string) error
	walk = func(t *object.Tree, prefix string) error {
		for _, e := range t.Entries {
			name := prefix + e.Name
			switch {
			case len(name) > hexCommit:
			case e.Mode == filemode.Dir:
				sub, err := object.GetTree(n.from, e.Hash)
				if err != nil {
					return err
				}
				if err := walk(sub, name); err != nil {
					return err
				}
			case len(name) == hexCommit:
				text, err := n.text(e.Hash)
				if err != nil {
					return err
				}
				yield(name, text)
			}
		}
		return nil
	}
	return walk(n.root, "")
}

func (n *noteTree) text(hash plumbing.Hash) ([]byte, error) {
	b, err := object.GetBlob(n.from, hash)
	if err != nil {
		return nil, err
	}
	r, err := b.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxNote))
}

// with is the move that adds a note, nil where it is there.
func (n *noteTree) with(note Note, when time.Time) (*Move, error) {
	move := &Move{Branch: n.ref, Old: n.tip}
	tree, err := n.put(move, n.root, note.Commit, &note)
	if err != nil || tree == plumbing.ZeroHash {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", tree)
	if n.tip != "" {
		fmt.Fprintf(&b, "parent %s\n", n.tip)
	}
	fmt.Fprintf(&b, "author %s %d +0000\ncommitter %s %d +0000\n\nNotes added by Tandem\n", notesAuthor, when.Unix(), notesAuthor, when.Unix())
	move.Object = b.Bytes()
	move.New = plumbing.ComputeHash(plumbing.CommitObject, move.Object).String()
	return move, nil
}

// put writes a note into a tree, and gives the tree's new hash; none where the
// text is there already. Where Git has made directories, their scheme is kept.
func (n *noteTree) put(move *Move, t *object.Tree, name string, note *Note) (plumbing.Hash, error) {
	made := &object.Tree{Entries: slices.Clone(t.Entries)}
	once := note.Once
	if len(once) == 0 {
		once = note.Text
	}
	for i, e := range made.Entries {
		switch {
		case e.Mode == filemode.Dir && len(e.Name) == 2 && strings.HasPrefix(name, e.Name):
			sub, err := object.GetTree(n.from, e.Hash)
			if err != nil {
				return plumbing.ZeroHash, err
			}
			hash, err := n.put(move, sub, name[2:], note)
			if err != nil || hash == plumbing.ZeroHash {
				return hash, err
			}
			made.Entries[i].Hash = hash
			return move.tree(made)
		case e.Name == name:
			had, err := n.text(e.Hash)
			if err != nil || bytes.Contains(had, once) {
				return plumbing.ZeroHash, err
			}
			made.Entries[i].Hash = move.make(plumbing.BlobObject, slices.Concat(bytes.TrimRight(had, "\n"), []byte("\n\n"), note.Text))
			return move.tree(made)
		}
	}
	made.Entries = append(made.Entries, object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: move.make(plumbing.BlobObject, note.Text)})
	return move.tree(made)
}

// make adds an object that the move brings along.
func (m *Move) make(kind plumbing.ObjectType, content []byte) plumbing.Hash {
	m.more = append(m.more, madeObject{kind, content})
	return plumbing.ComputeHash(kind, content)
}

func (m *Move) tree(t *object.Tree) (plumbing.Hash, error) {
	sort.Sort(object.TreeEntrySorter(t.Entries))
	o := &plumbing.MemoryObject{}
	if err := t.Encode(o); err != nil {
		return plumbing.ZeroHash, err
	}
	r, err := o.Reader()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	return m.make(plumbing.TreeObject, raw), nil
}

// madeObject is one that is made, besides the commit.
type madeObject struct {
	kind    plumbing.ObjectType
	content []byte
}

// keep writes an object where it is to be found.
func keep(into storer.EncodedObjectStorer, kind plumbing.ObjectType, content []byte) (plumbing.Hash, error) {
	o := into.NewEncodedObject()
	o.SetType(kind)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := w.Write(content); err != nil {
		return plumbing.ZeroHash, err
	}
	if err := w.Close(); err != nil {
		return plumbing.ZeroHash, err
	}
	return into.SetEncodedObject(o)
}
