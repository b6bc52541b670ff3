package join

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Pass lets time go by for who serves.
func (s *Serving) Pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.now
	s.now = func() time.Time { return was().Add(d) }
}

// Aged is a node's certificate, with its key, that ended a while ago.
func (a *Authority) Aged(node state.NodeName, ago time.Duration) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := a.template(pkix.Name{CommonName: nodePrefix + string(node), Organization: []string{nodeGroup}}, NodeLife, x509.ExtKeyUsageClientAuth)
	t.NotAfter = time.Now().Add(-ago)
	t.NotBefore = t.NotAfter.Add(-NodeLife)
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, k.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pk), err
}

// RefusesRejoin is what the controller says to a certificate that ended a while
// ago, shown with its own key or another.
func (a *Authority) RefusesRejoin(node state.NodeName, ago time.Duration, other bool) error {
	cert, key, err := a.Aged(node, ago)
	if err == nil && other {
		_, key, err = a.Aged(node, ago)
	}
	if err != nil {
		return err
	}
	block, _ := pem.Decode(cert)
	raw, _ := pem.Decode(key)
	k, err := x509.ParsePKCS8PrivateKey(raw.Bytes)
	if err != nil {
		return err
	}
	r := &joinRequest{Old: block.Bytes, Request: []byte("request")}
	sum := proof(r.Request)
	if r.Proof, err = k.(crypto.Signer).Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
		return err
	}
	_, err = a.rejoining(r, time.Now())
	return err
}
