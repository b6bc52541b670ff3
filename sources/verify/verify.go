package verify

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/ssh"
)

// Errors of commits that are not believed.
var (
	ErrUnsigned = errors.New("the commit is not signed")
	ErrUnknown  = errors.New("the commit is signed by a key that is not in the list of signers")
	ErrBad      = errors.New("the signature is bad")
)

// Commit says who signed a commit. The key must have been valid at the time that
// the commit gives, and where now isn't zero also now: whoever has an old key
// can write any time into a commit.
func (s *Signers) Commit(raw []byte, now time.Time) (signer Signer, err error) {
	defer func() {
		if r := recover(); r != nil { // a parser's mistake proves nothing
			signer, err = Signer{}, fmt.Errorf("%w: it can't be read", ErrBad)
		}
	}()
	p, err := Parse(raw)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrBad, err)
	}
	times := []time.Time{p.When}
	if !now.IsZero() {
		if p.When.After(now.Add(clockSkew)) {
			return Signer{}, fmt.Errorf("%w: the commit is from the future, %s", ErrBad, p.When.UTC().Format(time.RFC3339))
		}
		times = append(times, now)
	}
	switch {
	case p.signature == "":
		return Signer{}, ErrUnsigned
	case strings.HasPrefix(p.signature, "-----BEGIN SSH SIGNATURE-----\n"):
		return s.bySSH(p, times)
	case strings.HasPrefix(p.signature, "-----BEGIN PGP SIGNATURE-----\n"):
		return s.byPGP(p, times)
	}
	return Signer{}, fmt.Errorf("%w: it is neither OpenPGP nor SSH", ErrBad)
}

// sshSignature is the body of an SSH signature (OpenSSH's PROTOCOL.sshsig).
type sshSignature struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// sshSigned is what an SSH signature is over.
type sshSigned struct {
	Namespace string
	Reserved  string
	Hash      string
	Sum       []byte
}

const (
	sshMagic = "SSHSIG"
	sshBegin = "-----BEGIN SSH SIGNATURE-----\n"
	sshEnd   = "\n-----END SSH SIGNATURE-----"
)

func (s *Signers) bySSH(p *Parsed, times []time.Time) (Signer, error) {
	body, ok := strings.CutPrefix(p.signature, sshBegin)
	body, tail, ended := strings.Cut(body, sshEnd)
	if !ok || !ended || strings.TrimSpace(tail) != "" {
		return Signer{}, fmt.Errorf("%w: it is cut off, or something follows it", ErrBad)
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil || !bytes.HasPrefix(blob, []byte(sshMagic)) {
		return Signer{}, fmt.Errorf("%w: it is no SSH signature", ErrBad)
	}
	var sig sshSignature
	if err := ssh.Unmarshal(blob[len(sshMagic):], &sig); err != nil || sig.Version != 1 {
		return Signer{}, fmt.Errorf("%w: it is no SSH signature of version 1", ErrBad)
	}
	if sig.Namespace != sshNamespace {
		return Signer{}, fmt.Errorf("%w: it was made for %.40q and not for git", ErrBad, sig.Namespace)
	}
	key, err := ssh.ParsePublicKey(sig.PublicKey)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: its key can't be read", ErrBad)
	}
	if err := strong(key); err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrBad, err)
	}
	var sum []byte
	switch sig.Hash {
	case "sha256":
		h := sha256.Sum256(p.payload)
		sum = h[:]
	case "sha512":
		h := sha512.Sum512(p.payload)
		sum = h[:]
	default:
		return Signer{}, fmt.Errorf("%w: it uses the hash %.40q", ErrBad, sig.Hash)
	}
	var inner ssh.Signature
	if err := ssh.Unmarshal(sig.Signature, &inner); err != nil {
		return Signer{}, fmt.Errorf("%w: it is no SSH signature", ErrBad)
	}
	if inner.Format == ssh.KeyAlgoRSA {
		return Signer{}, fmt.Errorf("%w: it uses SHA-1", ErrBad)
	}
	signed := append([]byte(sshMagic), ssh.Marshal(sshSigned{sig.Namespace, sig.Reserved, sig.Hash, sum})...)
	if err := key.Verify(signed, &inner); err != nil {
		return Signer{}, fmt.Errorf("%w: the commit is not what was signed", ErrBad)
	}
	if strings.HasPrefix(key.Type(), "sk-") && (len(inner.Rest) < 1 || inner.Rest[0]&1 == 0) {
		return Signer{}, fmt.Errorf("%w: nobody touched the security key", ErrBad)
	}
	return s.listed(key, times)
}

