package network

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A rule is a list of what nftables calls expressions. Its comment has the digest
// of all of it: that tells rules apart, here and in the kernel.
type rule struct {
	exprs   []expr.Any
	own     *ownSet // the set or map that it looks into and nobody else
	comment string
}

// An ownSet has no name: it comes and goes with its rule.
type ownSet struct {
	setType
	elements []element
}

// name is a pattern that the kernel fills in.
func (o *ownSet) name() string {
	if o.flags&unix.NFT_SET_MAP != 0 {
		return "__map%d"
	}
	return "__set%d"
}

// commentMost is how long `nft` takes a comment.
const commentMost = 128

// newRule joins words to a rule. about is for people who list the rules.
func newRule(about string, own *ownSet, words ...[]expr.Any) rule {
	r := rule{own: own}
	h := sha256.New()
	for _, w := range words {
		for _, e := range w {
			// What can't be marshalled fails when it is sent.
			raw, _ := expr.Marshal(unix.NFPROTO_IPV4, e)
			_, _ = h.Write(raw)
			r.exprs = append(r.exprs, e)
		}
	}
	if own != nil {
		_, _ = fmt.Fprintf(h, "%q", own.elements)
	}
	r.comment = fmt.Sprintf("%.8x", h.Sum(nil))
	if about != "" {
		r.comment += " " + about
	}
	r.comment = r.comment[:min(len(r.comment), commentMost-1)]
	return r
}

// numbered are the expressions with the number that the rule's own set has in a
// transaction.
func numbered(exprs []expr.Any, name string, number uint32) []expr.Any {
	out := make([]expr.Any, len(exprs))
	for i, e := range exprs {
		if l, ok := e.(*expr.Lookup); ok && l.SetName == name {
			known := *l
			known.SetID = number
			e = &known
		}
		out[i] = e
	}
	return out
}

// The registers that words load into. The kernel's first has 16 bytes; its
// second and third four bytes have numbers of their own.
const (
	first  = unix.NFT_REG_1
	second = unix.NFT_REG32_01
	third  = unix.NFT_REG32_02
)

// Offsets in the header of IPv4.
const (
	ipSource      = 12
	ipDestination = 16
)

func load(offset, register uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}}
}

func loadProto(register uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}}
}

func loadPort(register uint32) []expr.Any { // the destination's, of TCP and UDP alike
	return []expr.Any{&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

// in is whether an address lies in a prefix: `ip saddr 10.88.0.0/24`.
func in(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	return append(load(offset, first),
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: first, Data: p.Masked().Addr().AsSlice()})
}

// local: `fib daddr type local ip daddr != 127.0.0.0/8`.
func local() []expr.Any {
	return append([]expr.Any{
		&expr.Fib{Register: first, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: native32(unix.RTN_LOCAL)},
	}, in(ipDestination, netip.MustParsePrefix("127.0.0.0/8"), expr.CmpOpNeq)...)
}

func proto(p string) []expr.Any {
	return append(loadProto(first), &expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: []byte{number(p)}})
}

func number(p string) byte {
	if p == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// lookup goes on where the set has what was loaded.
func lookup(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: first, SetName: set}}
}

// verdict goes where a map says: `vmap @set`.
func verdict(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: first, IsDestRegSet: true, SetName: set}}
}

// translate sends a packet to the address and port that a map says: `dnat ip to
// … map @set`.
func translate(set string) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: first, DestRegister: first, IsDestRegSet: true, SetName: set},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: first, RegProtoMin: second},
	}
}

// to sends a packet to one address and port.
func to(at netip.AddrPort) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: first, Data: at.Addr().AsSlice()},
		&expr.Immediate{Register: unix.NFT_REG_2, Data: binary.BigEndian.AppendUint16(nil, at.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: first, RegProtoMin: unix.NFT_REG_2, Specified: true},
	}
}

// from gives a packet another source.
func from(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: first, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: first},
	}
}

func random(mod int) []expr.Any {
	return []expr.Any{&expr.Numgen{Register: first, Modulus: uint32(mod), Type: unix.NFT_NG_RANDOM}} //nolint:gosec // endpoints of a Service
}

// remember updates a set of clients.
func remember(set string) []expr.Any {
	return append(load(ipSource, first), &expr.Dynset{SrcRegKey: first, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE})
}

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func jumpTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func marked() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: first},
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: native32(mark), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: native32(mark)},
	}
}

func setMark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: first},
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: native32(^mark), Xor: native32(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: first, SourceRegister: true},
	}
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// A key or a value joins fields, each filled up to four bytes.
func joined(fields ...[]byte) string {
	var b []byte
	for _, f := range fields {
		b = pad(append(b, f...))
	}
	return string(b)
}

func portBytes[T ~int32 | ~uint16](p T) []byte {
	return binary.BigEndian.AppendUint16(nil, uint16(p)) //nolint:gosec // a port
}
