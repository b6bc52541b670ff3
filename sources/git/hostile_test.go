package git_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/git"
	"github.com/tandem-gitops/tandem/sources/sourcetest"
)

// packed is one object of a pack. A delta has a base; size, where given, lies
// about how long the data is.
type packed struct {
	kind byte // 1 commit, 2 tree, 3 blob, 7 delta
	base string
	size int
	data []byte
}

func (p *packed) name() string {
	kind := map[byte]string{1: "commit", 2: "tree", 3: "blob"}[p.kind]
	sum := sha1.Sum(fmt.Appendf(nil, "%s %d\x00%s", kind, len(p.data), p.data))
	return hex.EncodeToString(sum[:])
}

func unhexed(s string) string { b, _ := hex.DecodeString(s); return string(b) }

// packOf writes a pack as Git does, but for what is asked to be wrong.
func packOf(count int, objects ...packed) []byte {
	var b bytes.Buffer
	b.WriteString("PACK")
	_ = binary.Write(&b, binary.BigEndian, [2]uint32{2, uint32(count)})
	for _, o := range objects {
		size := o.size
		if size == 0 {
			size = len(o.data)
		}
		first := o.kind<<4 | byte(size&15)
		for size >>= 4; size > 0; size >>= 7 {
			b.WriteByte(first | 0x80)
			first = byte(size & 0x7f)
		}
		b.WriteByte(first)
		b.WriteString(unhexed(o.base))
		z := zlib.NewWriter(&b)
		_, _ = z.Write(o.data)
		_ = z.Close()
	}
	sum := sha1.Sum(b.Bytes())
	return append(b.Bytes(), sum[:]...)
}

// varint is a size as deltas have it.
func varint(n int) []byte {
	var out []byte
	for ; n > 0x7f; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

// again is a delta that says its whole base so many times.
func again(base packed, times int) packed {
	length := len(base.data)
	d := append(varint(length), varint(length*times)...)
	for range times {
		for at := 0; at < length; at += 4 << 20 {
			n := min(4<<20, length-at)
			d = append(d, 0x80|0x0f|0x70, byte(at), byte(at>>8), byte(at>>16), byte(at>>24), byte(n), byte(n>>8), byte(n>>16))
		}
	}
	return packed{kind: 7, base: base.name(), data: d}
}

// A commit with one file, as objects.
func oneCommit(text string) (head string, objects []packed) {
	blob := packed{kind: 3, data: []byte(text)}
	tree := packed{kind: 2, data: []byte("100644 a\x00" + unhexed(blob.name()))}
	commit := packed{kind: 1, data: []byte("tree " + tree.name() + "\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n")}
	return commit.name(), []packed{commit, tree, blob}
}

func line(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

// serveRaw is a server that says what it is told to, whatever is asked.
func serveRaw(t *testing.T, refs func(w io.Writer), pack func(w http.ResponseWriter)) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			pack(w)
			return
		}
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		_, _ = io.WriteString(w, line("# service=git-upload-pack\n")+"0000")
		refs(w)
		_, _ = io.WriteString(w, "0000")
	}))
	t.Cleanup(server.Close)
	return server.URL + "/repo.git"
}

func refsOf(head string, more ...string) func(io.Writer) {
	return func(w io.Writer) {
		_, _ = io.WriteString(w, line(head+" HEAD\x00ofs-delta symref=HEAD:refs/heads/main\n"))
		_, _ = io.WriteString(w, line(head+" refs/heads/main\n"))
		for _, m := range more {
			_, _ = io.WriteString(w, line(m+"\n"))
		}
	}
}

func packsOf(pack []byte) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		_, _ = io.WriteString(w, line("NAK\n"))
		_, _ = w.Write(pack)
	}
}

