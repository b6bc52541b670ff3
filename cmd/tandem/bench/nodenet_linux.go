package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent"
	"github.com/tandem-gitops/tandem/runtimes/network"
)

const (
	manyServices  = 1000
	endpointsEach = 10
	endpointTries = 50
)

// endpoints measures how long it takes until one endpoint that changed, among
// those of many Services, is in this kernel: from the hub of a controller over
// mTLS to the node's network.
func endpoints(ctx context.Context, b *board) (err error) {
	dir, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	logger := slog.New(slog.DiscardHandler)
	hub := agent.NewHub(agent.HubConfig{Submit: func(...state.Event) {}, Logger: logger})
	over, err := newWire(hub, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, over.close()) }()
	net, err := network.Open(network.Options{Node: nodeName, ID: "bench", Dir: filepath.Join(dir, "network"), Logger: logger})
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- net.Run(run) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done, net.Shutdown(context.WithoutCancel(ctx)))
	}()
	link, err := over.link(nodeName)
	if err != nil {
		return err
	}
	session, err := link.Open(ctx, agent.Hello{
		Node: nodeName, BootID: "bench", Incarnation: 1, Facts: state.NodeFacts{OS: state.Linux, Arch: "amd64"},
	}, &networkPeer{node: net})
	if err != nil {
		return err
	}
	defer session.Close()
	return changes(ctx, b, hub, net)
}

// changes has a cluster's network change, one endpoint at a time.
func changes(ctx context.Context, b *board, hub *agent.Hub, node *network.Node) error {
	programmed, err := watchRules()
	if err != nil {
		return err
	}
	defer programmed.close()
	now := cluster()
	hub.Network(now)
	whole, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	start := time.Now()
	if _, err := node.Resolver(whole, "default"); err != nil {
		return fmt.Errorf("all Services: %w", err)
	}
	b.atMost("1,000 Services of 10 endpoints, programmed at first", ms(time.Since(start)), "ms", 0)
	var samples []time.Duration
	for i := range endpointTries {
		if err := programmed.drain(); err != nil {
			return err
		}
		now = oneChanged(now, i)
		start := time.Now()
		hub.Network(now)
		if err := programmed.next(time.Minute); err != nil {
			return err
		}
		samples = append(samples, time.Since(start))
	}
	b.atMost("one endpoint of 10,000 changed, programmed, p50", ms(median(samples)), "ms", 0)
	b.atMost("one endpoint of 10,000 changed, programmed, p99", ms(p99(samples)), "ms", 50)
	return nil
}

func cluster() *state.Network {
	n := &state.Network{
		Seq: 1, Pods: "10.244.0.0/16", Addresses: "10.96.0.0/16",
		Nodes: []*state.NodeNetwork{{Name: nodeName, OS: state.Linux, Address: machineAddress, Range: "10.244.0.0/24"}},
	}
	for i := range manyServices {
		s := &state.Service{
			Ref: state.Ref{Kind: "Service", Namespace: "default", Name: fmt.Sprintf("svc-%04d", i)},
			IP:  fmt.Sprintf("10.96.%d.%d", 1+i/250, 1+i%250), Ports: []state.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}},
		}
		for e := range endpointsEach {
			s.Endpoints = append(s.Endpoints, state.Endpoint{
				Pod: fmt.Sprintf("web-%d-%d", i, e), IP: fmt.Sprintf("10.244.%d.%d", 1+i/25, 1+(i%25)*endpointsEach+e), Node: "other", Ports: []int32{8080},
			})
		}
		n.Services = append(n.Services, s)
	}
	return n
}

// oneChanged is n with another address behind one endpoint of one Service.
func oneChanged(n *state.Network, round int) *state.Network {
	next := *n
	next.Seq++
	next.Services = append([]*state.Service(nil), n.Services...)
	at := round * 37 % len(next.Services)
	s := *next.Services[at]
	s.Endpoints = append([]state.Endpoint(nil), s.Endpoints...)
	s.Endpoints[round%endpointsEach].IP = fmt.Sprintf("10.244.200.%d", 1+round%200)
	next.Services[at] = &s
	return &next
}

// networkPeer is an agent that programs Services and nothing else.
type networkPeer struct{ node *network.Node }

func (p *networkPeer) Assign(*state.Assignment) {}
func (p *networkPeer) Resync()                  {}
func (p *networkPeer) Lost(error)               {}

// Network implements agent.NetworkPeer.
func (p *networkPeer) Network(n *state.Network) { p.node.Update(n) }

func (p *networkPeer) Logs(context.Context, agent.LogRequest) (io.ReadCloser, error) {
	return nil, runtimes.ErrUnsupported
}

func (p *networkPeer) Exec(context.Context, agent.ExecRequest) (int, error) {
	return 0, runtimes.ErrUnsupported
}

func (p *networkPeer) PortForward(context.Context, state.UID, uint16, io.ReadWriteCloser) error {
	return net.ErrClosed
}

// rules are what the kernel says of its nftables: a message for every
// transaction that has come into force.
type rules struct{ socket int }

func watchRules() (*rules, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	r := &rules{fd}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *rules) close() error { return unix.Close(r.socket) }

// next waits for a transaction.
func (r *rules) next(most time.Duration) error {
	t := unix.NsecToTimeval(int64(most))
	if err := unix.SetsockoptTimeval(r.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t); err != nil {
		return err
	}
	if _, _, err := unix.Recvfrom(r.socket, make([]byte, 1<<16), 0); err != nil && !errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("no change of rules within %s: %w", most, err)
	}
	return nil
}

// drain forgets the transactions that were.
func (r *rules) drain() error {
	for {
		_, _, err := unix.Recvfrom(r.socket, make([]byte, 1<<16), unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return err
		}
	}
}
