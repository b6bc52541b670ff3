package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tandem-gitops/tandem/reconciler/history/recordpb"
	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

const (
	joinMethod  = "/tandem.agent.v1.Join/Join"
	renewMethod = "/tandem.agent.v1.Join/Renew"
)

// obtainMost is how long a controller may take to give a certificate: one that
// hangs is asked again, before the old certificate has ended.
const obtainMost = time.Minute

type joinRequest struct {
	Token   string         `pb:"1"`
	Node    state.NodeName `pb:"2"`
	Request []byte         `pb:"3"` // PKCS #10, DER
	Old     []byte         `pb:"4"` // Rejoin: the expired certificate, DER
	Proof   []byte         `pb:"5"` // Rejoin: its key's signature
}

type joinReply struct {
	Certificate []byte `pb:"1"` // PEM
	Authority   []byte `pb:"2"`
}

// A Ledger is told that a node is about to be given a certificate for a token,
// or for its expired certificate (the token is then empty). None is given before
// it has answered without an error. What it returns is called once it is known
// whether the node got one.
type Ledger func(ctx context.Context, node state.NodeName, t Token) (outcome func(ok bool), err error)

// handle takes a call off the wire, and puts its answer there.
func handle(f func(context.Context, *joinRequest) (*joinReply, error)) grpc.MethodHandler {
	return func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in wrapperspb.BytesValue
		var req joinRequest
		if err := dec(&in); err != nil {
			return nil, err
		}
		if err := recordpb.UnmarshalLenient(in.GetValue(), &req); err != nil {
			return nil, status.Error(codes.InvalidArgument, "the request is malformed")
		}
		reply, err := f(ctx, &req)
		if err != nil {
			return nil, statusOf(err)
		}
		b, err := recordpb.Marshal(reply)
		return wrapperspb.Bytes(b), err
	}
}

// Register puts the calls of joining and renewing on a gRPC server. Joining
// asks for a token and no certificate, renewing for a certificate and no token.
func Register(s grpc.ServiceRegistrar, a *Authority, t *Tokens, ledger Ledger, logger *slog.Logger) {
	join := func(ctx context.Context, r *joinRequest) (*joinReply, error) {
		if err := validNode(r.Node); err != nil {
			return nil, err
		}
		refused := func(err error) (*joinReply, error) {
			logger.LogAttrs(ctx, slog.LevelWarn, "refused a join token", slog.String("node", string(r.Node)))
			return nil, err
		}
		token, err := t.check(r.Token, r.Node)
		if err != nil {
			return refused(err)
		}
		// The record first: where it can't be made, the token stays as good as it was.
		outcome, err := ledger(ctx, r.Node, token)
		if err != nil {
			return nil, err
		}
		if _, err := t.redeem(r.Token, r.Node); err != nil { // another machine was faster
			outcome(false)
			return refused(err)
		}
		reply, err := certify(a, r.Node, r)
		outcome(err == nil)
		if err == nil {
			logger.LogAttrs(ctx, slog.LevelInfo, "gave a node its certificate", slog.String("node", string(r.Node)), slog.String("token", token.ID))
		}
		return reply, err
	}
	renew := func(ctx context.Context, r *joinRequest) (*joinReply, error) {
		node, err := Identify(ctx)
		if err != nil {
			return nil, err
		}
		return certify(a, node, r)
	}
	rejoin := func(ctx context.Context, r *joinRequest) (*joinReply, error) {
		node, err := a.rejoining(r, time.Now())
		if err != nil {
			logger.LogAttrs(ctx, slog.LevelWarn, "refused a rejoin", slog.Any("err", err))
			return nil, err
		}
		outcome, err := ledger(ctx, node, Token{})
		if err != nil {
			return nil, err
		}
		reply, err := certify(a, node, r)
		outcome(err == nil)
		if err == nil {
			logger.LogAttrs(ctx, slog.LevelInfo, "gave a node a certificate for an expired one", slog.String("node", string(node)))
		}
		return reply, err
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "tandem.agent.v1.Join", HandlerType: (*any)(nil), Metadata: "runtimes/agent/join/join.go",
		Methods: []grpc.MethodDesc{{MethodName: "Join", Handler: handle(join)}, {MethodName: "Renew", Handler: handle(renew)}, {MethodName: "Rejoin", Handler: handle(rejoin)}},
	}, a)
}

func certify(a *Authority, node state.NodeName, r *joinRequest) (*joinReply, error) {
	cert, err := a.Node(node, r.Request)
	if err != nil {
		return nil, err
	}
	return &joinReply{Certificate: cert, Authority: a.PEM()}, nil
}

