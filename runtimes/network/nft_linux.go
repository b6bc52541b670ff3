package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// What nftables calls its types of data (nft's include/datatype.h), joined by
// concat, and two that Linux reserves.
const (
	typeInteger uint32 = 4
	typeIPv4    uint32 = 7
	typeProto   uint32 = 12
	typePort    uint32 = 13
	typeVerdict uint32 = 0xffffff00
)

func concat(types ...uint32) (joined uint32) {
	for _, t := range types {
		joined = joined<<6 | t
	}
	return joined
}

// A setType is what a set or a map is made of; widths are in bytes.
type setType struct {
	flags            uint32
	key, keyWidth    uint32
	value, valueWide uint32
	timeout          time.Duration
	size             uint32
}

// A change is one transaction of nftables on one table of IPv4: all of it comes
// into force at once, or nothing does. It is written as the kernel reads it: no
// program is started and no rule but the changed ones is looked at.
type change struct {
	table    string
	messages []message
	sets     uint32 // those that have a number in this change
	err      error
}

// A message asks for one thing; what and name are for an error.
type message struct {
	kind, flags uint16
	body        []byte
	what, name  string
}

func (c *change) ask(what, name string, kind, flags uint16, attributes ...[]byte) {
	body := nfgen(unix.AF_INET, 0)
	for _, a := range attributes {
		body = append(body, a...)
	}
	c.messages = append(c.messages, message{unix.NFNL_SUBSYS_NFTABLES<<8 | kind, unix.NLM_F_REQUEST | flags, body, what, name})
}

func (c *change) addTable() {
	c.ask("add table", c.table, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, text(unix.NFTA_TABLE_NAME, c.table))
}

func (c *change) deleteTable() {
	c.ask("delete table", c.table, unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, c.table))
}

func (c *change) addChain(name string) {
	c.ask("add chain", name, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, text(unix.NFTA_CHAIN_TABLE, c.table), text(unix.NFTA_CHAIN_NAME, name))
}

// addBase adds a chain that packets come to.
func (c *change) addBase(name, kind string, hook uint32, priority int32) {
	c.ask("add chain", name, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, text(unix.NFTA_CHAIN_TABLE, c.table), text(unix.NFTA_CHAIN_NAME, name),
		nest(unix.NFTA_CHAIN_HOOK, be32(unix.NFTA_HOOK_HOOKNUM, hook), be32(unix.NFTA_HOOK_PRIORITY, uint32(priority))), //nolint:gosec // its bits
		text(unix.NFTA_CHAIN_TYPE, kind))
}

func (c *change) deleteChain(name string) {
	c.ask("delete chain", name, unix.NFT_MSG_DELCHAIN, 0, text(unix.NFTA_CHAIN_TABLE, c.table), text(unix.NFTA_CHAIN_NAME, name))
}

func (c *change) flushChain(name string) {
	c.ask("flush chain", name, unix.NFT_MSG_DELRULE, 0, text(unix.NFTA_RULE_TABLE, c.table), text(unix.NFTA_RULE_CHAIN, name))
}

// addRule adds a rule at the end of a chain, and before it the set that is the
// rule's own.
func (c *change) addRule(chain string, r rule) {
	exprs := r.exprs
	if r.own != nil {
		c.sets++
		name := r.own.name()
		c.addSet(name, c.sets, r.own.setType)
		c.elements("add elements to", name, c.sets, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, r.own.setType, r.own.elements)
		exprs = numbered(exprs, name, c.sets)
	}
	var list [][]byte
	for _, e := range exprs {
		raw, err := expr.Marshal(unix.NFPROTO_IPV4, e)
		c.err = errors.Join(c.err, err)
		list = append(list, attribute(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, raw))
	}
	c.ask("add rule to chain", chain, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
		text(unix.NFTA_RULE_TABLE, c.table), text(unix.NFTA_RULE_CHAIN, chain), nest(unix.NFTA_RULE_EXPRESSIONS, list...),
		attribute(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, r.comment)))
}

