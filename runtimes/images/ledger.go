package images

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// A Ledger remembers which images of a node came only with the credentials of a
// pull Secret, so that a pod whose policy is Always gets them only where it has
// such credentials too, or its registry lets it in: the kubelet's pull records.
// What is remembered of credentials is a hash with a key of this node's. It is
// safe for concurrent use.
type Ledger struct {
	file string

	mu    sync.Mutex
	state ledgerFile
}

type ledgerFile struct {
	Key    []byte              `json:"key"`
	Images map[string][]string `json:"images"` // marks by digest; an image that isn't here is everybody's
}

const (
	ledgerKey = 32
	maxMarks  = 100 // of one image; older ones go, and are asked for again
)

// OpenLedger reads a node's ledger. One that is damaged is an error: without it
// everybody could have every image.
func OpenLedger(file string) (*Ledger, error) {
	l := &Ledger{file: file}
	raw, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.state.Key = make([]byte, ledgerKey)
		_, err = rand.Read(l.state.Key)
	case err == nil:
		if err = json.Unmarshal(raw, &l.state); err == nil && len(l.state.Key) != ledgerKey {
			err = errors.New("its key is missing")
		}
		if err != nil {
			err = fmt.Errorf("%s is damaged: %w; remove it, and remove the images too if pods may not share private ones", file, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read which images are private: %w", err)
	}
	if l.state.Images == nil {
		l.state.Images = map[string][]string{}
	}
	return l, nil
}

func (l *Ledger) mark(a *authn.AuthConfig) string {
	m := hmac.New(sha256.New, l.state.Key)
	for _, s := range []string{a.Username, a.Password, a.IdentityToken, a.RegistryToken} {
		fmt.Fprintf(m, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// Came notes how an image came here.
func (l *Ledger) Came(c *Content) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := c.Digest.String()
	had, private := l.state.Images[d]
	if !c.key.pull {
		if !private {
			return nil
		}
		delete(l.state.Images, d)
		return l.save()
	}
	m := l.mark(c.key.auth)
	if slices.Contains(had, m) {
		return nil
	}
	l.state.Images[d] = append(had[max(0, len(had)+1-maxMarks):], m)
	return l.save()
}

// Forget notes that an image is gone from the node.
func (l *Ledger) Forget(d state.Digest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.state.Images[d.String()]; !ok {
		return nil
	}
	delete(l.state.Images, d.String())
	return l.save()
}

// save writes it; mu is held.
func (l *Ledger) save() error {
	raw, err := json.Marshal(l.state)
	if err == nil {
		err = atomicfile.WriteDurable(l.file, raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note which images are private: %w", err)
	}
	return nil
}

// May says whether somebody with the Store's credentials may have an image that
// is here. Nobody is asked where it is everybody's, or came with credentials
// that he has; else its registry is.
func (l *Ledger) May(ctx context.Context, s *Store, image string, d state.Digest) error {
	n, err := parseName(image)
	if err != nil {
		return lookupError(image, err)
	}
	l.mu.Lock()
	marks, private := l.state.Images[d.String()]
	for _, e := range s.matching(n) {
		private = private && !slices.Contains(marks, l.mark(&e.auth))
	}
	l.mu.Unlock()
	if !private {
		return nil
	}
	c, err := s.Fetch(ctx, image, d)
	if err != nil {
		return fmt.Errorf("it is on this node, but came with the credentials of another pod, and with this one's: %w", err)
	}
	return l.Came(c)
}

// matching are the credentials for an image, at its registry and its mirrors.
func (s *Store) matching(n imageName) []credential {
	out := s.registry.keys.match(n.ref.Context())
	for _, at := range s.mirrors[mirrored(n)] {
		if repo, err := name.NewRepository(at + "/" + n.ref.Context().RepositoryStr()); err == nil {
			out = append(out, s.registry.keys.match(repo)...)
		}
	}
	return out
}
