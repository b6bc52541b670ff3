package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/tandem-gitops/tandem/sources"
)

// A Move takes a branch from one commit to another, or not at all.
type Move struct {
	Branch string
	Old    string // what it must be at; empty: it must not be there
	New    string
	Object []byte // the commit New, where it is to be made; its parents are in the repository, and its tree is there or in more

	more []madeObject
}

// A MovedError says that a branch was elsewhere: nothing was pushed.
type MovedError struct{ Branch, Want, Found string }

// Error says it to people.
func (e *MovedError) Error() string {
	found := "no such branch"
	if e.Found != "" {
		found = e.Found[:min(7, len(e.Found))]
	}
	want := "no such branch"
	if e.Want != "" {
		want = e.Want[:min(7, len(e.Want))]
	}
	return fmt.Sprintf("%s moved while promoting: expected %s, found %s. Nothing was pushed; plan again", e.Branch, want, found)
}

// A RefusedError says that the server doesn't let us move a branch.
type RefusedError struct{ Where, Branch, Said string }

// Error says it to people, with what to do.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s refuses the push to %s (%s): if the branch is protected, allow Tandem's user there", e.Where, e.Branch, e.Said)
}

// Push moves a branch by compare-and-swap. It looks first: a branch that is at
// New already is done, so that a push whose outcome was lost may be repeated.
// The error is a MovedError or RefusedError, which are final, or an
// ErrUnavailable, after which the outcome isn't known.
func Push(ctx context.Context, options Options, m Move) error {
	a, err := parse(options.URL)
	if err != nil {
		return err
	}
	options.Ref = m.Branch
	if options.Cache == "" {
		options.Cache = os.DevNull // nothing is fetched
	}
	if err := options.check(a); err != nil {
		return err
	}
	if a.scheme == overDaemon {
		return &RefusedError{Where: a.text, Branch: m.Branch, Said: "git:// doesn't prove who pushes: name the repository by https:// or ssh://"}
	}
	for _, h := range []string{m.Old, m.New} {
		if !plumbing.IsHash(h) && (h != "" || m.New == "") {
			return fmt.Errorf("push to %s: %q is no commit", m.Branch, h)
		}
	}
	if m.Object != nil && plumbing.ComputeHash(plumbing.CommitObject, m.Object) != plumbing.NewHash(m.New) {
		return fmt.Errorf("push to %s: the commit that is to be made isn't %s", m.Branch, m.New)
	}
	if a.scheme == local {
		err = pushLocal(a.path, m)
	} else {
		err = pushRemote(ctx, a, options.Auth, m)
	}
	if err != nil && !final(err) {
		return fmt.Errorf("push to %s of %s: %w", m.Branch, a.text, classed(err))
	}
	return err
}

func final(err error) bool {
	var moved *MovedError
	var refused *RefusedError
	return errors.As(err, &moved) || errors.As(err, &refused)
}

// A receiver is one conversation with a server that takes a pack.
type receiver interface {
	AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error)
	ReceivePack(ctx context.Context, request *packp.ReferenceUpdateRequest) (*packp.ReportStatus, error)
	Close() error
}

func pushRemote(ctx context.Context, a address, auth Auth, m Move) error {
	found, advertised, s, err := observe(ctx, a, auth, m.Branch)
	if err != nil {
		return refusal(a, m, err)
	}
	if found == m.New || found != m.Old {
		_ = s.Close() // the branch is what counts
		return settled(found, m)
	}
	var said bytes.Buffer
	request, err := update(advertised, m, &said)
	if err != nil {
		_ = s.Close()
		return err
	}
	report, err := s.ReceivePack(ctx, request)
	_ = s.Close() // the server may have hung up already; what counts has been read
	if err == nil && report != nil && report.Error() == nil {
		return nil
	}
	// Whatever was said: where the branch is now says what became of the push.
	found, _, again, looked := observe(ctx, a, auth, m.Branch)
	if looked != nil {
		return refusal(a, m, errors.Join(err, looked))
	}
	_ = again.Close()
	if found != m.Old || report == nil {
		if found == m.Old {
			return refusal(a, m, err)
		}
		return settled(found, m)
	}
	return &RefusedError{Where: a.text, Branch: m.Branch, Said: words(report, said.String())}
}

// settled is what a branch that isn't at Old means.
func settled(found string, m Move) error {
	if found == m.New {
		return nil
	}
	return &MovedError{Branch: m.Branch, Want: m.Old, Found: found}
}

// refusal makes what a server says of who we are final: somebody has to change a
// credential before another try makes sense.
func refusal(a address, m Move, err error) error {
	if err == nil {
		return errors.New("the server gave no answer")
	}
	if err := explain(err); errors.Is(err, sources.ErrDenied) {
		return &RefusedError{Where: a.text, Branch: m.Branch, Said: err.Error()}
	}
	return err
}

