//go:build !linux

package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
)

func ownNetwork(string) error { return nil }

func nodeNetwork(context.Context, *board) error { return notMeasured() }
func nodeStart(context.Context, *board) error   { return notMeasured() }
func nodeRest(context.Context, *board) error    { return notMeasured() }

func notMeasured() error {
	_, err := fmt.Fprintf(os.Stderr, "node: not measured on %s: it takes containerd and nftables\n", runtime.GOOS)
	return err
}
