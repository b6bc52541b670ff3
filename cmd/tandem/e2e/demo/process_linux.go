package main

import "syscall"

// ownGroup keeps the terminal's Ctrl-C from `tandem up`: the demo stops it in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