// listed finds the line of a key that holds at all times.
func (s *Signers) listed(key ssh.PublicKey, times []time.Time) (Signer, error) {
	refused := ErrUnknown
	for i := range s.ssh {
		a := &s.ssh[i]
		if !bytes.Equal(a.key.Marshal(), key.Marshal()) {
			continue
		}
		err := error(nil)
		if !a.mayUse(sshNamespace) {
			err = fmt.Errorf("the key of %s is not listed for git", a.name)
		}
		for _, t := range times {
			if err == nil {
				err = a.valid(t)
			}
		}
		if err == nil {
			return Signer{Name: a.name, Key: ssh.FingerprintSHA256(key)}, nil
		}
		refused = fmt.Errorf("%w: %w", ErrBad, err)
	}
	if errors.Is(refused, ErrUnknown) {
		return Signer{}, fmt.Errorf("%w: %s", refused, ssh.FingerprintSHA256(key))
	}
	return Signer{}, refused
}

func (s *Signers) byPGP(p *Parsed, times []time.Time) (Signer, error) {
	const end = "-----END PGP SIGNATURE-----"
	i := strings.Index(p.signature, end)
	if i < 0 || strings.TrimSpace(p.signature[i+len(end):]) != "" || strings.Count(p.signature, "-----BEGIN") != 1 {
		return Signer{}, fmt.Errorf("%w: it is cut off, or something follows it", ErrBad)
	}
	block, err := armor.Decode(strings.NewReader(p.signature))
	if err != nil || block.Type != openpgp.SignatureType {
		return Signer{}, fmt.Errorf("%w: it is no OpenPGP signature", ErrBad)
	}
	raw, err := io.ReadAll(io.LimitReader(block.Body, maxCommit))
	if err != nil {
		return Signer{}, fmt.Errorf("%w: its checksum is wrong", ErrBad)
	}
	sig, err := onlySignature(raw)
	if err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrBad, err)
	}
	var by *openpgp.Entity
	for _, t := range append([]time.Time{sig.CreationTime}, times...) {
		at := &packet.Config{Time: func() time.Time { return t }}
		who, err := openpgp.CheckDetachedSignature(s.pgp, bytes.NewReader(p.payload), bytes.NewReader(raw), at)
		switch {
		case err != nil && who == nil && len(s.pgp.KeysById(issuer(sig))) == 0:
			return Signer{}, fmt.Errorf("%w: %016X", ErrUnknown, issuer(sig))
		case err != nil:
			return Signer{}, fmt.Errorf("%w: %w", ErrBad, err)
		case by != nil && who != by:
			return Signer{}, fmt.Errorf("%w: two keys claim it", ErrBad)
		}
		by = who
	}
	if last := times[len(times)-1]; len(times) > 1 && sig.CreationTime.After(last.Add(clockSkew)) {
		return Signer{}, fmt.Errorf("%w: it is from the future", ErrBad)
	}
	name := ""
	if id := by.PrimaryIdentity(); id != nil {
		name = id.Name
	}
	return Signer{Name: name, Key: strings.ToUpper(hex.EncodeToString(by.PrimaryKey.Fingerprint))}, nil
}

func issuer(sig *packet.Signature) uint64 {
	if sig.IssuerKeyId == nil {
		return 0
	}
	return *sig.IssuerKeyId
}

// onlySignature refuses all but one signature over bytes with a sound hash.
func onlySignature(raw []byte) (*packet.Signature, error) {
	r := bytes.NewReader(raw)
	p, err := packet.NewReader(r).Next()
	sig, ok := p.(*packet.Signature)
	if err != nil || !ok {
		return nil, errors.New("it is no OpenPGP signature")
	}
	if r.Len() > 0 {
		return nil, errors.New("something follows it")
	}
	if sig.SigType != packet.SigTypeBinary {
		return nil, errors.New("it is not over a document")
	}
	sound := []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512}
	if !slices.Contains(sound, sig.Hash) {
		return nil, errors.New("its hash is too weak")
	}
	if sig.IssuerKeyId == nil {
		return nil, errors.New("it names no key")
	}
	return sig, nil
}
