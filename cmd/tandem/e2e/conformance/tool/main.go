// Tool is what the checks run in containers where busybox doesn't do. Its first
// argument says what it is:
//
//	serve [HTTP-ADDRESS [UDP-ADDRESS]]  says over HTTP and UDP who it is and who asks;
//	                                    /health answers with what /set?health=CODE said
//	grpc ADDRESS SECONDS                serves gRPC's health protocol, serving after so long
//	eat MIB                             takes memory, and keeps it
//	get URL                             prints what is there
//	post URL N                          sends N bytes and prints the answer
//	udp ADDRESS N                       sends N datagrams from one socket and prints the answers
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	arg := func(i int, otherwise string) string {
		if i < len(args) {
			return args[i]
		}
		return otherwise
	}
	switch verb := arg(0, "serve"); verb {
	case "serve":
		return serve(ctx, arg(1, ":8080"), arg(2, ":8081"))
	case "grpc":
		seconds, err := strconv.Atoi(arg(2, "0"))
		if err != nil {
			return err
		}
		return serveHealth(ctx, arg(1, ":8080"), time.Duration(seconds)*time.Second)
	case "eat":
		return eat(arg(1, "64"))
	case "get":
		return fetch(ctx, arg(1, ""))
	case "post":
		n, err := strconv.ParseInt(arg(2, "0"), 10, 64)
		if err != nil {
			return err
		}
		return post(ctx, arg(1, ""), n)
	case "udp":
		n, err := strconv.Atoi(arg(2, "1"))
		if err != nil {
			return err
		}
		return ask(ctx, arg(1, ""), n)
	default:
		return fmt.Errorf("what is %q?", verb)
	}
}

func serve(ctx context.Context, stream, datagram string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	packets, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", datagram)
	if err != nil {
		return err
	}
	go echo(packets, host)
	var code atomic.Int64
	code.Store(http.StatusOK)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, host) })
	mux.HandleFunc("/client", func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, from)
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.Host, r.Header.Get("X-Check")) })
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(code.Load())) })
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n, err)
	})
	mux.HandleFunc("/echo", func(http.ResponseWriter, *http.Request) { fmt.Println("heard") })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
	})
	mux.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("health"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		code.Store(int64(n))
	})
	server := http.Server{Addr: stream, Handler: mux, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// echo answers each datagram with who this is.
func echo(packets net.PacketConn, host string) {
	b := make([]byte, 2048)
	for {
		_, from, err := packets.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = packets.WriteTo([]byte(host), from) // whoever asked may have gone
	}
}

func serveHealth(ctx context.Context, at string, after time.Duration) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", at)
	if err != nil {
		return err
	}
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	time.AfterFunc(after, func() { h.SetServingStatus("", healthpb.HealthCheckResponse_SERVING) })
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, h)
	return s.Serve(listener)
}

func eat(mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	var all [][]byte
	for range n {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Println("ate", len(all), "MiB")
	select {}
}

func fetch(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	if resp.StatusCode >= 400 {
		err = errors.Join(err, errors.New(resp.Status))
	}
	return errors.Join(err, resp.Body.Close())
}

func post(ctx context.Context, url string, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.LimitReader(zeros{}, n))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// zeros is an endless file of them.
type zeros struct{}

// Read gives zeros.
func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func ask(ctx context.Context, at string, n int) error {
	if at == "" {
		return errors.New("udp wants an address")
	}
	c, err := new(net.Dialer).DialContext(ctx, "udp4", at)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 2048)
	for range n {
		if _, err := c.Write([]byte("who?")); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		got, err := c.Read(b)
		if err != nil {
			fmt.Println("no answer:", err)
			continue
		}
		fmt.Println(string(b[:got]))
	}
	return nil
}
