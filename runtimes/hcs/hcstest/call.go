package hcstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"unicode/utf16"
)

// Call asks a broker for one of its test.… calls, from either side of Wine; c/rpc.h
// has the form.
func Call(c net.Conn, name string, texts ...string) (string, error) {
	raw := binary.LittleEndian.AppendUint32(make([]byte, 4), uint32(os.Getpid())) //nolint:gosec // numbers of processes are small
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(name)))                //nolint:gosec // short
	raw = append(raw, name...)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(texts))) //nolint:gosec // few
	for _, t := range texts {
		units := utf16.Encode([]rune(t))
		raw = append(raw, 's')
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(units))) //nolint:gosec // short
		for _, u := range units {
			raw = binary.LittleEndian.AppendUint16(raw, u)
		}
	}
	binary.LittleEndian.PutUint32(raw, uint32(len(raw)-4)) //nolint:gosec // short
	if _, err := c.Write(raw); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return "", err
	}
	const head = 8
	if len(answer) < head {
		return "", errors.New("the broker's answer is short")
	}
	if hr := binary.LittleEndian.Uint32(answer[4:]); hr != 0 {
		return "", fmt.Errorf("the broker says 0x%08x to %s", hr, name)
	}
	if len(answer) < head+4 {
		return "", nil
	}
	n := binary.LittleEndian.Uint32(answer[head:])
	body := answer[head+4:]
	if n == ^uint32(0) || uint64(len(body)) < 2*uint64(n) {
		return "", nil
	}
	units := make([]uint16, n)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(body[2*i:])
	}
	return string(utf16.Decode(units)), nil
}
