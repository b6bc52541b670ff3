package join

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// How long certificates are good for. A node renews its own when a third of
// the time is left.
const (
	AuthorityLife = 10 * 365 * 24 * time.Hour
	ServerLife    = 365 * 24 * time.Hour
	NodeLife      = 7 * 24 * time.Hour

	// skew is how far behind a node's clock may be.
	skew = 5 * time.Minute

	nodePrefix = "system:node:"
	nodeGroup  = "system:nodes"
)

// An Authority signs the certificates of one controller's servers, nodes and users.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// OpenAuthority reads the authority of a data directory, and makes it where
// there is none.
func OpenAuthority(dir string) (*Authority, error) {
	a, err := readAuthority(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "tandem"}, NotBefore: time.Now().Add(-skew),
		NotAfter: time.Now().Add(AuthorityLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// The key first: a certificate without its key would be of no use for ever.
	if err := writeKey(filepath.Join(dir, "ca.key"), key); err != nil {
		return nil, err
	}
	if err := atomicfile.WriteDurable(filepath.Join(dir, "ca.crt"), encode("CERTIFICATE", der), 0o644); err != nil {
		return nil, err
	}
	return readAuthority(dir)
}

func readAuthority(dir string) (*Authority, error) {
	crt, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	cert, err := parseCertificate(crt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "ca.crt"), err)
	}
	key, err := readKey(filepath.Join(dir, "ca.key"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is there but ca.key isn't: restore it from a backup", filepath.Join(dir, "ca.crt"))
	}
	if err != nil {
		return nil, err
	}
	if !cert.PublicKey.(*ecdsa.PublicKey).Equal(key.Public()) {
		return nil, fmt.Errorf("%s: ca.crt and ca.key don't belong together", dir)
	}
	return &Authority{cert: cert, key: key}, nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// Pool trusts the authority and nobody else.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Pin is the digest of the authority's public key, which join tokens carry.
func (a *Authority) Pin() state.Digest { return state.DigestOf(a.cert.RawSubjectPublicKeyInfo) }

// Ends is when the authority's own certificate does, and with it all of its.
func (a *Authority) Ends() time.Time { return a.cert.NotAfter }

// A Serving is the certificate that a listener serves with. It is made again
// when a third of its time is left: a controller may run for longer than it.
type Serving struct {
	authority *Authority
	hosts     []string
	now       func() time.Time

	mu   sync.Mutex
	cert *tls.Certificate
}

// Server makes the certificate of a listener that is reached by these names and
// addresses.
func (a *Authority) Server(hosts []string) (*Serving, error) {
	s := &Serving{authority: a, hosts: hosts, now: time.Now}
	_, err := s.current()
	return s, err
}

// Ends is when the certificate that is served with now does.
func (s *Serving) Ends() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cert.Leaf.NotAfter
}

func (s *Serving) current() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert == nil || s.cert.Leaf.NotAfter.Sub(s.now()) < ServerLife/3 {
		c, err := s.authority.server(s.hosts, s.now())
		switch {
		case err == nil:
			s.cert = &c
		case s.cert == nil:
			return nil, err
		}
	}
	return s.cert, nil
}

// server makes a certificate for a listener. The authority's own goes with it,
// for those who know its pin only.
func (a *Authority) server(hosts []string, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := a.template(pkix.Name{CommonName: "tandem-controller"}, ServerLife, x509.ExtKeyUsageServerAuth)
	t.NotBefore, t.NotAfter = now.Add(-skew), now.Add(ServerLife)
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, err
}

// Client makes a certificate and key, both PEM, for a user and the groups that
// the user is in.
func (a *Authority) Client(user string, groups []string, life time.Duration) (cert, key []byte, err error) {
	if strings.HasPrefix(user, nodePrefix) {
		return nil, nil, fmt.Errorf("user %q: the prefix %s is for nodes: %w", user, nodePrefix, runtimes.ErrRejected)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	cert, err = a.sign(pkix.Name{CommonName: user, Organization: groups}, k.Public(), life)
	return cert, encode("PRIVATE KEY", der), err
}

// Node signs a node's request. What the request says of itself doesn't count.
func (a *Authority) Node(node state.NodeName, request []byte) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("certificate request of node %s: %w: %w", node, err, runtimes.ErrRejected)
	}
	return a.sign(pkix.Name{CommonName: nodePrefix + string(node), Organization: []string{nodeGroup}}, csr.PublicKey, NodeLife)
}

func (a *Authority) sign(name pkix.Name, public crypto.PublicKey, life time.Duration) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, a.template(name, life, x509.ExtKeyUsageClientAuth), a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	return encode("CERTIFICATE", der), nil
}

func (a *Authority) template(name pkix.Name, life time.Duration, use x509.ExtKeyUsage) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial(), Subject: name, NotBefore: now.Add(-skew), NotAfter: now.Add(life), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
}

// TLS is the configuration of the controller's listener: agents show their
// certificate, those that join have none yet. Identify refuses them elsewhere.
func (a *Authority) TLS(server *Serving) *tls.Config {
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return server.current() },
		ClientAuth:     tls.VerifyClientCertIfGiven, ClientCAs: a.Pool(),
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"},
	}
}

// NodeOf is the node that a verified certificate names.
func NodeOf(cert *x509.Certificate) (state.NodeName, error) {
	name, ok := strings.CutPrefix(cert.Subject.CommonName, nodePrefix)
	if !ok || name == "" || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != nodeGroup {
		return "", fmt.Errorf("certificate %q is no node's: %w", cert.Subject.CommonName, runtimes.ErrRejected)
	}
	return state.NodeName(name), nil
}

// Identify is the node that calls, by its verified certificate.
func Identify(ctx context.Context) (state.NodeName, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", fmt.Errorf("the call has no peer: %w", runtimes.ErrRejected)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return "", fmt.Errorf("the caller shows no certificate: join first: %w", runtimes.ErrRejected)
	}
	return NodeOf(info.State.VerifiedChains[0][0])
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand never fails on a system that we run on
	}
	return n
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func parseCertificate(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return atomicfile.WriteDurable(path, encode("PRIVATE KEY", der), 0o600)
}

func readKey(path string) (crypto.Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no key in it", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: want an ECDSA key, got %T", path, key)
	}
	return signer, nil
}
