//go:build !windows

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "broker: it is a Windows program, for Wine: GOOS=windows go build")
	os.Exit(64) //nolint:forbidigo // this is main
}
