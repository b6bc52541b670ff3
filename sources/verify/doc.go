// Package verify says who signed a commit.
//
//	a commit's bytes, signers ──► [ sources/verify ] ──► a signer, or a refusal
//
// In: the very bytes whose hash is the commit's name, and whom to believe. Out:
// the signer. OpenPGP and SSH signatures are known. Everything that isn't proven
// is refused, whatever goes wrong on the way. It refuses to know repositories,
// and to believe anything that the judged commit says about keys.
package verify
