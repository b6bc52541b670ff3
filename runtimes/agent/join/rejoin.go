package join

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// RejoinLimit is how long after its end a certificate still helps to get the
// next one: for machines that were off for long. Later it takes a token.
const RejoinLimit = 30 * 24 * time.Hour

const rejoinMethod = "/tandem.agent.v1.Join/Rejoin"

// proofContext keeps a proof from being taken for any other signature.
const proofContext = "tandem rejoin v1\x00"

// GoodUntil is when the certificate of a directory ends.
func GoodUntil(dir string) (time.Time, error) {
	c, err := current(dir)
	if err != nil {
		return time.Time{}, err
	}
	return c.Leaf.NotAfter, nil
}

// Rejoin gets a node whose certificate has expired a new one: what it shows is
// the old one, and that it has its key. TLS would refuse it before anybody could
// say why, so it shows none there.
func Rejoin(ctx context.Context, address, dir string) error {
	old, err := current(dir)
	if err != nil {
		return err
	}
	if late := time.Since(old.Leaf.NotAfter); late > RejoinLimit {
		return fmt.Errorf("the certificate expired %s ago, which is too long: join again with a token (`tandem agent token create` on the controller): %w",
			late.Round(time.Hour), runtimes.ErrRejected)
	}
	config, err := TLS(dir)
	if err != nil {
		return err
	}
	config.GetClientCertificate = nil
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return err
	}
	err = obtain(ctx, conn, rejoinMethod, &joinRequest{Old: old.Certificate[0]}, dir, func(r *joinRequest) error {
		signer, ok := old.PrivateKey.(crypto.Signer)
		if !ok {
			return fmt.Errorf("%s: its key can't sign", filepath.Join(dir, "node.pem"))
		}
		sum := proof(r.Request)
		r.Proof, err = signer.Sign(rand.Reader, sum[:], crypto.SHA256)
		return err
	})
	return errors.Join(err, conn.Close())
}

func proof(request []byte) [32]byte { return sha256.Sum256(append([]byte(proofContext), request...)) }

// rejoining is the node that an expired certificate of this authority names, if
// whoever shows it has its key and isn't too late. The proof is over the new
// key's request, so that nobody else has use for it.
func (a *Authority) rejoining(r *joinRequest, now time.Time) (state.NodeName, error) {
	refuse := func(why string) (state.NodeName, error) {
		return "", fmt.Errorf("rejoin: %s: join again with a token (`tandem agent token create` on the controller): %w", why, runtimes.ErrRejected)
	}
	cert, err := x509.ParseCertificate(r.Old)
	if err != nil {
		return refuse("the old certificate is malformed")
	}
	if err := cert.CheckSignatureFrom(a.cert); err != nil || !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return refuse("the old certificate is not of this controller")
	}
	if now.Sub(cert.NotAfter) > RejoinLimit {
		return refuse(fmt.Sprintf("the certificate expired more than %d days ago", int(RejoinLimit.Hours()/24)))
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if sum := proof(r.Request); !ok || !ecdsa.VerifyASN1(key, sum[:], r.Proof) {
		return refuse("the old key's signature is wrong")
	}
	return NodeOf(cert)
}

// unexpired says whether the certificate may still be shown in a handshake.
func unexpired(c *tls.Certificate) bool { return time.Now().Before(c.Leaf.NotAfter) }
