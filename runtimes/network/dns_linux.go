package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Limits of one question.
const (
	upstreamTimeout = 2 * time.Second
	forwardsMost    = 256 // questions to others at a time
)

// A server answers pods' questions at this node's address: for cluster.local
// itself, for other names by asking the machine's servers.
type server struct {
	node *Node

	at      atomic.Pointer[netip.Addr]
	slots   chan struct{}
	servers []*dns.Server // the loop's alone
	all     sync.WaitGroup
}

func (s *server) resolvPath() string {
	if s.node.o.Resolv != "" {
		return s.node.o.Resolv
	}
	return "/etc/resolv.conf"
}

// resolv are the lines of resolv.conf for pods of a namespace.
func (s *server) resolv(namespace string) []string {
	zone := strings.TrimSuffix(Zone, ".")
	search := []string{namespace + ".svc." + zone, "svc." + zone, zone}
	if c, err := dns.ClientConfigFromFile(s.resolvPath()); err == nil {
		search = append(search, c.Search...)
	}
	return []string{"nameserver " + s.at.Load().String(), "search " + strings.Join(search, " "), "options ndots:5"}
}

// listen serves at an address; it is called in the node's namespace.
func (s *server) listen(ctx context.Context, at netip.Addr) error {
	if *s.at.Load() == at && len(s.servers) > 0 {
		return nil
	}
	s.close()
	s.at.Store(&at)
	where := netip.AddrPortFrom(at, 53).String()
	var cfg net.ListenConfig
	packets, err := cfg.ListenPacket(ctx, "udp4", where)
	if err != nil {
		return fmt.Errorf("listen for names at %s: %w", where, err)
	}
	streams, err := cfg.Listen(ctx, "tcp4", where)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for names at %s: %w", where, err), packets.Close())
	}
	s.servers = []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: streams, Handler: s}}
	for _, one := range s.servers {
		started := make(chan struct{})
		one.NotifyStartedFunc = func() { close(started) }
		s.all.Go(func() {
			if err := one.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				s.node.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelError, "stopped serving names", slog.Any("err", err))
			}
		})
		<-started
	}
	return nil
}

// close ends the servers.
func (s *server) close() {
	for _, one := range s.servers {
		_ = one.Shutdown() // it was started
	}
	s.all.Wait()
	s.servers = nil
}

// ServeDNS implements dns.Handler.
func (s *server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	reply := s.answer(w, q)
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		reply.Truncate(size)
	}
	if err := w.WriteMsg(reply); err != nil {
		s.node.log.LogAttrs(context.Background(), slog.LevelDebug, "lost an answer about a name", slog.Any("err", err))
	}
}

func (s *server) answer(w dns.ResponseWriter, q *dns.Msg) *dns.Msg {
	failed := func(code int) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || q.Response {
		return failed(dns.RcodeFormatError)
	}
	z := s.node.zone.Load()
	name := strings.ToLower(q.Question[0].Name)
	if dns.IsSubDomain(Zone, name) {
		return mine(q, z.reply(q))
	}
	if ip := reversed(name); ip != "" && q.Question[0].Qtype == dns.TypePTR {
		if names := z.reverse(ip); len(names) > 0 {
			m := new(dns.Msg).SetReply(q)
			for _, n := range names {
				m.Answer = append(m.Answer, &dns.PTR{
					Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: n,
				})
			}
			return mine(q, m)
		}
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return failed(dns.RcodeServerFailure)
	}
	m := s.forward(q, w.LocalAddr().Network())
	if m == nil {
		return failed(dns.RcodeServerFailure)
	}
	return m
}

// udpMost is the largest datagram that is taken for a question.
const udpMost = 1232

// mine finishes an answer of our own: who asks with EDNS is answered with it (RFC
// 6891), or takes us for a server that can't.
func mine(q, m *dns.Msg) *dns.Msg {
	m.RecursionAvailable = true
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(udpMost, o.Do())
	}
	return m
}

// reversed is the IPv4 address that an in-addr.arpa name stands for.
func reversed(name string) string {
	digits, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	parts := strings.Split(digits, ".")
	if !ok || len(parts) != 4 {
		return ""
	}
	return parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0]
}

// forward asks the servers that the machine's resolv.conf names, one after the
// other; nil: none answered.
func (s *server) forward(q *dns.Msg, network string) *dns.Msg {
	c, err := dns.ClientConfigFromFile(s.resolvPath())
	if err != nil {
		return nil
	}
	for _, upstream := range c.Servers {
		if ip, err := netip.ParseAddr(upstream); err != nil || ip == *s.at.Load() {
			continue // not ourselves
		}
		m, err := s.ask(q, network, net.JoinHostPort(upstream, c.Port))
		if err == nil && m.Truncated && network == "udp" {
			return m // the client comes again over TCP
		}
		if err == nil {
			m.Id = q.Id
			return m
		}
		s.node.log.LogAttrs(context.Background(), slog.LevelDebug, "a name server did not answer", slog.String("server", upstream), slog.Any("err", err))
	}
	return nil
}

func (s *server) ask(q *dns.Msg, network, at string) (*dns.Msg, error) {
	client := dns.Client{Net: network, Timeout: upstreamTimeout}
	var conn *dns.Conn
	err := s.node.inside(func() error {
		var err error
		conn, err = client.Dial(at)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m, _, err := client.ExchangeWithConn(q, conn)
	return m, err
}
