package verify_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"golang.org/x/crypto/ssh"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/sources/verify"
)

func TestHonest(t *testing.T) {
	p := newPeople(t)
	s := p.signers(t)
	sha256 := honest()
	sha256.hash = "sha256"
	rsa512 := honest()
	rsa512.algorithm = ssh.KeyAlgoRSASHA512
	merge := strings.Replace(text(), "author", "parent "+strings.Repeat("3", 40)+"\nauthor", 1)
	for name, c := range map[string]struct{ commit, signer string }{
		"ed25519":  {with(text(), armored(honest().sign(t, p.ada, text()))), "ada@example.com (" + ssh.FingerprintSHA256(p.ada.PublicKey()) + ")"},
		"sha256":   {with(text(), armored(sha256.sign(t, p.ada, text()))), "ada@example.com"},
		"rsa":      {with(text(), armored(rsa512.sign(t, p.rsa, text()))), "rsa@example.com"},
		"ecdsa":    {with(text(), armored(honest().sign(t, p.ec, text()))), "ec@example.com"},
		"merge":    {with(merge, armored(honest().sign(t, p.ada, merge))), "ada@example.com"},
		"openpgp":  {with(text(), pgpSig(t, p.pgp, text(), noon, nil)), "Ada <ada@example.com>"},
		"no words": {with(strings.TrimSuffix(text(), "four on Windows\n"), armored(honest().sign(t, p.ada, strings.TrimSuffix(text(), "four on Windows\n")))), "ada@example.com"},
	} {
		got, err := s.Commit([]byte(c.commit), now())
		if err != nil || !strings.HasPrefix(got.String(), c.signer) {
			t.Errorf("%s: %v, %v; want %s", name, got, err, c.signer)
		}
	}
	// A key that has expired since proves what was signed before, but no head.
	early := at(1_700_000_000)
	old := with(early, armored(honest().sign(t, p.expired, early)))
	if got, err := s.Commit([]byte(old), time.Time{}); err != nil || got.Name != "old@example.com" {
		t.Errorf("an ancestor by a key that expired since: %v, %v", got, err)
	}
	if got, err := s.Commit([]byte(old), now()); err == nil {
		t.Errorf("a head by a key that expired since: %v", got)
	}
}

