// Command db is the example's ordered service: each replica says its ordinal.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// version is set when the image is built (-ldflags "-X main.version=2.1.0").
var version = "2.0.3"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "db:", err)
		os.Exit(1)
	}
}

// ordinal is the number at the end of a StatefulSet pod's host name.
func ordinal(host string) (int, error) {
	n, err := strconv.Atoi(host[strings.LastIndex(host, "-")+1:])
	if err != nil || !strings.Contains(host, "-") {
		return 0, fmt.Errorf("host name %q: want one that ends in -ORDINAL, as a StatefulSet gives it", host)
	}
	return n, nil
}

func run() error {
	// SIGTERM is also what Go makes of a console's close and shutdown on Windows.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("ask for the host's name: %w", err)
	}
	n, err := ordinal(host)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "ordinal %d (%s), version %s on %s/%s\n", n, host, version, runtime.GOOS, runtime.GOARCH)
	})
	server := &http.Server{Addr: cmp.Or(os.Getenv("ADDR"), ":7000"), Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		fmt.Println("db: stopping")
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		done <- server.Shutdown(last)
	}()
	fmt.Printf("db %s: ordinal %d, listening on %s\n", version, n, server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listen: %w", err)
	}
	return <-done
}
