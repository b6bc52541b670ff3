// Package sops decrypts Secrets that SOPS encrypted with age, in memory.
//
//	files of the tree ──► [ render/sops ] ──clear text──► kustomize
//
// In: a YAML file as SOPS writes it, and age identities. Out: the same file in
// clear, line for line. It refuses every other way to encrypt by name, and to
// know the network: SOPS's own library asks key services that a file names, and
// a render dials nobody.
package sops

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/tandem-gitops/tandem/render/manifest"
)

// Limits of one file.
const (
	maxRecipients = 100
	maxKeyFile    = 1 << 20
	dataKeyBytes  = 32
)

// Keys are age identities.
type Keys struct{ identities []age.Identity }

// ParseKeys reads a file of age identities, as age-keygen writes it.
func ParseKeys(raw []byte) (*Keys, error) {
	ids, err := age.ParseIdentities(io.LimitReader(bytes.NewReader(raw), maxKeyFile))
	if err != nil {
		return nil, errors.New("there is no age identity in the file, or a line is none") // the error may quote a key
	}
	return &Keys{identities: ids}, nil
}

// KeysOf are identities of any kind, such as ones that lie elsewhere.
func KeysOf(identities ...age.Identity) *Keys { return &Keys{identities: identities} }

// Unwrap opens the key of one file for who has its stanzas alone, or says
// age.ErrIncorrectIdentity.
func (k *Keys) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if k == nil {
		return nil, age.ErrIncorrectIdentity
	}
	for _, id := range k.identities {
		key, err := id.Unwrap(stanzas)
		if !errors.Is(err, age.ErrIncorrectIdentity) {
			return key, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// An Error is why a file stays encrypted, and where. It quotes no value.
type Error struct {
	At     *manifest.Value
	Cause  string
	Remedy string
}

// Error implements error.
func (e *Error) Error() string { return e.Cause }

func refuse(at *manifest.Value, cause, remedy string) *Error { return &Error{at, cause, remedy} }

// Encrypted says whether SOPS wrote any of the documents.
func Encrypted(docs []*manifest.Value) bool {
	for _, d := range docs {
		if d.Find("sops").Find("mac") != nil {
			return true
		}
	}
	return false
}

var token = regexp.MustCompile(`^ENC\[AES256_GCM,data:([^,\]]*),iv:([^,\]]+),tag:([^,\]]+),type:([a-z]+)\]$`)

// quoted finds tokens in a file's text with the quotes around them.
var quoted = regexp.MustCompile(`"ENC\[AES256_GCM,[^\]\n]*\]"|'ENC\[AES256_GCM,[^\]\n]*\]'|ENC\[AES256_GCM,[^\]\n]*\]`)

// Decrypt gives the text of a file in clear. k may be nil: nothing can be opened.
func (k *Keys) Decrypt(raw []byte, docs []*manifest.Value) ([]byte, error) {
	meta := docs[0].Find("sops")
	for _, d := range docs {
		m := d.Find("sops")
		if m.Find("mac") == nil || m.Str("mac") != meta.Str("mac") {
			return nil, refuse(d, "only some of the file's documents are encrypted", "encrypt the whole file, or put what is in clear into another")
		}
		if d.Str("kind") != "Secret" || d.Str("apiVersion") != "v1" {
			return nil, refuse(d, "only a Secret may be encrypted: what other kinds hold is stored and shown in clear", "make it a Secret")
		}
	}
	key, err := k.dataKey(meta)
	if err != nil {
		return nil, err
	}
	o := &opener{key: key, clear: map[string]string{}, onlyEncrypted: meta.Find("mac_only_encrypted").Is(true)}
	sum := sha512.New()
	o.sum = sum
	if o.onlyEncrypted {
		// SOPS begins this sum so that it never equals one over all values.
		seed := sha256.Sum256([]byte("sops"))
		_, _ = sum.Write(seed[:]) // a hash takes everything
	}
	for _, d := range docs {
		for i := range d.Fields {
			if f := &d.Fields[i]; f.Key != "sops" {
				if err := o.walk(f.Value, []string{f.Key}); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := o.proven(meta, strings.ToUpper(hex.EncodeToString(sum.Sum(nil)))); err != nil {
		return nil, err
	}
	return o.text(raw)
}

// dataKey opens the key that the file's values are encrypted with.
func (k *Keys) dataKey(meta *manifest.Value) ([]byte, error) {
	for _, other := range []string{"kms", "gcp_kms", "azure_kv", "hc_vault", "pgp"} {
		if !meta.Find(other).Empty() && meta.Find("age").Empty() {
			return nil, refuse(meta.Find(other), "is encrypted with "+other+", and only age is supported", "add an age recipient: sops updatekeys")
		}
	}
	if !meta.Find("key_groups").Empty() || !meta.Find("shamir_threshold").Empty() && meta.Find("shamir_threshold").Text != "0" && meta.Find("shamir_threshold").Text != "1" {
		return nil, refuse(meta, "needs keys of several groups (shamir_threshold), which is not supported", "encrypt it for age recipients alone")
	}
	list := meta.Find("age")
	if list == nil || list.Kind != manifest.List || len(list.Items) == 0 || len(list.Items) > maxRecipients {
		return nil, refuse(meta, "names no age recipient", "encrypt it with  sops --encrypt --age RECIPIENT")
	}
	var names []string
	for _, item := range list.Items {
		names = append(names, item.Str("recipient"))
		if k == nil {
			continue
		}
		r, err := age.Decrypt(armor.NewReader(strings.NewReader(item.Str("enc"))), k.identities...)
		if err != nil {
			continue // another recipient may be ours
		}
		key, err := io.ReadAll(io.LimitReader(r, dataKeyBytes+1))
		if err == nil && len(key) == dataKeyBytes {
			return key, nil
		}
	}
	return nil, refuse(list, "is encrypted for "+strings.Join(names[:min(3, len(names))], ", ")+", and no age key here opens it", "give Tandem one of these keys, or encrypt the file for its key: sops updatekeys")
}

// opener opens values and sums up what the file says.
type opener struct {
	key           []byte
	sum           io.Writer
	onlyEncrypted bool
	clear         map[string]string // by token, as YAML
}

func (o *opener) walk(v *manifest.Value, path []string) error {
	switch v.Kind {
	case manifest.Map:
		for i := range v.Fields {
			if err := o.walk(v.Fields[i].Value, append(slices.Clip(path), v.Fields[i].Key)); err != nil {
				return err
			}
		}
		return nil
	case manifest.List:
		for _, item := range v.Items {
			if err := o.walk(item, path); err != nil {
				return err
			}
		}
		return nil
	case manifest.Null:
		return nil
	case manifest.String:
		if strings.HasPrefix(v.Text, "ENC[") {
			return o.encrypted(v, path)
		}
	case manifest.Bool, manifest.Int, manifest.Float:
	}
	if !o.onlyEncrypted {
		_, _ = o.sum.Write([]byte(plain(v))) // a hash takes everything
	}
	return nil
}

// plain is an unencrypted value as SOPS sums it up.
func plain(v *manifest.Value) string {
	switch v.Kind {
	case manifest.Bool:
		if strings.EqualFold(v.Text, "true") {
			return "True"
		}
		return "False"
	case manifest.Int:
		if n, err := strconv.ParseInt(strings.ReplaceAll(v.Text, "_", ""), 0, 64); err == nil {
			return strconv.FormatInt(n, 10)
		}
	case manifest.Float:
		if f, err := strconv.ParseFloat(v.Text, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return strconv.FormatFloat(f, 'f', -1, 64)
		}
	case manifest.Null, manifest.String, manifest.List, manifest.Map:
	}
	return v.Text
}

func (o *opener) encrypted(v *manifest.Value, path []string) error {
	clear, kind, ok := o.open(v.Text, strings.Join(path, ":")+":")
	if !ok {
		return refuse(v, "the value can't be decrypted: it was changed or moved", "encrypt it anew with sops")
	}
	_, _ = o.sum.Write(clear) // a hash takes everything
	switch kind {
	case "str", "bytes":
		raw, err := json.Marshal(string(clear))
		if err != nil || !bytes.Equal(bytes.ToValidUTF8(clear, nil), clear) {
			return refuse(v, "the value is no text", "write it in base64 under data")
		}
		o.clear[v.Text] = string(raw)
	case "int", "float":
		o.clear[v.Text] = string(clear)
	case "bool":
		o.clear[v.Text] = strings.ToLower(string(clear))
	default:
		return refuse(v, "the value has the type "+kind+", which is not known", "write it as a string")
	}
	return nil
}

// open decrypts one token; path is part of what is authenticated.
func (o *opener) open(text, path string) (clear []byte, kind string, ok bool) {
	m := token.FindStringSubmatch(text)
	if m == nil {
		return nil, "", false
	}
	data, errData := base64.StdEncoding.DecodeString(m[1])
	iv, errIV := base64.StdEncoding.DecodeString(m[2])
	tag, errTag := base64.StdEncoding.DecodeString(m[3])
	if errors.Join(errData, errIV, errTag) != nil || len(iv) == 0 || len(iv) > 64 {
		return nil, "", false
	}
	block, err := aes.NewCipher(o.key)
	if err != nil {
		return nil, "", false
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		return nil, "", false
	}
	clear, err = gcm.Open(nil, iv, append(data, tag...), []byte(path))
	return clear, m[4], err == nil
}

// proven checks that nothing was added, removed or exchanged.
func (o *opener) proven(meta *manifest.Value, sum string) error {
	at := meta.Find("mac")
	when, err := time.Parse(time.RFC3339, meta.Find("lastmodified").Scalar())
	if err != nil {
		return refuse(meta, "has no lastmodified", "encrypt it anew with sops")
	}
	want, _, ok := o.open(at.Text, when.Format(time.RFC3339))
	if !ok || subtle.ConstantTimeCompare(want, []byte(sum)) != 1 {
		return refuse(at, "the file is not what was encrypted: a value was added, removed or moved", "edit it with sops, not by hand")
	}
	return nil
}

// text is the file with its values in clear and without what SOPS added; every
// line stays where it is.
func (o *opener) text(raw []byte) ([]byte, error) {
	var out bytes.Buffer
	inSops := false
	for line := range bytes.Lines(raw) {
		if len(bytes.TrimSpace(line)) > 0 && line[0] != ' ' && line[0] != '\t' && line[0] != '-' {
			inSops = bytes.HasPrefix(line, []byte("sops:"))
		}
		if bytes.HasPrefix(line, []byte("---")) {
			inSops = false
		}
		if inSops {
			out.WriteByte('\n')
			continue
		}
		out.Write(quoted.ReplaceAllFunc(line, func(t []byte) []byte {
			if clear, ok := o.clear[string(bytes.Trim(t, `"'`))]; ok {
				return []byte(clear)
			}
			return t
		}))
	}
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		return nil, &Error{Cause: "encrypted JSON is not supported", Remedy: "write it as YAML and encrypt that"}
	}
	return out.Bytes(), nil
}

// String keeps identities out of what is printed.
func (k *Keys) String() string {
	if k == nil {
		return "no age keys"
	}
	return fmt.Sprintf("%d age keys", len(k.identities))
}