func statusOf(err error) error {
	if errors.Is(err, runtimes.ErrRejected) {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

// validNode wants a DNS-1123 subdomain, as Kubernetes does for nodes.
func validNode(n state.NodeName) error {
	ok := len(n) > 0 && len(n) <= 253
	for i, c := range []byte(n) {
		edge := i == 0 || i == len(n)-1
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || !edge && (c == '-' || c == '.'))
	}
	if !ok {
		return fmt.Errorf("node name %q: want lower case letters, digits, - and .: %w", n, runtimes.ErrRejected)
	}
	return nil
}

// Join buys a certificate with a token and puts it into dir, with its key and
// the authority's certificate.
func Join(ctx context.Context, address, token string, node state.NodeName, dir string) error {
	_, _, pin, err := splitToken(token)
	if err != nil {
		return fmt.Errorf("join token: %w: %w", err, runtimes.ErrRejected)
	}
	if err := validNode(node); err != nil {
		return err
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(pinned(pin))))
	if err != nil {
		return err
	}
	err = obtain(ctx, conn, joinMethod, &joinRequest{Token: token, Node: node}, dir, nil)
	return errors.Join(err, conn.Close())
}

// pinned trusts a server whose chain ends in the authority of that pin, and
// nobody else. Its names don't count: the pin says who it is.
func pinned(pin state.Digest) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
		VerifyConnection: func(s tls.ConnectionState) error {
			roots := x509.NewCertPool()
			found := false
			for _, c := range s.PeerCertificates[1:] {
				if c.IsCA && state.DigestOf(c.RawSubjectPublicKeyInfo) == pin {
					roots.AddCert(c)
					found = true
				}
			}
			if !found {
				return errors.New("the server is not the one that made this token")
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
			return err
		},
	}
}

// obtain makes a key, asks for a certificate, and keeps both. Complete, where
// there is one, adds what belongs to the request for the new key.
func obtain(ctx context.Context, conn grpc.ClientConnInterface, method string, r *joinRequest, dir string, complete func(*joinRequest) error) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if r.Request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return err
	}
	if complete != nil {
		if err := complete(r); err != nil {
			return err
		}
	}
	b, err := recordpb.Marshal(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, obtainMost)
	defer cancel()
	var out wrapperspb.BytesValue
	if err := conn.Invoke(ctx, method, wrapperspb.Bytes(b), &out); err != nil {
		return answered(err)
	}
	var reply joinReply
	if err := recordpb.UnmarshalLenient(out.GetValue(), &reply); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// Certificate and key in one file: they change together or not at all.
	if err := atomicfile.WriteDurable(filepath.Join(dir, "node.pem"), append(reply.Certificate, encode("PRIVATE KEY", der)...), 0o600); err != nil {
		return err
	}
	return atomicfile.WriteDurable(filepath.Join(dir, "ca.crt"), reply.Authority, 0o644)
}

// answered makes an error of gRPC one of ours. The controller's words end with
// the class already, where it has one.
func answered(err error) error {
	class := runtimes.ErrUnavailable
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument:
		class = runtimes.ErrRejected
	}
	said := strings.TrimSuffix(status.Convert(err).Message(), ": "+class.Error())
	return fmt.Errorf("%s: %w", said, class)
}

func current(dir string) (*tls.Certificate, error) {
	b, err := os.ReadFile(filepath.Join(dir, "node.pem"))
	if err != nil {
		return nil, fmt.Errorf("this machine has not joined: %w", err)
	}
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "node.pem"), err)
	}
	return &c, nil
}

// TLS is what an agent that joined dials with: its newest certificate, and its
// authority only.
func TLS(dir string) (*tls.Config, error) {
	if _, err := current(dir); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: no certificate in it", filepath.Join(dir, "ca.crt"))
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return current(dir) },
	}, nil
}

// Renew gets a node a new certificate for the one that it has.
func Renew(ctx context.Context, conn grpc.ClientConnInterface, dir string) error {
	return obtain(ctx, conn, renewMethod, &joinRequest{}, dir, nil)
}

// KeepFresh renews the certificate whenever two thirds of its time are over,
// until ctx ends. One that expired while the machine was off is exchanged first.
func KeepFresh(ctx context.Context, conn grpc.ClientConnInterface, address, dir string, logger *slog.Logger) {
	for ctx.Err() == nil {
		wait := time.Minute
		if c, err := current(dir); err != nil {
			logger.LogAttrs(ctx, slog.LevelWarn, "found no certificate to renew", slog.Any("err", err))
		} else if due := dueAt(c.Leaf); time.Now().Before(due) {
			wait = time.Until(due)
		} else if err := fresh(ctx, conn, c, address, dir); err != nil {
			level := slog.LevelWarn
			if errors.Is(err, runtimes.ErrRejected) {
				level = slog.LevelError
			}
			logger.LogAttrs(ctx, level, "renewed no certificate", slog.Any("err", err))
		} else {
			logger.LogAttrs(ctx, slog.LevelInfo, "renewed the certificate")
		}
		t := time.NewTimer(min(wait, time.Hour)) // the clock may be set meanwhile
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func fresh(ctx context.Context, conn grpc.ClientConnInterface, c *tls.Certificate, address, dir string) error {
	if unexpired(c) {
		return Renew(ctx, conn, dir)
	}
	return Rejoin(ctx, address, dir)
}

func dueAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}
