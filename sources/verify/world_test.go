package verify_test

import (
	"bytes"
	"crypto"
	"crypto/dsa" //nolint:staticcheck // a key that must be refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // a hash that must be refused
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/ssh"

	"github.com/tandem-gitops/tandem/sources/verify"
)

// noon is when commits of these tests are made.
const noon = 1_750_000_000

func now() time.Time { return time.Unix(noon+60, 0) }

// text is an honest commit without a signature.
func text() string { return at(noon) }

func at(when int64) string {
	return fmt.Sprintf("tree %s\nparent %s\nauthor Ada <ada@example.com> %d +0100\ncommitter Grace <grace@example.com> %d +0000\n\nfour on Windows\n",
		strings.Repeat("1", 40), strings.Repeat("2", 40), when, when)
}

// with puts a signature into a commit where Git puts it.
func with(commit, signature string) string {
	head, message, _ := strings.Cut(commit, "\n\n")
	return head + "\ngpgsig " + strings.ReplaceAll(strings.TrimSuffix(signature, "\n"), "\n", "\n ") + "\n\n" + message
}

// sshSig is a signature as ssh-keygen -Y sign makes it, with every part free.
type sshSig struct {
	magic, namespace, inMessage, reserved, hash string
	version                                     uint32
	key                                         ssh.PublicKey // told; of the signer where nil
	algorithm                                   string        // of RSA
}

func honest() sshSig {
	return sshSig{magic: "SSHSIG", namespace: "git", inMessage: "git", hash: "sha512", version: 1}
}

func (s sshSig) sign(t testing.TB, signer ssh.Signer, payload string) []byte {
	t.Helper()
	var sum []byte
	switch s.hash {
	case "sha256":
		h := sha256.Sum256([]byte(payload))
		sum = h[:]
	case "sha1":
		h := sha1.Sum([]byte(payload)) //nolint:gosec // must be refused
		sum = h[:]
	default:
		h := sha512.Sum512([]byte(payload))
		sum = h[:]
	}
	message := append([]byte(s.magic), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{s.inMessage, s.reserved, s.hash, sum})...)
	var sig *ssh.Signature
	var err error
	if multi, ok := signer.(ssh.AlgorithmSigner); ok && s.algorithm != "" {
		sig, err = multi.SignWithAlgorithm(rand.Reader, message, s.algorithm)
	} else {
		sig, err = signer.Sign(rand.Reader, message)
	}
	if err != nil {
		t.Fatal(err)
	}
	key := signer.PublicKey()
	if s.key != nil {
		key = s.key
	}
	return append([]byte(s.magic), ssh.Marshal(struct {
		Version                   uint32
		Key                       []byte
		Namespace, Reserved, Hash string
		Signature                 []byte
	}{s.version, key.Marshal(), s.namespace, s.reserved, s.hash, ssh.Marshal(sig)})...)
}

func armored(blob []byte) string {
	b := base64.StdEncoding.EncodeToString(blob)
	var out strings.Builder
	for len(b) > 70 {
		out.WriteString(b[:70] + "\n")
		b = b[70:]
	}
	return "-----BEGIN SSH SIGNATURE-----\n" + out.String() + b + "\n-----END SSH SIGNATURE-----"
}

// people have the keys of these tests.
type people struct {
	ada, eve, expired, future, otherUse, rsa, weak, ec ssh.Signer
	pgp, pgpEve, pgpExpired, pgpRevoked                *openpgp.Entity
	revokedSig                                         string // made by who has the key still
	list, keyring                                      []byte
}

func sshKey(t testing.TB, key crypto.PrivateKey) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ed(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sshKey(t, key)
}

func pgpKey(t testing.TB, name string, lifetime uint32) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", strings.ToLower(name)+"@example.com", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: lifetime, Time: func() time.Time { return time.Unix(noon-86400, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newPeople(t testing.TB) *people {
	t.Helper()
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &people{
		ada: ed(t), eve: ed(t), expired: ed(t), future: ed(t), otherUse: ed(t), rsa: sshKey(t, big), weak: sshKey(t, small), ec: sshKey(t, curve),
		pgp: pgpKey(t, "Ada", 0), pgpEve: pgpKey(t, "Eve", 0), pgpExpired: pgpKey(t, "Old", 3600), pgpRevoked: pgpKey(t, "Lost", 0),
	}
	p.revokedSig = pgpSig(t, p.pgpRevoked, text(), noon, nil)
	if err := p.pgpRevoked.RevokeKey(packet.KeyCompromised, "stolen", &packet.Config{Time: func() time.Time { return time.Unix(noon-3600, 0) }}); err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	line := func(name, options string, s ssh.Signer) {
		list.WriteString(name + " " + options + string(ssh.MarshalAuthorizedKey(s.PublicKey())))
	}
	list.WriteString("# who may release\n\n")
	line("ada@example.com", "", p.ada)
	line("old@example.com", `valid-before="20250101" `, p.expired)
	line("new@example.com", `namespaces="git",valid-after="20300101Z" `, p.future)
	line("mail@example.com", `namespaces="file,email" `, p.otherUse)
	line("rsa@example.com", `namespaces="git" `, p.rsa)
	line("ec@example.com", "", p.ec)
	p.list = []byte(list.String())
	var ring bytes.Buffer
	w, err := armor.Encode(&ring, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*openpgp.Entity{p.pgp, p.pgpExpired, p.pgpRevoked} {
		if err := e.Serialize(w); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	p.keyring = ring.Bytes()
	return p
}

func (p *people) signers(t testing.TB) *verify.Signers {
	t.Helper()
	s, err := verify.ParseSigners(p.list, p.keyring)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pgpSig is a signature as gpg makes it.
func pgpSig(t testing.TB, by *openpgp.Entity, payload string, when int64, change func(*packet.Config)) string {
	t.Helper()
	var out bytes.Buffer
	c := &packet.Config{Time: func() time.Time { return time.Unix(when, 0) }, DefaultHash: crypto.SHA256}
	if change != nil {
		change(c)
	}
	if err := openpgp.ArmoredDetachSign(&out, by, strings.NewReader(payload), c); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func dsaKey(t testing.TB) ssh.Signer {
	t.Helper()
	key := &dsa.PrivateKey{}
	if err := dsa.GenerateParameters(&key.Parameters, rand.Reader, dsa.L1024N160); err != nil {
		t.Fatal(err)
	}
	if err := dsa.GenerateKey(key, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return sshKey(t, key)
}
