package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/windows"
)

const root = `C:\hcstest`

func main() {
	fmt.Fprintln(os.Stderr, "broker:", run())
	os.Exit(1) //nolint:forbidigo // this is main
}

// run serves until it can't.
func run() error {
	b, err := newBroker()
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	file := filepath.Join(root, "port")
	if err := os.WriteFile(file+".new", []byte(strconv.Itoa(port)), 0o600); err != nil {
		return err
	}
	if err := replace(file+".new", file); err != nil {
		return err
	}
	fmt.Println("port", port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		b.killAll()
		os.Exit(0) //nolint:forbidigo // whoever started it has gone
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go b.serve(c)
	}
}

// replace renames a file over another, which Wine refuses while somebody reads
// that one.
func replace(from, to string) error {
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		err := os.Rename(from, to)
		if err == nil || !errors.Is(err, windows.ERROR_ACCESS_DENIED) && !errors.Is(err, windows.ERROR_SHARING_VIOLATION) || time.Since(begin) > replaceTimeout {
			return err
		}
	}
}

const replaceTimeout = 20 * time.Second

// A request is a call of one of the stubs; rpc.h has its form.
type request struct {
	pid  uint32 // of the caller
	name string
	args []any // uint64, string or nil
	conn net.Conn
}

func (r *request) number(i int) uint64 {
	if i < len(r.args) {
		if v, ok := r.args[i].(uint64); ok {
			return v
		}
	}
	return 0
}

func (r *request) text(i int) string {
	if i < len(r.args) {
		if v, ok := r.args[i].(string); ok {
			return v
		}
	}
	return ""
}

// none is NULL where a text could be.
type none struct{}

// hresults that the double answers with.
const (
	ok                 uint32 = 0
	invalidState       uint32 = 0x80370105
	invalidJSON        uint32 = 0x8037010d
	noSuchSystem       uint32 = 0x8037010e
	alreadyExists      uint32 = 0x8037010f
	alreadyStopped     uint32 = 0x80370110
	operationTimeout   uint32 = 0x80370118
	processStopped     uint32 = 0x8037011f
	invalidHandle      uint32 = 0x80070006
	notSupported       uint32 = 0x80070032
	fileNotFound       uint32 = 0x80070002
	elementNotFound    uint32 = 0x80070490
	operationCancelled uint32 = 0x800704c7
	networkNotFound    uint32 = 0x803b0001
	endpointNotFound   uint32 = 0x803b0002
	networkExists      uint32 = 0x803b0010
	portExists         uint32 = 0x803b0013
	badAddress         uint32 = 0x803b002f
)

func (b *broker) serve(c net.Conn) {
	defer c.Close()
	r, err := readRequest(c)
	if err != nil {
		return
	}
	if strings.HasSuffix(r.name, "Callback") {
		b.stream(r)
		return
	}
	hr, outs := b.call(r)
	_, _ = c.Write(encode(hr, outs))
}

// call answers one request, or with the fault that a test has asked for.
func (b *broker) call(r *request) (uint32, []any) {
	if hr, hit := b.faulty(r); hit {
		return hr, nil
	}
	b.note(r)
	f, known := b.calls()[r.name]
	if !known {
		fmt.Fprintln(os.Stderr, "broker: nobody taught me", r.name)
		return notSupported, nil
	}
	return f(r)
}

func readRequest(c io.Reader) (*request, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.LittleEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c, raw); err != nil {
		return nil, err
	}
	d := decoder{raw: raw}
	r := &request{pid: d.u32()}
	r.name = string(d.bytes(int(d.u32())))
	for range d.u32() {
		if kind := d.bytes(1); len(kind) == 1 && kind[0] == 'i' {
			r.args = append(r.args, d.u64())
		} else {
			r.args = append(r.args, d.text())
		}
	}
	if c, ok := c.(net.Conn); ok {
		r.conn = c
	}
	return r, d.err
}

type decoder struct {
	raw []byte
	err error
}

func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.raw) {
		d.err = io.ErrUnexpectedEOF
		return make([]byte, min(max(n, 0), 16))
	}
	out := d.raw[:n]
	d.raw = d.raw[n:]
	return out
}

func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.bytes(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.bytes(8)) }

func (d *decoder) text() any {
	n := d.u32()
	if n == ^uint32(0) {
		return nil
	}
	raw := d.bytes(int(n) * 2)
	units := make([]uint16, len(raw)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(raw[2*i:])
	}
	return string(utf16.Decode(units))
}

func appendText(out []byte, s string) []byte {
	units := utf16.Encode([]rune(s))
	out = binary.LittleEndian.AppendUint32(out, uint32(len(units)))
	for _, u := range units {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

// encode writes an answer: numbers, texts and none.
func encode(hr uint32, outs []any) []byte {
	out := binary.LittleEndian.AppendUint32(make([]byte, 4), hr)
	for _, v := range outs {
		switch v := v.(type) {
		case uint64:
			out = binary.LittleEndian.AppendUint64(out, v)
		case string:
			out = appendText(out, v)
		default:
			out = binary.LittleEndian.AppendUint32(out, ^uint32(0))
		}
	}
	binary.LittleEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// An event goes to those who set a callback.
type event struct {
	kind uint32
	data string
}

func (e event) encode() []byte {
	out := binary.LittleEndian.AppendUint32(make([]byte, 4), e.kind)
	out = appendText(out, e.data)
	binary.LittleEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

const (
	eventSystemExited  = 1
	eventProcessExited = 0x10000
)

// An audience is who hears the events of a system or process.
type audience struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	past  []event // for those who come late
}

func (a *audience) tell(e event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.past = append(a.past, e)
	for c := range a.conns {
		_, _ = c.Write(e.encode())
	}
}

// stream lets a caller hear events until its handle is closed or it leaves.
func (b *broker) stream(r *request) {
	a, closed := b.audienceOf(r)
	if a == nil {
		_, _ = r.conn.Write(event{kind: invalidHandle}.encode())
		return
	}
	a.mu.Lock()
	_, _ = r.conn.Write(event{kind: 1}.encode())
	for _, e := range a.past {
		_, _ = r.conn.Write(e.encode())
	}
	if a.conns == nil {
		a.conns = map[net.Conn]bool{}
	}
	a.conns[r.conn] = true
	a.mu.Unlock()
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = io.Copy(io.Discard, r.conn)
	}()
	select {
	case <-closed:
		a.mu.Lock()
		_, _ = r.conn.Write(event{}.encode()) // a proper end, no lost service
		a.mu.Unlock()
	case <-left:
	}
	a.mu.Lock()
	delete(a.conns, r.conn)
	a.mu.Unlock()
}
