//go:build !linux && !windows

package fencer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
)

func listen(string) (net.Listener, error) { return nil, errors.ErrUnsupported }

func dial(context.Context, string) (net.Conn, int, error) { return nil, 0, errors.ErrUnsupported }

func detached() *syscall.SysProcAttr { return nil }

func end(int, bool) error { return errors.ErrUnsupported }

func gone(int) bool { return true }

func settle(string, *slog.Logger) error { return errors.ErrUnsupported }

func removeOwn(string) {}

func lockFile(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func system(string) (Cells, error) { return nil, errors.ErrUnsupported }
