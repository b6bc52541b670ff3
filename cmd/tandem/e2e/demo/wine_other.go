//go:build !linux

package main

import (
	"context"
	"errors"
)

type windowsNode struct{} //nolint:unused // Wine is on Linux

func (*stage) openWindows(context.Context) error { return errors.New("WINDOWS=wine needs Linux") }

func (*stage) joinWindows(context.Context) error { return nil }

func (*stage) leaveWindows(context.Context) error { return nil }
