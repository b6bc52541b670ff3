package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/tandem-gitops/tandem/sources"
	"github.com/tandem-gitops/tandem/sources/tree"
)

// A session is one conversation with a server: what it has, then one pack.
type session interface {
	AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error)
	UploadPack(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	Close() error
}

// remoteOrigin fetches into a store on disk.
type remoteOrigin struct {
	address address
	options *Options
	logger  *slog.Logger
	store   *store
}

func (o *remoteOrigin) look(ctx context.Context) (found, error) {
	if o.store == nil {
		opened, err := openStore(o.options.Cache)
		if err != nil {
			return found{}, fmt.Errorf("open the store: %w", err)
		}
		o.store = opened
	}
	if o.store.damaged.Load() {
		return found{}, errDamaged
	}
	if hash := plumbing.NewHash(o.options.Commit); o.options.Commit != "" && o.store.has(hash) {
		return found{hash: hash, objects: o.store.objects}, nil
	}
	s, err := dial(ctx, o.address, o.options.Auth)
	if err != nil {
		return found{}, err
	}
	f, err := o.converse(ctx, s)
	// The other side may have hung up already; what counts has been read.
	_ = s.Close()
	return f, err
}

// dial begins a conversation with git-upload-pack.
func dial(ctx context.Context, a address, auth Auth) (session, error) {
	switch a.scheme {
	case overSSH:
		return dialSSH(ctx, a, auth)
	case overDaemon:
		return dialDaemon(ctx, a)
	default:
		return dialHTTP(a, auth)
	}
}

func (o *remoteOrigin) forget() error {
	return o.store.renew()
}

func (o *remoteOrigin) converse(ctx context.Context, s session) (found, error) {
	advertised, err := s.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return found{}, fmt.Errorf("the repository is empty: push a branch: %w", sources.ErrNotFound)
	}
	if err != nil {
		return found{}, explain(err)
	}
	if o.options.Commit != "" {
		return o.fetchCommit(ctx, s, advertised, plumbing.NewHash(o.options.Commit))
	}
	hash, ref, err := o.choose(advertised)
	if err != nil {
		return found{}, err
	}
	if !o.store.has(hash) {
		if err := o.fetch(ctx, s, advertised, []plumbing.Hash{hash}, 1); err != nil {
			return found{}, fmt.Errorf("fetch %s: %w", shortName(ref), explain(err))
		}
	}
	commit, err := o.store.objects.peel(hash)
	if err != nil {
		return found{}, errors.Join(errDamaged, err)
	}
	return found{hash: commit, ref: ref, objects: o.store.objects}, nil
}

// choose finds the ref among those that the server told.
func (o *remoteOrigin) choose(advertised *packp.AdvRefs) (plumbing.Hash, string, error) {
	names := slices.Collect(maps.Keys(advertised.References))
	full, err := o.options.name(names)
	if err != nil {
		return plumbing.ZeroHash, "", err
	}
	if full == "" {
		full = headOf(advertised)
		if full == "" {
			return plumbing.ZeroHash, "", fmt.Errorf("the repository's HEAD names no branch: name one: %w", sources.ErrNotFound)
		}
	}
	hash, ok := advertised.References[full]
	if !ok {
		return plumbing.ZeroHash, "", noSuchRef(full, names)
	}
	return hash, full, nil
}