// words is why a server refused, as it says it, on one line.
func words(report *packp.ReportStatus, progress string) string {
	why := report.UnpackStatus
	for _, c := range report.CommandStatuses {
		if c.Status != "ok" {
			why = c.Status
		}
	}
	const most = 300
	if lines := strings.Join(strings.Fields(progress), " "); lines != "" {
		why += "; " + lines
	}
	if r := []rune(why); len(r) > most {
		why = string(r[:most]) + "…"
	}
	return strings.ToValidUTF8(why, "\uFFFD")
}

// observe says where a branch is, and leaves the conversation open; "" is
// nowhere.
func observe(ctx context.Context, a address, auth Auth, branch string) (string, *packp.AdvRefs, receiver, error) {
	s, err := dialReceiver(ctx, a, auth)
	if err != nil {
		return "", nil, nil, err
	}
	advertised, err := s.AdvertisedReferencesContext(ctx)
	if err != nil && !errors.Is(err, transport.ErrEmptyRemoteRepository) {
		_ = s.Close() // the error before counts
		return "", nil, nil, err
	}
	if advertised == nil {
		advertised = packp.NewAdvRefs()
	}
	found := ""
	if h, ok := advertised.References[fullName(branch)]; ok {
		found = h.String()
	}
	return found, advertised, s, nil
}

// update is the request: one command that the server does only where the branch
// is at Old, and a pack with the commit that is made, or with nothing.
func update(advertised *packp.AdvRefs, m Move, said io.Writer) (*packp.ReferenceUpdateRequest, error) {
	request := packp.NewReferenceUpdateRequest()
	for _, c := range []capability.Capability{capability.ReportStatus, capability.Sideband64k} {
		if advertised.Capabilities.Supports(c) {
			if err := request.Capabilities.Set(c); err != nil {
				return nil, err
			}
		}
	}
	if !advertised.Capabilities.Supports(capability.ReportStatus) {
		return nil, errors.New("the server doesn't report what becomes of a push")
	}
	request.Progress = said
	request.Commands = []*packp.Command{{Name: plumbing.ReferenceName(fullName(m.Branch)), Old: plumbing.NewHash(m.Old), New: plumbing.NewHash(m.New)}}
	objects := memory.NewStorage()
	var hashes []plumbing.Hash
	for _, o := range m.objects() {
		h, err := keep(objects, o.kind, o.content)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, objects, false).Encode(hashes, 0); err != nil {
		return nil, fmt.Errorf("make a pack: %w", err)
	}
	request.Packfile = io.NopCloser(&pack)
	return request, nil
}

// lockWait is how long another's hold on a branch is waited for.
const lockWait = 5 * time.Second

// pushLocal moves a branch of a repository on this machine as git itself does:
// under the ref's lock file.
func pushLocal(path string, m Move) error {
	l, err := Locate(path)
	if err != nil {
		return err
	}
	storage, err := l.open()
	if err != nil {
		return err
	}
	name := filepath.Join(l.CommonDir, filepath.FromSlash(fullName(m.Branch)))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	lock, err := takeLock(name + ".lock")
	if err != nil {
		return err
	}
	mine := true
	defer func() {
		_ = lock.Close()
		if mine { // where it became the ref, what has this name now is somebody else's
			_ = os.Remove(lock.Name())
		}
	}()
	found := ""
	if ref, err := storage.Reference(plumbing.ReferenceName(fullName(m.Branch))); err == nil {
		found = ref.Hash().String()
	} else if !errors.Is(err, plumbing.ErrReferenceNotFound) {
		return err
	}
	if found != m.Old {
		return settled(found, m)
	}
	if l.WorkTree != "" && checkedOut(storage, m.Branch) {
		return &RefusedError{Where: path, Branch: m.Branch, Said: "it is checked out in a work tree"}
	}
	if err := makeCommit(storage, m); err != nil {
		return err
	}
	if _, err := lock.WriteString(m.New + "\n"); err != nil {
		return err
	}
	if err := errors.Join(lock.Sync(), lock.Close()); err != nil {
		return err
	}
	err = os.Rename(lock.Name(), name)
	mine = err != nil
	return err
}

func checkedOut(storage *filesystem.Storage, branch string) bool {
	head, err := storage.Reference(plumbing.HEAD)
	return err == nil && head.Type() == plumbing.SymbolicReference && head.Target().String() == fullName(branch)
}

// makeCommit writes the commit where it is to be made; else it must be there.
func makeCommit(storage *filesystem.Storage, m Move) error {
	if m.Object == nil {
		if storage.HasEncodedObject(plumbing.NewHash(m.New)) != nil {
			return fmt.Errorf("there is no commit %s: %w", m.New, sources.ErrNotFound)
		}
		return nil
	}
	for _, o := range m.objects() {
		if _, err := keep(storage, o.kind, o.content); err != nil {
			return err
		}
	}
	return nil
}

// objects are those that are made, the commit last.
func (m *Move) objects() []madeObject {
	out := slices.Clone(m.more)
	if m.Object != nil {
		out = append(out, madeObject{plumbing.CommitObject, m.Object})
	}
	return out
}

// takeLock makes a lock file that nobody else has.
func takeLock(name string) (*os.File, error) {
	for end := time.Now().Add(lockWait); ; {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the branch is locked by %s: %w", name, sources.ErrUnavailable)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
