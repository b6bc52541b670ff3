package promote

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // Git names its objects so
	"encoding/hex"
	"fmt"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A commit is one that Tandem makes. All of it follows from the records, so that
// its hash is known before it is pushed: after a crash a branch that is at this
// hash was moved by us.
type commit struct {
	Tree    string
	Parents []string
	When    time.Time
	Subject string
	ID      string
	Key     state.Digest
}

// author is who makes commits that only move trees.
const author = "Tandem <tandem@tandem.invalid>"

// encode writes the commit as Git keeps it.
func (c *commit) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", c.Tree)
	for _, p := range c.Parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	fmt.Fprintf(&b, "author %s %d +0000\ncommitter %s %d +0000\n", author, c.When.Unix(), author, c.When.Unix())
	fmt.Fprintf(&b, "\n%s\n\nTandem-Promotion: %s\nTandem-Key: %x\n", c.Subject, c.ID, c.Key[:])
	return b.Bytes()
}

// hash is Git's name of a commit object.
func hash(object []byte) string {
	h := sha1.New() //nolint:gosec // Git names its objects so
	fmt.Fprintf(h, "commit %d\x00", len(object))
	h.Write(object)
	return hex.EncodeToString(h.Sum(nil))
}