// headOf is the branch that HEAD names, or where the server is too old to say,
// the one that has HEAD's commit.
func headOf(advertised *packp.AdvRefs) string {
	for _, symbolic := range advertised.Capabilities.Get(capability.SymRef) {
		if target, ok := strings.CutPrefix(symbolic, "HEAD:"); ok {
			return target
		}
	}
	if advertised.Head == nil {
		return ""
	}
	var names []string
	for name, hash := range advertised.References {
		if hash == *advertised.Head && strings.HasPrefix(name, "refs/heads/") {
			names = append(names, name)
		}
	}
	for _, usual := range []string{"refs/heads/main", "refs/heads/master"} {
		if slices.Contains(names, usual) {
			return usual
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// fetchCommit gets a commit by its hash. A server that serves only what refs
// name is asked for all branches with their history instead.
func (o *remoteOrigin) fetchCommit(ctx context.Context, s session, advertised *packp.AdvRefs, hash plumbing.Hash) (found, error) {
	wants, depth := []plumbing.Hash{hash}, 1
	any := advertised.Capabilities.Supports(capability.AllowReachableSHA1InWant) || advertised.Capabilities.Supports(capability.Capability("allow-any-sha1-in-want"))
	if !any && !isTip(advertised, hash) {
		wants, depth = nil, 0
		for name, tip := range advertised.References {
			if strings.HasPrefix(name, "refs/heads/") {
				wants = append(wants, tip)
			}
		}
	}
	if err := o.fetch(ctx, s, advertised, wants, depth); err != nil {
		return found{}, fmt.Errorf("fetch commit %s: %w", hash, explain(err))
	}
	commit, err := o.store.objects.peel(hash)
	if err != nil {
		return found{}, err
	}
	if commit != hash {
		return found{}, fmt.Errorf("%s is a tag and not a commit: %w", hash, sources.ErrNotFound)
	}
	if depth == 0 {
		if err := o.store.keep([]plumbing.Hash{hash}); err != nil {
			return found{}, err
		}
	}
	return found{hash: hash, objects: o.store.objects}, nil
}

func isTip(advertised *packp.AdvRefs, hash plumbing.Hash) bool {
	for _, tip := range advertised.References {
		if tip == hash {
			return true
		}
	}
	return false
}

// fetch gets what the store lacks of the wanted commits. With a depth of 1 the
// server is told which commits the store has whole, so only what changed
// between them comes. Depth 0 is all history, into a store of its own.
func (o *remoteOrigin) fetch(ctx context.Context, s session, advertised *packp.AdvRefs, wants []plumbing.Hash, depth int) error {
	if depth == 0 || o.store.full() {
		if err := o.store.renew(); err != nil {
			return err
		}
	}
	request := packp.NewUploadPackRequest()
	request.Wants = wants
	offered := advertised.Capabilities
	set := func(c capability.Capability, values ...string) error {
		if !offered.Supports(c) {
			return nil
		}
		return request.Capabilities.Set(c, values...)
	}
	if err := errors.Join(set(capability.OFSDelta), set(capability.Sideband64k), set(capability.NoProgress), set(capability.Agent, "tandem")); err != nil {
		return err
	}
	if depth > 0 && offered.Supports(capability.Shallow) {
		if err := set(capability.Shallow); err != nil {
			return err
		}
		request.Depth = packp.DepthCommits(depth)
		request.Haves = o.store.tips()
		request.Shallows = o.store.tips()
	}
	if offered.Supports(capability.Filter) {
		if err := set(capability.Filter); err != nil {
			return err
		}
		request.Filter = packp.FilterBlobLimit(tree.MaxFileSize+1, packp.BlobLimitPrefixNone)
	}
	return o.receive(ctx, s, request, wants)
}

// receive puts what the server answers to a request into the store.
func (o *remoteOrigin) receive(ctx context.Context, s session, request *packp.UploadPackRequest, wants []plumbing.Hash) error {
	response, err := s.UploadPack(ctx, request)
	if err != nil {
		return err
	}
	var pack io.Reader = response
	if request.Capabilities.Supports(capability.Sideband64k) {
		pack = sideband.NewDemuxer(sideband.Sideband64k, response)
	}
	err = o.store.add(pack, wants, request.Filter != "")
	if closed := response.Close(); err == nil && closed != nil {
		o.logger.LogAttrs(ctx, slog.LevelDebug, "closed the transfer with an error", slog.Any("err", closed))
	}
	return err
}

// explain sorts the transports' errors into classes.
func explain(err error) error {
	if odd, ok := errors.AsType[*packp.ErrUnexpectedData](err); ok {
		if bytes.Contains(odd.Data, []byte("object-format=sha256")) {
			return errors.New("the repository names its objects by SHA-256, which is not supported: use a repository with SHA-1 objects")
		}
		return fmt.Errorf("the server doesn't speak as Git's servers do: %s, got %.60q", odd.Msg, odd.Data)
	}
	if said, ok := errors.AsType[*pktline.ErrorLine](err); ok {
		return fmt.Errorf("the server says %.300q", said.Text)
	}
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired):
		return fmt.Errorf("the server wants a user name and a password or token: %w", sources.ErrDenied)
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("the server refuses the password or token: %w", sources.ErrDenied)
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("the server has no such repository, or hides it from who asks: %w", sources.ErrNotFound)
	default:
		return err
	}
}
