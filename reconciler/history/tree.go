package history

import (
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// A tree is the right edge of the Merkle tree of RFC 6962: the roots of the
// complete subtrees that the records so far fall into. That is all that
// appending needs.
type tree struct {
	size int64
	edge [64]tlog.Hash // edge[l] counts where bit l of size is set
}

// add appends a leaf. It adds to out what tlog stores for it: the leaf, and
// every subtree that it completes.
func (t *tree) add(out []tlog.Hash, leaf tlog.Hash) []tlog.Hash {
	h := leaf
	out = append(out, h)
	level := 0
	for ; t.size>>level&1 == 1; level++ {
		h = tlog.NodeHash(t.edge[level], h)
		out = append(out, h)
	}
	t.edge[level] = h
	t.size++
	return out
}

// root is the hash of the whole tree.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		h, _ := tlog.TreeHash(0, nil) // of the empty tree: a constant
		return h
	}
	level := bits.TrailingZeros64(uint64(t.size))
	h := t.edge[level]
	for level++; level < 64; level++ {
		if t.size>>level&1 == 1 {
			h = tlog.NodeHash(t.edge[level], h)
		}
	}
	return h
}

// treeAt reads the right edge of the tree of that size.
func treeAt(size int64, r tlog.HashReader) (tree, error) {
	t := tree{size: size}
	var indexes []int64
	var levels []int
	for l := range 63 {
		if size>>l&1 == 1 {
			indexes = append(indexes, tlog.StoredHashIndex(l, size>>l-1))
			levels = append(levels, l)
		}
	}
	if len(indexes) == 0 {
		return t, nil
	}
	hashes, err := r.ReadHashes(indexes)
	if err != nil {
		return tree{}, err
	}
	for i, l := range levels {
		t.edge[l] = hashes[i]
	}
	return t, nil
}
