package git_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// What Annotate writes, git shows; and what git wrote there stays.
func TestAnnotate(t *testing.T) {
	t.Parallel()
	const ref = "refs/notes/tandem/prod"
	pushable(t, func(t *testing.T, repo *sourcetest.Repo, options git.Options) {
		one := repo.Commit("main", map[string]string{"a": "1"})
		two := repo.Commit("main", map[string]string{"a": "2"})
		when := time.Unix(1_795_000_000, 0)
		add := func(commit, text string) string {
			t.Helper()
			tip, err := git.Annotate(t.Context(), options, git.Note{Ref: ref, Commit: commit, Text: []byte(text)}, when)
			if err != nil {
				t.Fatal(err)
			}
			if got := repo.Run("rev-parse", ref); got != tip {
				t.Fatalf("notes are at %s, want %s", got, tip)
			}
			return tip
		}
		add(one, "deployed first\n")
		tip := add(two, "deployed second\n")
		if again := add(two, "deployed second\n"); again != tip {
			t.Error("the same note was written twice")
		}
		add(one, "deployed once more\n")
		repo.Run("notes", "--ref", "tandem/prod", "append", "-m", "a person's words", one)
		add(one, "deployed a third time\n")
		log := repo.Run("log", "--notes=tandem/prod", "--format=%H%n%N", "main")
		for _, want := range []string{"deployed first", "deployed once more", "a person's words", "deployed a third time", "deployed second"} {
			if !strings.Contains(log, want) {
				t.Errorf("git log --notes does not show %q:\n%s", want, log)
			}
		}
		notes, err := git.Notes(t.Context(), options, "refs/notes/tandem/")
		if err != nil || len(notes) != 2 {
			t.Fatalf("read %d notes (%v), want 2", len(notes), err)
		}
		repo.Run("fsck", "--strict")
	})
}

// Git spreads many notes over directories; they are read and added to as well.
func TestManyNotes(t *testing.T) {
	t.Parallel()
	const ref = "refs/notes/tandem/prod"
	pushable(t, func(t *testing.T, repo *sourcetest.Repo, options git.Options) {
		head := repo.Commit("main", map[string]string{"a": "1"})
		blob := repo.Object("blob", "kept\n")
		var tree strings.Builder
		for i := range 3 {
			fmt.Fprintf(&tree, "100644 blob %s\t%02x%038x\n", blob, 0xa0+i, i)
		}
		// One directory for the commit's first digits, as git's fan-out has it.
		inner := repo.RunWith(fmt.Sprintf("100644 blob %s\t%s\n", blob, strings.Repeat("0", 38)), "mktree")
		root := repo.RunWith(tree.String()+fmt.Sprintf("040000 tree %s\t%s\n", inner, head[:2]), "mktree")
		commit := repo.Run("commit-tree", "-m", "notes", root)
		repo.Run("update-ref", ref, commit)
		if _, err := git.Annotate(t.Context(), options, git.Note{Ref: ref, Commit: head, Text: []byte("deployed\n")}, time.Unix(1_795_000_000, 0)); err != nil {
			t.Fatal(err)
		}
		if got := repo.Run("notes", "--ref", "tandem/prod", "show", head); got != "deployed" {
			t.Errorf("git shows %q", got)
		}
		notes, err := git.Notes(t.Context(), options, "refs/notes/tandem/")
		if err != nil || len(notes) != 5 {
			t.Errorf("read %d notes (%v), want 5", len(notes), err)
		}
		repo.Run("fsck", "--strict")
	})
}

// Those who write at once lose nothing of each other's.
func TestAnnotateAtOnce(t *testing.T) {
	t.Parallel()
	pushable(t, func(t *testing.T, repo *sourcetest.Repo, options git.Options) {
		head := repo.Commit("main", map[string]string{"a": "1"})
		const writers = 3
		errs := make([]error, writers)
		var all sync.WaitGroup
		for i := range writers {
			all.Go(func() {
				_, errs[i] = git.Annotate(t.Context(), options, git.Note{Ref: "refs/notes/tandem/prod", Commit: head, Text: fmt.Appendf(nil, "writer %d\n", i)}, time.Unix(1_795_000_000, 0))
			})
		}
		all.Wait()
		text := repo.Run("notes", "--ref", "tandem/prod", "show", head)
		for i, err := range errs {
			if err != nil || !strings.Contains(text, fmt.Sprint("writer ", i)) {
				t.Errorf("writer %d: %v; the note is\n%s", i, err, text)
			}
		}
	})
}