// TestHostilePacks: what a server sends in place of a pack is an error that says
// so. It takes neither the memory that it claims nor anything in the store.
func TestHostilePacks(t *testing.T) {
	head, objects := oneCommit("hello")
	good := packOf(3, objects...)
	_, others := oneCommit("other")
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	middle := bytes.Clone(good)
	middle[40] ^= 0x10
	lies := bytes.Clone(objects[2].data)
	blob := packed{kind: 3, data: bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)}
	bomb, content := []packed{blob}, blob
	for range 3 { // 64 KiB × 64 × 64 × 64
		bomb = append(bomb, again(content, 64))
		if len(content.data) < 256<<20 {
			content = packed{kind: 3, data: bytes.Repeat(content.data, 64)}
		}
	}
	missing := packed{kind: 7, base: strings.Repeat("ab", 20), data: append(append(varint(5), varint(5)...), 5, 'h', 'e', 'l', 'l', 'o')}
	for name, c := range map[string]struct {
		pack []byte
		ok   bool
	}{
		"honest":               {good, true},
		"bad checksum":         {flipped, false},
		"a bit turned":         {middle, false},
		"truncated":            {good[:len(good)/2], false},
		"without its checksum": {good[:len(good)-20], false},
		"nothing":              {nil, false},
		"no pack":              {[]byte("<html>come in</html>"), false},
		"another commit":       {packOf(3, others...), false},
		"no tree":              {packOf(1, objects[0]), false},
		"more objects claimed": {packOf(1<<31, objects...), false},
		"size lies":            {packOf(3, objects[0], objects[1], packed{kind: 3, size: 1 << 40, data: lies}), false},
		"delta of nothing":     {packOf(4, append(objects, missing)...), false},
		"delta claims much":    {packOf(4, append(objects, packed{kind: 7, base: objects[2].name(), data: append(varint(5), varint(1<<40)...)})...), false},
		"delta bomb":           {packOf(len(bomb), bomb...), false},
		"unknown kind":         {packOf(4, append(objects, packed{kind: 5, data: lies})...), false},
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			s := open(t, git.Options{URL: serveRaw(t, refsOf(head), packsOf(c.pack)), Cache: cache})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			snapshot, err := s.Next(ctx, "")
			runtime.ReadMemStats(&after)
			if c.ok {
				if err != nil || sourcetest.Contents(t, snapshot.FS)["a"] != "hello" {
					t.Errorf("the server of these tests is not as it should be: %v", err)
				}
				return
			}
			if !errors.Is(err, sources.ErrUnavailable) {
				t.Errorf("Next: %v", err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 256<<20 {
				t.Errorf("took %d MiB", took>>20)
			}
			if left, err := filepath.Glob(filepath.Join(cache, "*", "objects", "pack", "incoming-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind %v, %v", left, err)
			}
		})
	}
}

