package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
)

// daemonSession is a conversation with `git daemon`. The protocol has no proof of
// who serves, of who asks, or of what comes: Options.check lets it through to
// this machine alone, and to hosts that who runs Tandem trusts by name.
type daemonSession struct {
	stream
	stop func() bool
}

func dialDaemon(ctx context.Context, a address) (*daemonSession, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", a.host)
	if err != nil {
		return nil, err
	}
	s := &daemonSession{}
	s.conn = &impatient{Conn: conn, idle: cmp.Or(a.idle, idleTimeout)}
	s.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	s.in, s.out = &halfOpen{s.conn}, s.conn
	s.silent = func() error { return errors.New("the server hung up without a word") }
	// The path and the host are ended by a NUL each: parse lets none be in them.
	if err := pktline.NewEncoder(s.conn).EncodeString(fmt.Sprintf("git-upload-pack %s\x00host=%s\x00", a.path, a.host)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the conversation.
func (s *daemonSession) Close() error {
	s.stop()
	return errors.Join(s.farewell(), s.conn.Close())
}

// halfOpen leaves a connection open where the request has ended: git's own client
// does, and the answer is still to come.
type halfOpen struct{ net.Conn }

func (*halfOpen) Close() error { return nil }
