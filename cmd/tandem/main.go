// Command tandem makes what runs on Linux and Windows machines match what Git
// says: the control plane, the node agent and the command line in one program.
//
//	people ──► [ tandem ] ──HTTPS──► kubeapi ──► reconciler
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // windows and freezes name time zones, on machines that have none
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
