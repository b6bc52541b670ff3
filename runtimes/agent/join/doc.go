// Package join is how a machine becomes a node: the certificate authority that
// a controller makes at its first start, join tokens, and the call by which a
// token buys a short-lived certificate.
//
//	controller: authority, tokens ◄──token, request──── [ join ] ────certificate──► agent
//
// A token pins the authority by the digest of its public key, so the first call
// needs no trust on first use. Private keys never leave the machine that made
// them. Tokens are kept as hashes. Certificates name a node (system:node:NAME)
// or a user; package agent and the API ask Identify who is calling.
package join
