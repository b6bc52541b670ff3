package network

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// How long after a change of the table by somebody else it is looked at, so that
// a firewall that is loaded anew is through; and how long after the table was
// written anew at the soonest, so that two programs don't write in turns.
const (
	settleFor = 20 * time.Millisecond
	mendEvery = 2 * time.Second
)

// watch hints whenever a transaction touched the table, until the returned
// function is called. The kernel says so to whoever listens; what it says about
// this node's own transactions is a hint like any other.
func (n *Node) watch() (stop func(), err error) {
	var heard *nl.NetlinkSocket
	err = n.inside(func() (err error) {
		heard, err = nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		return err
	})
	if err != nil {
		return nil, err
	}
	name := text(unix.NFTA_TABLE_NAME, n.table) // first in what is said of tables, chains, rules, sets and elements
	var done sync.WaitGroup
	done.Go(func() {
		for {
			said, _, err := heard.Receive()
			touched := errors.Is(err, unix.ENOBUFS) // too much was said: it may have been among it
			if err != nil && !touched && !errors.Is(err, unix.EINTR) {
				return // closed
			}
			for _, m := range said {
				touched = touched || bytes.Contains(m.Data, name)
			}
			if touched {
				select {
				case n.touched <- struct{}{}:
				default:
				}
			}
		}
	})
	return func() {
		heard.Close()
		done.Wait()
	}, nil
}

// vary says whether the table is not as it was programmed: a firewall that is
// loaded anew flushes everybody's rules, and a person can flush a chain.
func (n *Node) vary(ctx context.Context) (what string) {
	if !n.own.IsValid() {
		return "" // no range yet: nothing was programmed
	}
	err := n.inside(func() (err error) {
		what, err = n.compare()
		return err
	})
	if err != nil && ctx.Err() == nil {
		n.log.LogAttrs(ctx, slog.LevelDebug, "could not compare the table of Services", slog.Any("err", err))
	}
	return what
}

// compare reads the table where transactions of others may have changed it since
// this node's last.
func (n *Node) compare() (string, error) {
	if n.nft == nil {
		return "", nil // a failure closed it: all is programmed anew
	}
	before, err := n.nft.generation(nil)
	if err != nil || before == n.generation {
		return "", err
	}
	types := shared()
	wanted := map[string]map[string]string{itself: selves(n.framed.own), services: {}, nodePorts: {}}
	maps.Copy(wanted, n.ports)
	rules := frame(n.framed.own, &n.framed.cluster)
	for _, p := range n.parts {
		maps.Copy(rules, p.chains)
		for name, leads := range p.leads {
			maps.Copy(wanted[name], leads)
		}
	}
	found, err := n.nft.comments(n.table)
	if err != nil {
		return "", err
	}
	for _, chain := range slices.Sorted(maps.Keys(rules)) {
		if !slices.EqualFunc(rules[chain], found[chain], func(r rule, comment string) bool { return r.comment == comment }) {
			return "chain " + chain, n.sameSince(before)
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(found)) {
		if rules[chain] == nil {
			return "chain " + chain, n.sameSince(before)
		}
	}
	for _, set := range slices.Sorted(maps.Keys(types)) {
		has, err := n.nft.members(n.table, set)
		if err != nil {
			return "", err
		}
		if !maps.Equal(has, wanted[set]) {
			return "set " + set, n.sameSince(before)
		}
	}
	if err := n.sameSince(before); err != nil {
		return "", err
	}
	n.generation = before
	return "", nil
}

var errMoved = errors.New("somebody changed rules meanwhile")

// sameSince fails where a transaction came into force while the table was read;
// what made it is a hint to look again.
func (n *Node) sameSince(generation uint32) error {
	now, err := n.nft.generation(nil)
	if err == nil && now != generation {
		err = errMoved
	}
	return err
}
