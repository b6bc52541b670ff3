package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/tandem-gitops/tandem/sources"
)

// A stream is a conversation with git-upload-pack over one connection, as SSH
// and git:// have it.
type stream struct {
	in     io.WriteCloser
	out    io.Reader
	conn   *impatient
	silent func() error // why the server hung up without a word

	refs  *packp.AdvRefs
	asked bool
}

// maxAnswerHead is how many bytes a server may send before a pack: what is
// shallow and what both sides have is kept in memory.
const maxAnswerHead = 1 << 20

// AdvertisedReferencesContext reads what the server has.
func (s *stream) AdvertisedReferencesContext(context.Context) (*packp.AdvRefs, error) {
	refs := packp.NewAdvRefs()
	err := refs.Decode(io.LimitReader(s.out, maxAdvertised))
	said, isSaid := errors.AsType[*pktline.ErrorLine](err)
	switch {
	case errors.Is(err, packp.ErrEmptyAdvRefs):
		return nil, transport.ErrEmptyRemoteRepository
	case errors.Is(err, packp.ErrEmptyInput):
		return nil, s.silent()
	case isSaid:
		return nil, fmt.Errorf("the server says %q: %w", said.Text[:min(len(said.Text), maxWords)], sources.ErrNotFound)
	case err != nil:
		return nil, err
	case refs.IsEmpty():
		return nil, transport.ErrEmptyRemoteRepository
	}
	s.refs = refs
	return refs, nil
}

// UploadPack asks for a pack.
func (s *stream) UploadPack(_ context.Context, request *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if err := request.Validate(); err != nil {
		return nil, err
	}
	s.asked = true
	err := request.UploadRequest.Encode(s.in)
	if err == nil {
		err = request.UploadHaves.Encode(s.in, true)
	}
	if err == nil {
		err = pktline.NewEncoder(s.in).EncodeString("done\n")
	}
	if err == nil {
		err = s.in.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("ask for a pack: %w", err)
	}
	head := &answer{stream: s, left: maxAnswerHead}
	response := packp.NewUploadPackResponse(request)
	if err := response.Decode(io.NopCloser(head)); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	head.over = true
	return response, nil
}

// farewell tells a server that waits for a request that nothing is wanted.
func (s *stream) farewell() error {
	if s.refs == nil || s.asked {
		return nil
	}
	_, err := s.in.Write(pktline.FlushPkt)
	return err
}

// An answer is what a server sends after a request: no more than so many bytes
// until its head is over.
type answer struct {
	stream *stream
	left   int64
	over   bool
}

func (a *answer) Read(p []byte) (int, error) {
	if !a.over {
		if a.left <= 0 {
			return 0, fmt.Errorf("the server sends more than %d bytes before the pack: gave up (limit git.maxAnswerHead)", maxAnswerHead)
		}
		p = p[:min(int64(len(p)), a.left)]
	}
	n, err := a.stream.out.Read(p)
	a.left -= int64(n)
	if errors.Is(err, io.EOF) {
		if broke := a.stream.conn.broke.Load(); broke != nil {
			err = *broke // SSH tells a connection that broke as an end
		}
	}
	return n, err
}

// impatient is a connection that fails when it stands still.
type impatient struct {
	net.Conn
	idle  time.Duration
	broke atomic.Pointer[error] // the first error of reading that is no end
}

func (c *impatient) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.broke.CompareAndSwap(nil, &err)
	}
	return n, err
}

func (c *impatient) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
