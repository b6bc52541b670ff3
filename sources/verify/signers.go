package verify

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/crypto/ssh"
)

// Limits of a list of signers.
const (
	MaxSigners   = 1 << 20 // bytes
	minRSABits   = 2048
	clockSkew    = 10 * time.Minute // a commit may be this much ahead of our clock
	sshNamespace = "git"
)

// A Signer is who signed: what the list of signers calls the key.
type Signer struct {
	Name string // "ada@example.com", or an OpenPGP identity
	Key  string // "SHA256:…" of SSH, or the fingerprint of OpenPGP
}

// String is "ada@example.com (SHA256:…)".
func (s Signer) String() string { return s.Name + " (" + s.Key + ")" }

// Signers are whom to believe.
type Signers struct {
	ssh []allowed
	pgp openpgp.EntityList
}

// allowed is one line of an allowed_signers file (ssh-keygen(1)).
type allowed struct {
	name          string
	key           ssh.PublicKey
	namespaces    []string // empty: any
	after, before time.Time
}

// ErrNoSigners is a list that names nobody.
var ErrNoSigners = errors.New("the list of signers names nobody")

// ParseSigners reads lists of signers: each an armored OpenPGP keyring, or
// allowed_signers of ssh-keygen. A line that isn't understood is an error: one
// that restricts a key would otherwise be left out.
func ParseSigners(lists ...[]byte) (*Signers, error) {
	s := &Signers{}
	for _, list := range lists {
		if len(list) > MaxSigners {
			return nil, fmt.Errorf("a list of signers has more than %d bytes", MaxSigners)
		}
		var err error
		if bytes.HasPrefix(bytes.TrimSpace(list), []byte("-----BEGIN PGP")) {
			err = s.keyring(list)
		} else {
			err = s.lines(list)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(s.ssh) == 0 && len(s.pgp) == 0 {
		return nil, ErrNoSigners
	}
	return s, nil
}

func (s *Signers) keyring(list []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("the OpenPGP keyring can't be read")
		}
	}()
	// Blocks are read one by one: the armor reader stops after the first.
	const end = "-----END PGP PUBLIC KEY BLOCK-----"
	rest := string(list)
	for strings.TrimSpace(rest) != "" {
		i := strings.Index(rest, end)
		if i < 0 {
			return errors.New("an OpenPGP key has no end")
		}
		keys, err := openpgp.ReadArmoredKeyRing(strings.NewReader(rest[:i+len(end)] + "\n"))
		if err != nil {
			return fmt.Errorf("read an OpenPGP key: %w", err)
		}
		for _, k := range keys {
			if k.PrivateKey != nil {
				return errors.New("a private OpenPGP key is in the list of signers: remove it, and no longer use it")
			}
		}
		s.pgp = append(s.pgp, keys...)
		rest = rest[i+len(end):]
	}
	return nil
}

func (s *Signers) lines(list []byte) error {
	n := 0
	for line := range strings.Lines(string(list)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		a, err := parseAllowed(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		s.ssh = append(s.ssh, a)
	}
	return nil
}

// parseAllowed reads  principals [options] keytype base64 [comment].
func parseAllowed(line string) (allowed, error) {
	name, rest, _ := strings.Cut(line, " ")
	if quoted, ok := strings.CutPrefix(line, `"`); ok {
		if name, rest, ok = strings.Cut(quoted, `"`); !ok {
			return allowed{}, errors.New("a quote is not closed")
		}
	}
	if strings.ContainsAny(name, "!") {
		return allowed{}, errors.New("principals with ! are not supported: name the people")
	}
	key, _, options, left, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(rest)))
	if err != nil || name == "" || len(left) > 0 {
		return allowed{}, errors.New("want  NAME [OPTIONS] KEYTYPE KEY")
	}
	a := allowed{name: name, key: key}
	if err := strong(key); err != nil {
		return allowed{}, err
	}
	for _, option := range options {
		word, value, _ := strings.Cut(option, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(word) {
		case "namespaces":
			a.namespaces = strings.Split(value, ",")
		case "valid-after":
			a.after, err = validTime(value)
		case "valid-before":
			a.before, err = validTime(value)
		default:
			return allowed{}, fmt.Errorf("option %q is not supported: list each key by itself", word)
		}
		if err != nil {
			return allowed{}, err
		}
	}
	return a, nil
}

// strong refuses keys that are too weak to prove anything.
func strong(key ssh.PublicKey) error {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		if k, ok := key.(ssh.CryptoPublicKey); ok {
			if pub, ok := k.CryptoPublicKey().(*rsa.PublicKey); ok && pub.N.BitLen() >= minRSABits {
				return nil
			}
		}
		return fmt.Errorf("an RSA key has less than %d bits", minRSABits)
	}
	return fmt.Errorf("keys of type %s are not believed", key.Type())
}

// validTime is YYYYMMDD[HHMM[SS]] in UTC, with or without a Z. (OpenSSH takes
// the local zone without one; a list of signers means the same on each machine.)
func validTime(text string) (time.Time, error) {
	digits := strings.TrimSuffix(text, "Z")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			if t, err := time.Parse(layout, digits); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: want YYYYMMDD or YYYYMMDDHHMMSS", text)
}

// valid says why a key's line doesn't hold at a time, or nil.
func (a *allowed) valid(at time.Time) error {
	switch {
	case !a.after.IsZero() && at.Before(a.after):
		return fmt.Errorf("the key of %s was not valid yet at %s", a.name, at.UTC().Format(time.RFC3339))
	case !a.before.IsZero() && !at.Before(a.before):
		return fmt.Errorf("the key of %s was no longer valid at %s", a.name, at.UTC().Format(time.RFC3339))
	}
	return nil
}

// mayUse says whether the key's line allows a namespace.
func (a *allowed) mayUse(namespace string) bool {
	for _, pattern := range a.namespaces {
		if ok, err := path.Match(pattern, namespace); err == nil && ok {
			return true
		}
	}
	return len(a.namespaces) == 0
}