func (c *change) addSet(name string, number uint32, t setType) {
	attributes := [][]byte{
		text(unix.NFTA_SET_TABLE, c.table), text(unix.NFTA_SET_NAME, name), be32(unix.NFTA_SET_FLAGS, t.flags),
		be32(unix.NFTA_SET_KEY_TYPE, t.key), be32(unix.NFTA_SET_KEY_LEN, t.keyWidth), be32(unix.NFTA_SET_ID, number),
	}
	if t.flags&unix.NFT_SET_MAP != 0 {
		attributes = append(attributes, be32(unix.NFTA_SET_DATA_TYPE, t.value), be32(unix.NFTA_SET_DATA_LEN, t.valueWide))
	}
	if t.timeout > 0 {
		attributes = append(attributes, be64(unix.NFTA_SET_TIMEOUT, uint64(t.timeout.Milliseconds()))) //nolint:gosec // more than zero
	}
	if t.size > 0 {
		attributes = append(attributes, nest(unix.NFTA_SET_DESC, be32(unix.NFTA_SET_DESC_SIZE, t.size)))
	}
	if t.key == typeInteger { // else `nft list` shows each number with its bytes turned round
		attributes = append(attributes, attribute(unix.NFTA_SET_USERDATA, userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, 1)))
	}
	c.ask("add set", name, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, attributes...)
}

func (c *change) deleteSet(name string) {
	c.ask("delete set", name, unix.NFT_MSG_DELSET, 0, text(unix.NFTA_SET_TABLE, c.table), text(unix.NFTA_SET_NAME, name))
}

func (c *change) addElements(set string, t setType, elements []element) {
	c.elements("add elements to", set, 0, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, t, elements)
}

func (c *change) deleteElements(set string, t setType, elements []element) {
	c.elements("delete elements of", set, 0, unix.NFT_MSG_DELSETELEM, 0, t, elements)
}

// elementsMost is how many elements one message takes: a list is an attribute,
// whose length is 16 bits.
const elementsMost = 500

func (c *change) elements(what, set string, number uint32, kind, flags uint16, t setType, elements []element) {
	for len(elements) > 0 {
		k := min(len(elements), elementsMost)
		list := make([][]byte, 0, k)
		for _, e := range elements[:k] {
			list = append(list, nest(unix.NFTA_LIST_ELEM, e.attributes(t)...))
		}
		elements = elements[k:]
		attributes := [][]byte{text(unix.NFTA_SET_ELEM_LIST_TABLE, c.table), text(unix.NFTA_SET_ELEM_LIST_SET, set)}
		if number > 0 {
			attributes = append(attributes, be32(unix.NFTA_SET_ELEM_LIST_SET_ID, number))
		}
		c.ask(what, set, kind, flags, append(attributes, nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list...))...)
	}
}

// An element is one of a set's or a map's. A verdict's value is the chain that it
// goes to.
type element struct{ key, value string }

func (e element) attributes(t setType) [][]byte {
	key := nest(unix.NFTA_SET_ELEM_KEY, attribute(unix.NFTA_DATA_VALUE, []byte(e.key)))
	switch {
	case t.flags&unix.NFT_SET_MAP == 0:
		return [][]byte{key}
	case t.value == typeVerdict:
		verdict := nest(unix.NFTA_DATA_VERDICT, be32(unix.NFTA_VERDICT_CODE, gotoChain), text(unix.NFTA_VERDICT_CHAIN, e.value))
		return [][]byte{key, nest(unix.NFTA_SET_ELEM_DATA, verdict)}
	}
	return [][]byte{key, nest(unix.NFTA_SET_ELEM_DATA, attribute(unix.NFTA_DATA_VALUE, []byte(e.value)))}
}

// gotoChain is NFT_GOTO, -4.
const gotoChain = 0xfffffffc

// nfgen is the header of a message to netfilter, after that of netlink.
func nfgen(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

func attribute(kind uint16, data []byte) []byte {
	b := make([]byte, 4, 4+len(data)+3)
	binary.NativeEndian.PutUint16(b, uint16(4+len(data))) //nolint:gosec // elementsMost sees to it
	binary.NativeEndian.PutUint16(b[2:], kind)
	return pad(append(b, data...))
}

// pad fills up to a multiple of four bytes.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func nest(kind uint16, inner ...[]byte) []byte {
	var data []byte
	for _, a := range inner {
		data = append(data, a...)
	}
	return attribute(kind|unix.NLA_F_NESTED, data)
}

