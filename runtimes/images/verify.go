package images

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// verified ends with an error instead of io.EOF when what was read has another
// size or digest than was promised. where names the file or registry.
type verified struct {
	io.ReadCloser
	sum   hash.Hash
	want  state.Digest
	size  int64
	seen  int64
	where string
}

func verify(r io.ReadCloser, want state.Digest, size int64, where string) io.ReadCloser {
	return &verified{ReadCloser: r, sum: sha256.New(), want: want, size: size, where: where}
}

// Read implements io.Reader.
func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.seen += int64(n)
	v.sum.Write(p[:n])
	if v.seen > v.size {
		return n, refused(state.LookupDamaged, "%s is damaged: more than the %d bytes that its manifest names", v.where, v.size)
	}
	if err == io.EOF {
		if got := state.Digest(v.sum.Sum(nil)); got != v.want || v.seen != v.size {
			return n, refused(state.LookupDamaged, "%s is damaged: %d bytes with digest %s, want %d with %s; fetch or copy the image again", v.where, v.seen, got, v.size, v.want)
		}
	}
	return n, err //nolint:wrapcheck // a reader hands on its source's error
}

// checkDocument makes a document of bytes that must have the digest want.
func checkDocument(raw []byte, mediaType string, want state.Digest, where string) (document, error) {
	if got := state.DigestOf(raw); got != want {
		return document{}, refused(state.LookupDamaged, "%s is damaged: digest %s, want %s; fetch or copy the image again", where, got, want)
	}
	return document{raw: raw, mediaType: mediaType, digest: want}, nil
}

func tooLarge(where string, limit int64) error {
	return fmt.Errorf("%s is larger than %d bytes", where, limit)
}