// A file that is small on the way and huge once unpacked is refused by name.
func TestZipBomb(t *testing.T) {
	const size = 300 << 20
	sum := sha1.New()
	fmt.Fprintf(sum, "blob %d\x00", size)
	var small bytes.Buffer
	z := zlib.NewWriter(&small)
	zeros(io.MultiWriter(z, sum), size)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	tree := packed{kind: 2, data: []byte("100644 a\x00" + string(sum.Sum(nil)))}
	commit := packed{kind: 1, data: []byte("tree " + tree.name() + "\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n")}
	pack := packOf(3, commit, tree)
	pack = pack[:len(pack)-20]
	first, n := byte(3<<4), size>>4
	for ; n > 0; n >>= 7 {
		pack = append(pack, first|0x80)
		first = byte(n & 0x7f)
	}
	pack = append(append(pack, first), small.Bytes()...)
	total := sha1.Sum(pack)
	pack = append(pack, total[:]...)
	s := open(t, git.Options{URL: serveRaw(t, refsOf(commit.name()), packsOf(pack))})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := s.Next(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "git.MaxObject") {
		t.Errorf("a file of %d bytes: %v", size, err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 128<<20 {
		t.Errorf("%d KiB on the way took %d MiB of memory", len(pack)>>10, took>>20)
	}
}

func zeros(w io.Writer, n int) {
	block := make([]byte, 1<<20)
	for ; n > 0; n -= len(block) {
		_, _ = w.Write(block)
	}
}

// TestHostileRefs: names that are none, circles and lists without end.
func TestHostileRefs(t *testing.T) {
	t.Parallel()
	head, objects := oneCommit("hello")
	pack := packsOf(packOf(3, objects...))
	t.Run("names that are none", func(t *testing.T) {
		t.Parallel()
		cache := t.TempDir()
		url := serveRaw(t, refsOf(head, head+" refs/heads/../../../../etc/x", head+" refs/heads/-u", head+" refs/tags/v1\x01", head+" ../x"), pack)
		s := open(t, git.Options{URL: url, Cache: cache})
		if got, err := s.Next(t.Context(), ""); err != nil || got.Label != "main@"+head[:7] {
			t.Errorf("got %s, %v", got.Label, err)
		}
		// What is stored is named by hashes, never by what the server calls it.
		_ = filepath.WalkDir(cache, func(path string, _ os.DirEntry, err error) error {
			if strings.Contains(path, "refs") || err != nil {
				t.Errorf("the store has %s, %v", path, err)
			}
			return nil
		})
	})
	for name, symref := range map[string]string{"HEAD names itself": "HEAD:HEAD", "HEAD names what isn't there": "HEAD:refs/heads/none", "HEAD leads out": "HEAD:refs/heads/../../x", "HEAD names nothing": "HEAD:"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serveRaw(t, func(w io.Writer) {
				_, _ = io.WriteString(w, line(head+" HEAD\x00symref="+symref+"\n")+line(head+" refs/heads/main\n"))
			}, pack)
			s := open(t, git.Options{URL: url})
			if _, err := s.Next(t.Context(), ""); !errors.Is(err, sources.ErrUnavailable) {
				t.Errorf("Next: %v", err)
			}
		})
	}
	t.Run("a list without end", func(t *testing.T) {
		t.Parallel()
		url := serveRaw(t, func(w io.Writer) {
			refsOf(head)(w)
			for i := 0; ; i++ {
				if _, err := io.WriteString(w, line(fmt.Sprintf("%s refs/heads/branch-%040d\n", head, i))); err != nil {
					return
				}
			}
		}, pack)
		if _, err := open(t, git.Options{URL: url}).Next(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "64 MiB of refs") {
			t.Errorf("Next: %v", err)
		}
	})
	t.Run("circles on disk", func(t *testing.T) {
		t.Parallel()
		repo := sourcetest.NewRepo(t)
		repo.Commit("main", map[string]string{"a": "1"})
		for from, to := range map[string]string{"a": "refs/heads/b", "b": "refs/heads/a", "out": "refs/heads/../../../../../../etc/passwd"} {
			if err := os.WriteFile(filepath.Join(repo.Dir, "refs", "heads", from), []byte("ref: "+to+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"a", "b", "out"} {
			if _, err := open(t, git.Options{URL: repo.Dir, Ref: name}).Next(t.Context(), ""); !errors.Is(err, sources.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestEmptyRepository: no branch yet is an error that says so, until there is one.
func TestEmptyRepository(t *testing.T) {
	t.Parallel()
	for _, remote := range []bool{false, true} {
		repo := sourcetest.NewRepo(t)
		url := repo.Dir
		if remote {
			url = sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL
		}
		s := open(t, git.Options{URL: url, Ref: "main"})
		refused(t, s, sources.Snapshot{}, sources.ErrNotFound)
		repo.Commit("main", map[string]string{"a": "1"})
		if got := sourcetest.Contents(t, sourcetest.Await(t, s, "").FS)["a"]; got != "1" {
			t.Errorf("after the first push: %q", got)
		}
	}
}

// TestDefaultBranch: an orphan branch shares nothing with the one before, and
// where HEAD comes to name another branch, that is followed.
func TestDefaultBranch(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	repo.Commit("main", map[string]string{"a": "1", "only": "main"})
	repo.Run("symbolic-ref", "HEAD", "refs/heads/main")
	for _, url := range []string{repo.Dir, sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL} {
		repo.Run("symbolic-ref", "HEAD", "refs/heads/main")
		s := open(t, git.Options{URL: url})
		first := sourcetest.Await(t, s, "")
		if !strings.HasPrefix(string(first.Revision), "main@") {
			t.Fatalf("got %s", first.Revision)
		}
		if !repo.Has("trunk") {
			repo.Commit("trunk", map[string]string{"a": "2"})
		}
		repo.Run("symbolic-ref", "HEAD", "refs/heads/trunk")
		second := sourcetest.Await(t, s, first.Revision)
		if got := sourcetest.Contents(t, second.FS); !strings.HasPrefix(string(second.Revision), "trunk@") || got["a"] != "2" || got["only"] != "" {
			t.Errorf("%s: got %s with %v", url, second.Revision, got)
		}
	}
}

// TestOddServers: what a server says that isn't Git's protocol is told, by name
// where it is known, and with no byte that a terminal takes for a command.
func TestOddServers(t *testing.T) {
	t.Parallel()
	sha256 := sourcetest.NewRepo(t)
	sha256.Dir = filepath.Join(t.TempDir(), "repo.git")
	if out, err := exec.CommandContext(t.Context(), "git", "init", "--quiet", "--bare", "--object-format=sha256", "--initial-branch=main", sha256.Dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sha256.Commit("main", map[string]string{"a": "1"})
	head, _ := oneCommit("hello")
	nothing := func(http.ResponseWriter) {}
	for name, c := range map[string]struct{ url, want string }{
		"SHA-256 in a directory": {sha256.Dir, "sha256"},
		"SHA-256 over HTTP":      {sourcetest.ServeHTTP(t, sha256, sourcetest.HTTPOptions{}).URL, "SHA-256"},
		"escapes for refs":       {serveRaw(t, func(w io.Writer) { _, _ = io.WriteString(w, line("\x1b]0;owned\x07\x1b[2J"+head)) }, nothing), "as Git's servers do"},
		"escapes in an error":    {serveRaw(t, func(w io.Writer) { _, _ = io.WriteString(w, line("ERR \x1b[2Jgone\xff")) }, nothing), "gone"},
		"escapes before a pack":  {serveRaw(t, refsOf(head), func(w http.ResponseWriter) { _, _ = io.WriteString(w, line("ERR \x1b[2Jgone")) }), "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := open(t, git.Options{URL: c.url}).Next(t.Context(), "")
			if !errors.Is(err, sources.ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Next: %v, want %q", err, c.want)
			}
			if said := err.Error(); !utf8.ValidString(said) || strings.ContainsFunc(said, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
				t.Errorf("it says %q", said)
			}
		})
	}
}

// TestEndlessHead: what a server sends before a pack is kept in memory, and so is
// given up where it has no end.
func TestEndlessHead(t *testing.T) {
	t.Parallel()
	head, _ := oneCommit("hello")
	for _, each := range []string{line("shallow " + head), line("unshallow " + head)} {
		var sent atomic.Int64
		url := serveRaw(t, func(w io.Writer) {
			_, _ = io.WriteString(w, line(head+" HEAD\x00ofs-delta shallow symref=HEAD:refs/heads/main\n")+line(head+" refs/heads/main\n"))
		}, func(w http.ResponseWriter) {
			for sent.Load() < 256<<20 {
				n, err := io.WriteString(w, each)
				if err != nil {
					return
				}
				sent.Add(int64(n))
			}
		})
		_, err := open(t, git.Options{URL: url}).Next(t.Context(), "")
		if !errors.Is(err, sources.ErrUnavailable) || sent.Load() >= 256<<20 {
			t.Errorf("%.12q without end: %v after %d bytes", each, err, sent.Load())
		}
	}
}

// TestSlowServer: a server that sends a byte now and then, or none, is given up.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	head, objects := oneCommit("hello")
	pack := packOf(3, objects...)
	stuck := func(w http.ResponseWriter) {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-t.Context().Done():
		case <-time.After(time.Minute):
		}
	}
	for name, url := range map[string]string{
		"refs": serveRaw(t, func(w io.Writer) { refsOf(head)(w); stuck(w.(http.ResponseWriter)) }, packsOf(pack)),
		"pack": serveRaw(t, refsOf(head), func(w http.ResponseWriter) { packsOf(pack[:20])(w); stuck(w) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := git.Options{URL: url}
			o.SetIdle(200 * time.Millisecond)
			began := time.Now()
			_, err := open(t, o).Next(t.Context(), "")
			if took := time.Since(began); !errors.Is(err, sources.ErrUnavailable) || took > 30*time.Second {
				t.Errorf("after %s: %v", took, err)
			}
		})
	}
}

// TestBytesAreGitsOwn: no attribute of a repository changes what is read, so
// digests are the same on Linux and on Windows.
func TestBytesAreGitsOwn(t *testing.T) {
	t.Parallel()
	repo := sourcetest.NewRepo(t)
	want := map[string]string{".gitattributes": "* text=auto eol=crlf ident filter=lfs working-tree-encoding=UTF-16\n", "crlf": "a\r\nb\r\n", "lf": "a\nb\n", "ident": "$Id$\n"}
	repo.Commit("main", want)
	repo.Run("config", "core.autocrlf", "true")
	for _, url := range []string{repo.Dir, sourcetest.ServeHTTP(t, repo, sourcetest.HTTPOptions{}).URL} {
		if diff := cmp.Diff(want, sourcetest.Contents(t, sourcetest.Await(t, open(t, git.Options{URL: url}), "").FS)); diff != "" {
			t.Errorf("%s: %s", url, diff)
		}
	}
}
