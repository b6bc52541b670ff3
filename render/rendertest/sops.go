package rendertest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// SOPS writes a Secret as sops does, encrypted for one recipient: each pair of
// values is a key of stringData and its value.
func SOPS(t testing.TB, to age.Recipient, name string, pairs ...string) string {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	seal := func(text, path, kind string) string {
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCMWithNonceSize(block, 32)
		if err != nil {
			t.Fatal(err)
		}
		iv := make([]byte, 32)
		if _, err := rand.Read(iv); err != nil {
			t.Fatal(err)
		}
		out := gcm.Seal(nil, iv, []byte(text), []byte(path))
		data, tag := out[:len(out)-16], out[len(out)-16:]
		b := base64.StdEncoding.EncodeToString
		return fmt.Sprintf("ENC[AES256_GCM,data:%s,iv:%s,tag:%s,type:%s]", b(data), b(iv), b(tag), kind)
	}
	sum := sha512.New()
	sum.Write([]byte("v1" + "Secret" + name))
	var out strings.Builder
	fmt.Fprintf(&out, "apiVersion: v1\nkind: Secret\nmetadata:\n    name: %s\nstringData:\n", name)
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&out, "    %s: %s\n", pairs[i], seal(pairs[i+1], "stringData:"+pairs[i]+":", "str"))
		sum.Write([]byte(pairs[i+1]))
	}
	var sealed bytes.Buffer
	a := armor.NewWriter(&sealed)
	w, err := age.Encrypt(a, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(key); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	const when = "2026-01-05T09:00:00Z"
	fmt.Fprintf(&out, "sops:\n    age:\n        - recipient: %v\n          enc: |\n", to)
	for line := range strings.Lines(sealed.String()) {
		out.WriteString("            " + line)
	}
	fmt.Fprintf(&out, "    lastmodified: \"%s\"\n    mac: %s\n    encrypted_regex: ^(data|stringData)$\n    version: 3.9.4\n", when, seal(strings.ToUpper(hex.EncodeToString(sum.Sum(nil))), when, "str"))
	return out.String()
}