// What git and ssh-keygen themselves sign is believed.
func TestGitItself(t *testing.T) {
	hosttest.Need(t, "git", "ssh-keygen")
	dir := t.TempDir()
	run := func(program string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
			"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com",
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v", program, args, err)
		}
		return string(out)
	}
	key := filepath.Join(dir, "key")
	run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	run("git", "init", "-q")
	run("git", "-c", "gpg.format=ssh", "-c", "user.signingkey="+key, "commit", "-q", "-S", "--allow-empty", "-m", "ümläut\n\nbody")
	s, err := verify.ParseSigners([]byte("ada@example.com namespaces=\"git\" " + string(public)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Commit([]byte(run("git", "cat-file", "commit", "HEAD")), time.Now())
	if err != nil || got.Name != "ada@example.com" {
		t.Errorf("%v, %v", got, err)
	}
}

// forgeries are commits that must be refused, by what is wrong with them.
func forgeries(t *testing.T, p *people) map[string]string {
	sig := func(change func(*sshSig)) string {
		s := honest()
		change(&s)
		return with(text(), armored(s.sign(t, p.ada, text())))
	}
	good := armored(honest().sign(t, p.ada, text()))
	blob := honest().sign(t, p.ada, text())
	pgp := pgpSig(t, p.pgp, text(), noon, nil)
	signed := with(text(), good)
	re := strings.NewReplacer
	by := func(s ssh.Signer, commit string) string { return with(commit, armored(honest().sign(t, s, commit))) }
	of := func(commit string) string { return by(p.ada, commit) }
	out := map[string]string{
		"unsigned": text(), "empty": "", "only a signature": good, "empty signature": with(text(), ""),
		// Keys.
		"unknown key": by(p.eve, text()), "expired key": by(p.expired, text()), "key not yet valid": by(p.future, text()), "key for mail": by(p.otherUse, text()),
		"expired key, old date": by(p.expired, at(1_700_000_000)), "future key, late date": by(p.future, at(1_900_000_000)), "from the future": of(at(noon + 86400)),
		"weak rsa": by(p.weak, text()), "dsa": by(dsaKey(t), text()),
		"rsa with sha1":         with(text(), armored(sshSig{magic: "SSHSIG", namespace: "git", inMessage: "git", hash: "sha512", version: 1, algorithm: ssh.KeyAlgoRSA}.sign(t, p.rsa, text()))),
		"ada's key, eve's hand": with(text(), armored(sshSig{magic: "SSHSIG", namespace: "git", inMessage: "git", hash: "sha512", version: 1, key: p.ada.PublicKey()}.sign(t, p.eve, text()))),
		"eve's key, ada's hand": with(text(), armored(sshSig{magic: "SSHSIG", namespace: "git", inMessage: "git", hash: "sha512", version: 1, key: p.eve.PublicKey()}.sign(t, p.ada, text()))),
		// What is signed.
		"namespace file": sig(func(s *sshSig) { s.namespace, s.inMessage = "file", "file" }), "namespace told as git": sig(func(s *sshSig) { s.inMessage = "file" }),
		"no namespace": sig(func(s *sshSig) { s.namespace, s.inMessage = "", "" }), "namespace git with zero": sig(func(s *sshSig) { s.namespace, s.inMessage = "git\x00", "git\x00" }),
		"sha1": sig(func(s *sshSig) { s.hash = "sha1" }), "md5": sig(func(s *sshSig) { s.hash = "md5" }), "no hash": sig(func(s *sshSig) { s.hash = "" }),
		"version 2": sig(func(s *sshSig) { s.version = 2 }), "version 0": sig(func(s *sshSig) { s.version = 0 }), "other magic": sig(func(s *sshSig) { s.magic = "SSHSIH" }),
		"of another commit": with(text(), armored(honest().sign(t, p.ada, at(noon-1)))), "of nothing": with(text(), armored(honest().sign(t, p.ada, ""))), "of its message": with(text(), armored(honest().sign(t, p.ada, "four on Windows\n"))),
		// Changed after it was signed.
		"message": re("four", "nine").Replace(signed), "message appended": signed + "\n", "message cut": strings.TrimSuffix(signed, "\n"),
		"tree": re("tree 1", "tree 3").Replace(signed), "parent": re("parent 2", "parent 3").Replace(signed), "parent added": re("author", "parent "+strings.Repeat("4", 40)+"\nauthor").Replace(signed),
		"parent removed": re("parent "+strings.Repeat("2", 40)+"\n", "").Replace(signed), "author": re("Ada", "Eve").Replace(signed), "committer": re("Grace", "Eve").Replace(signed), "date": re("1750000000 +0000", "1750000001 +0000").Replace(signed),
		"encoding added": re("gpgsig", "encoding latin1\ngpgsig").Replace(signed), "crlf": re("\n", "\r\n").Replace(signed), "space at the end": re("+0000\n", "+0000 \n").Replace(signed),
		"whitespace normalised": re("four on", "four  on").Replace(signed), "message turned into a header": re("\n\nfour", "\nfour").Replace(signed),
		// Headers that two parsers might read differently.
		"signature twice": with(signed, armored(honest().sign(t, p.eve, text()))), "signature twice, eve first": with(by(p.eve, text()), good),
		"two trees": of(re("parent", "tree "+strings.Repeat("5", 40)+"\nparent").Replace(text())), "tree after parent": of("parent " + strings.Repeat("2", 40) + "\ntree " + strings.Repeat("1", 40) + "\n" + text()[strings.Index(text(), "author"):]),
		"author after committer": of(re("author", "x1", "committer", "author").Replace(text())), "two committers": of(re("\n\n", "\ncommitter Eve <e@example.com> 1750000000 +0000\n\n").Replace(text())),
		"parent at the end": of(re("\n\n", "\nparent "+strings.Repeat("4", 40)+"\n\n").Replace(text())), "sha256 signature": re("gpgsig", "gpgsig-sha256").Replace(signed),
		"unknown header": of(re("\n\n", "\nx-tree "+strings.Repeat("4", 40)+"\n\n").Replace(text())), "gpgsig in the message": re("gpgsig", "\ngpgsig").Replace(signed),
		"zero byte in the header": of(re("Ada", "Ada\x00").Replace(text())), "header continued": of(re("Grace", "Gr\n ace").Replace(text())), "mixed hashes": of(re("parent "+strings.Repeat("2", 40), "parent "+strings.Repeat("2", 64)).Replace(text())),
		"upper-case hash": of(re("tree "+strings.Repeat("1", 40), "tree "+strings.Repeat("A", 40)).Replace(text())), "short hash": of(re("tree 1", "tree ").Replace(text())), "no time": of(re(" 1750000000 +0000", "").Replace(text())),
		"time before the start": of(re("1750000000 +0000", "-5 +0000").Replace(text())), "two addresses": of(re("<grace@example.com>", "<grace@example.com> <e@e>").Replace(text())), "no empty line": strings.TrimSuffix(signed, "\n\nfour on Windows\n"),
		// Armor.
		"cut armor": with(text(), good[:len(good)-10]), "no end": with(text(), strings.TrimSuffix(good, "\n-----END SSH SIGNATURE-----")), "text after the armor": with(text(), good+"\nmore"), "two armors": with(text(), good+"\n"+good),
		"text before the armor": with(text(), "x\n"+good), "other armor": with(text(), re("SSH SIGNATURE", "SSH SIGNATURES").Replace(good)), "x509": with(text(), re("SSH SIGNATURE", "SIGNED MESSAGE").Replace(good)), "no base64": with(text(), re("U1NI", "U1N*").Replace(good)),
		"bytes after it": with(text(), armored(append(slices.Clone(blob), 0))), "bytes missing": with(text(), armored(blob[:len(blob)-1])), "empty blob": with(text(), armored(nil)), "only magic": with(text(), armored([]byte("SSHSIG"))),
		"huge lengths": with(text(), armored(append([]byte("SSHSIG\x00\x00\x00\x01\xff\xff\xff\xff"), blob[14:]...))), "ssh in pgp armor": with(text(), re("SSH SIGNATURE", "PGP SIGNATURE").Replace(good)),
		// OpenPGP.
		"pgp: unknown key": with(text(), pgpSig(t, p.pgpEve, text(), noon, nil)), "pgp: expired key": with(text(), pgpSig(t, p.pgpExpired, text(), noon-86300, nil)), "pgp: revoked key": with(text(), p.revokedSig),
		"pgp: of another commit": with(text(), pgpSig(t, p.pgp, at(noon-1), noon, nil)), "pgp: message changed": re("four", "nine").Replace(with(text(), pgp)), "pgp: from the future": with(text(), pgpSig(t, p.pgp, text(), noon+86400, nil)),
		"pgp: expired signature": with(text(), pgpSig(t, p.pgp, text(), noon, func(c *packet.Config) { c.SigLifetimeSecs = 10 })),
		"pgp: two signatures":    with(text(), pgpBlock(t, join(unarmor(t, pgpSig(t, p.pgpEve, text(), noon, nil)), unarmor(t, pgp)))), "pgp: after a good one": with(text(), pgpBlock(t, join(unarmor(t, pgp), []byte{0xcb, 0x01, 0x00}))),
		"pgp: cut": with(text(), pgpBlock(t, unarmor(t, pgp)[:40])), "pgp: a byte turned": with(text(), pgpBlock(t, flip(unarmor(t, pgp), -3))), "pgp: nothing inside": with(text(), pgpBlock(t, nil)), "pgp: no packets": with(text(), pgpBlock(t, []byte("hello"))),
		"pgp: a whole message": with(text(), re("PGP SIGNATURE", "PGP MESSAGE").Replace(pgp)), "pgp: two armors": with(text(), pgp+"\n"+pgp), "pgp: text after it": with(text(), pgp+"\nmore"), "pgp: text signature": with(text(), pgpText(t, p.pgp)),
	}
	for i := range blob {
		if i%16 == 7 {
			out["a byte turned at "+string(rune('a'+i/16))] = with(text(), armored(flip(blob, i)))
		}
	}
	return out
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func flip(b []byte, at int) []byte {
	out := slices.Clone(b)
	if at < 0 {
		at += len(out)
	}
	out[at] ^= 1
	return out
}

func unarmor(t *testing.T, s string) []byte {
	t.Helper()
	block, err := armor.Decode(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(block.Body); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func pgpBlock(t *testing.T, raw []byte) string {
	t.Helper()
	return "-----BEGIN PGP SIGNATURE-----\n\n" + base64.StdEncoding.EncodeToString(raw) + "\n-----END PGP SIGNATURE-----"
}

// pgpText is a signature over text whose ends of lines don't count.
func pgpText(t *testing.T, by *openpgp.Entity) string {
	t.Helper()
	var out bytes.Buffer
	if err := openpgp.ArmoredDetachSignText(&out, by, strings.NewReader(text()), &packet.Config{Time: func() time.Time { return time.Unix(noon, 0) }}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestForgeries(t *testing.T) {
	p := newPeople(t)
	s := p.signers(t)
	corpus := forgeries(t, p)
	if len(corpus) < 60 {
		t.Errorf("the corpus has %d forgeries, want 60 or more", len(corpus))
	}
	for name, raw := range corpus {
		signer, err := s.Commit([]byte(raw), now())
		if err == nil || signer != (verify.Signer{}) {
			t.Errorf("%s: believed as %v, %v", name, signer, err)
		}
		if err != nil && !errors.Is(err, verify.ErrBad) && !errors.Is(err, verify.ErrUnknown) && !errors.Is(err, verify.ErrUnsigned) {
			t.Errorf("%s: %v has no class", name, err)
		}
	}
}

func TestSignersThatAreNone(t *testing.T) {
	p := newPeople(t)
	key := string(ssh.MarshalAuthorizedKey(p.ada.PublicKey()))
	var private bytes.Buffer
	w, err := armor.Encode(&private, openpgp.PrivateKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.pgp.SerializePrivate(w, nil), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string]string{
		"empty": "", "comments": "# nobody\n\n", "no key": "ada@example.com\n", "no name": key, "damaged key": "ada " + strings.Replace(key, "AAAA", "AAAB", 1), "authority": "*@example.com cert-authority " + key,
		"unknown option": "ada only-on-fridays " + key, "bad time": `ada valid-before="tomorrow" ` + key, "negated": "!ada " + key, "weak rsa": "ada " + string(ssh.MarshalAuthorizedKey(p.weak.PublicKey())),
		"quote": `"ada ` + key, "binary": "\x00\x01\x02", "private key": private.String(), "pgp without end": string(p.keyring[:100]), "pgp nonsense": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----",
		"good and bad": "ada " + key + "eve " + key + "x y z\n", "too long": strings.Repeat("#\n", 1<<20),
	} {
		if _, err := verify.ParseSigners([]byte(list)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := verify.ParseSigners(); !errors.Is(err, verify.ErrNoSigners) {
		t.Errorf("no list: %v", err)
	}
}

// Nothing that isn't the one signed commit is believed, whatever is put in its place.
func FuzzCommit(f *testing.F) {
	p := newPeople(f)
	s := p.signers(f)
	good := with(text(), armored(honest().sign(f, p.ada, text())))
	pgp := with(text(), pgpSig(f, p.pgp, text(), noon, nil))
	f.Add(0, 1, "x")
	f.Add(300, 0, "\n ")
	f.Fuzz(func(t *testing.T, from, length int, in string) {
		for _, commit := range []string{good, pgp} {
			at := min(max(from, 0), len(commit))
			raw := commit[:at] + in + commit[min(at+max(length, 0), len(commit)):]
			signer, err := s.Commit([]byte(raw), now())
			if err != nil {
				continue
			}
			// Armor may be folded otherwise; what is signed may not differ.
			was, errWas := verify.Parse([]byte(commit))
			is, errIs := verify.Parse([]byte(raw))
			if errWas != nil || errIs != nil || was.Tree != is.Tree || !slices.Equal(was.Parents, is.Parents) || !was.When.Equal(is.When) {
				t.Errorf("believed as %v: %q", signer, raw)
			}
		}
	})
}
