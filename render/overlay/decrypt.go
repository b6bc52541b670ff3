package overlay

import (
	"bytes"
	"errors"

	"github.com/tandem-gitops/tandem/render/manifest"
	"github.com/tandem-gitops/tandem/render/sops"
)

// decrypted is a file's text in clear. What is opened stays in memory: kustomize
// reads it from there.
func (w *walker) decrypted(virtual string, raw []byte) ([]byte, bool) {
	if !bytes.Contains(raw, []byte("ENC[AES256_GCM,")) {
		return raw, true
	}
	docs, problems := manifest.Parse(w.mark(virtual, nil), raw)
	if len(problems) > 0 || !sops.Encrypted(docs) {
		return raw, true // whoever reads it tells what is wrong
	}
	clear, err := w.keys.Decrypt(raw, docs)
	if err != nil {
		var no *sops.Error
		if !errors.As(err, &no) {
			no = &sops.Error{Cause: "can't be decrypted", Remedy: "encrypt it anew with sops"}
		}
		w.fail(w.mark(virtual, no.At), "", no.Cause, no.Remedy)
		return nil, false
	}
	w.overrides[virtual] = clear
	return clear, true
}

// sopsOther says whether a file is encrypted in a form of SOPS that isn't YAML.
func sopsOther(raw []byte) bool {
	return bytes.Contains(raw, []byte("ENC[AES256_GCM,")) && (bytes.Contains(raw, []byte("sops_mac=")) || bytes.Contains(raw, []byte(`"sops"`)) || bytes.Contains(raw, []byte("[sops]")))
}
