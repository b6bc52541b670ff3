package network

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// A reply is a message of the kernel.
type reply struct {
	kind, flags uint16
	seq         uint32
	body        []byte
}

// errno is that of an NLMSG_ERROR.
func (a reply) errno() unix.Errno {
	if len(a.body) < 4 {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(a.body))) //nolint:gosec // the kernel's negative number
}

// attributes are those after netfilter's header.
func (a reply) attributes() map[uint16][]byte {
	if len(a.body) < 4 {
		return nil
	}
	return attributes(a.body[4:])
}

func attributes(b []byte) map[uint16][]byte {
	found := map[uint16][]byte{}
	each(b, func(kind uint16, data []byte) { found[kind] = data })
	return found
}

// each goes through attributes that lie one after another.
func each(b []byte, f func(kind uint16, data []byte)) {
	for len(b) >= 4 {
		length := int(binary.NativeEndian.Uint16(b))
		if length < 4 || length > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:length])
		b = b[min((length+3)&^3, len(b)):]
	}
}

// receive hands over messages until f says that this was the last.
func (t *tables) receive(f func(reply) (last bool, err error)) error {
	buffer := make([]byte, 64<<10)
	for {
		k, _, err := unix.Recvfrom(t.socket, buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("no answer of nftables within %s", answerWithin)
		case err != nil:
			return err
		}
		for raw := buffer[:k]; len(raw) >= unix.NLMSG_HDRLEN; {
			length := int(binary.NativeEndian.Uint32(raw))
			if length < unix.NLMSG_HDRLEN || length > len(raw) {
				return unix.EBADMSG
			}
			last, err := f(reply{
				kind: binary.NativeEndian.Uint16(raw[4:]), flags: binary.NativeEndian.Uint16(raw[6:]),
				seq: binary.NativeEndian.Uint32(raw[8:]), body: raw[unix.NLMSG_HDRLEN:length],
			})
			if last || err != nil {
				return err
			}
			raw = raw[min((length+3)&^3, len(raw)):]
		}
	}
}

// dump asks for all of a kind.
func (t *tables) dump(kind uint16, f func(map[uint16][]byte), asked ...[]byte) error {
	body := nfgen(unix.AF_INET, 0)
	for _, a := range asked {
		body = append(body, a...)
	}
	if err := t.send(t.datagram(nil, unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, body)); err != nil {
		return err
	}
	seq := t.seq
	return t.receive(func(a reply) (bool, error) {
		switch {
		case a.seq != seq:
			return false, nil
		case a.kind == unix.NLMSG_ERROR:
			return true, a.errno()
		case a.kind == unix.NLMSG_DONE:
			return true, nil
		}
		f(a.attributes())
		return false, nil
	})
}

// comments are those of the rules of each chain, in their order.
func (t *tables) comments(table string) (map[string][]string, error) {
	found := map[string][]string{}
	err := t.dump(unix.NFT_MSG_GETRULE, func(a map[uint16][]byte) {
		if unix.ByteSliceToString(a[unix.NFTA_RULE_TABLE]) == table { // an old kernel lists all tables'
			comment, _ := userdata.GetString(a[unix.NFTA_RULE_USERDATA], userdata.TypeComment)
			chain := unix.ByteSliceToString(a[unix.NFTA_RULE_CHAIN])
			found[chain] = append(found[chain], comment)
		}
	}, text(unix.NFTA_RULE_TABLE, table))
	return found, err
}

// members are the elements of a set or a map.
func (t *tables) members(table, set string) (map[string]string, error) {
	found := map[string]string{}
	err := t.dump(unix.NFT_MSG_GETSETELEM, func(a map[uint16][]byte) {
		each(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS], func(_ uint16, raw []byte) {
			e := attributes(raw)
			value := attributes(e[unix.NFTA_SET_ELEM_DATA])
			data := string(value[unix.NFTA_DATA_VALUE])
			if v := value[unix.NFTA_DATA_VERDICT]; v != nil {
				data = unix.ByteSliceToString(attributes(v)[unix.NFTA_VERDICT_CHAIN])
			}
			found[string(attributes(e[unix.NFTA_SET_ELEM_KEY])[unix.NFTA_DATA_VALUE])] = data
		})
	}, text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, set))
	if errors.Is(err, unix.ENOENT) {
		return found, nil
	}
	return found, err
}