func text(kind uint16, s string) []byte { return attribute(kind, append([]byte(s), 0)) }

func be32(kind uint16, v uint32) []byte {
	return attribute(kind, binary.BigEndian.AppendUint32(nil, v))
}

func be64(kind uint16, v uint64) []byte {
	return attribute(kind, binary.BigEndian.AppendUint64(nil, v))
}

// A tables is a connection to the nftables of one network namespace. One that
// stays is a hundred times faster than a new one for each change: to close it
// waits until the kernel has freed what was replaced.
type tables struct {
	socket int
	seq    uint32
}

// answerWithin bounds the wait for the kernel, which answers at once or never.
const answerWithin = 10 * time.Second

// openTables connects to the nftables of this thread's network namespace.
func openTables() (*tables, error) {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	t := &tables{socket: socket}
	within := unix.NsecToTimeval(int64(answerWithin))
	err = errors.Join(unix.Bind(socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &within),
		unix.SetsockoptInt(socket, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1))
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *tables) close() error { return unix.Close(t.socket) }

func (t *tables) send(raw []byte) error {
	// A transaction is one datagram, and the buffer must have room for all of it.
	if room, err := unix.GetsockoptInt(t.socket, unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil && room < 2*len(raw) {
		if err := unix.SetsockoptInt(t.socket, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(raw)); err != nil {
			return fmt.Errorf("room for %d bytes: %w", len(raw), err)
		}
	}
	return unix.Sendto(t.socket, raw, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// datagram adds a message to a datagram.
func (t *tables) datagram(raw []byte, kind, flags uint16, body []byte) []byte {
	t.seq++
	raw = binary.NativeEndian.AppendUint32(raw, uint32(unix.NLMSG_HDRLEN+len(body))) //nolint:gosec // far less
	raw = binary.NativeEndian.AppendUint16(raw, kind)
	raw = binary.NativeEndian.AppendUint16(raw, flags)
	raw = binary.NativeEndian.AppendUint32(raw, t.seq)
	raw = binary.NativeEndian.AppendUint32(raw, 0)
	return pad(append(raw, body...))
}

// run brings a change into force, and returns the generation after it: the
// kernel counts the transactions of a network namespace.
func (t *tables) run(c *change) (uint32, error) {
	if c.err != nil {
		return 0, c.err
	}
	batch := nfgen(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	raw := t.datagram(nil, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, batch)
	first := t.seq + 1
	for _, m := range c.messages {
		raw = t.datagram(raw, m.kind, m.flags, m.body)
	}
	raw = t.datagram(raw, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, batch)
	last := t.seq
	if err := t.send(raw); err != nil {
		return 0, err
	}
	// What was wrong is answered before the next question is.
	var wrong error
	generation, err := t.generation(func(seq uint32, errno unix.Errno) {
		switch {
		case wrong != nil || seq > last:
		case seq >= first && seq < last:
			m := c.messages[seq-first]
			wrong = fmt.Errorf("%s %s: %w", m.what, m.name, errno)
		default:
			wrong = errno
		}
	})
	return generation, errors.Join(wrong, err)
}

// generation asks for the number of the newest transaction, and hands over what
// was wrong with what was sent before.
func (t *tables) generation(wrong func(seq uint32, errno unix.Errno)) (uint32, error) {
	if err := t.send(t.datagram(nil, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, unix.NLM_F_REQUEST, nfgen(unix.AF_UNSPEC, 0))); err != nil {
		return 0, err
	}
	asked := t.seq
	var generation uint32
	err := t.receive(func(m reply) (bool, error) {
		switch {
		case m.kind == unix.NLMSG_ERROR && m.seq == asked:
			return false, m.errno()
		case m.kind == unix.NLMSG_ERROR:
			if wrong != nil && m.errno() != 0 {
				wrong(m.seq, m.errno())
			}
		case m.seq == asked:
			if id := m.attributes()[unix.NFTA_GEN_ID]; len(id) == 4 {
				generation = binary.BigEndian.Uint32(id)
			}
			return true, nil
		}
		return false, nil
	})
	return generation, err
}
