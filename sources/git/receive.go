package git

import (
	"context"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// dialReceiver begins a conversation with git-receive-pack, with the credentials
// that fetching uses.
func dialReceiver(ctx context.Context, a address, auth Auth) (receiver, error) {
	if a.scheme == overSSH {
		s, err := startSSH(ctx, a, auth, "git-receive-pack")
		if err != nil {
			return nil, err
		}
		return &sshReceiver{s}, nil
	}
	w, err := prepareHTTP(a, auth)
	if err != nil {
		return nil, err
	}
	s, err := w.client.NewReceivePackSession(w.endpoint, w.method)
	if err != nil {
		return nil, err
	}
	return &httpReceiver{ReceivePackSession: s, way: w}, nil
}

// httpReceiver closes its connections with it.
type httpReceiver struct {
	transport.ReceivePackSession
	way *httpWay
}

func (s *httpReceiver) Close() error {
	err := s.ReceivePackSession.Close()
	s.way.closeIdle()
	return err
}

type sshReceiver struct{ *sshSession }

func (s *sshReceiver) ReceivePack(_ context.Context, request *packp.ReferenceUpdateRequest) (*packp.ReportStatus, error) {
	s.asked = true
	err := request.Encode(s.in)
	if err == nil {
		err = s.in.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("send the pack: %w", err)
	}
	answer := io.LimitReader(s.out, maxAdvertised)
	if request.Capabilities.Supports(capability.Sideband64k) {
		d := sideband.NewDemuxer(sideband.Sideband64k, answer)
		d.Progress = request.Progress
		answer = d
	}
	report := packp.NewReportStatus()
	if err := report.Decode(answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	refused := report.Error()
	return report, refused
}
