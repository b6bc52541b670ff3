package kubeapi

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/portforward"
	criforward "k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	// streamIdle ends a stream on which nothing went for so long; Kubernetes's figure.
	streamIdle = 4 * time.Hour
	// streamStart is how long a client may take to open its streams.
	streamStart = 30 * time.Second
)

// A place is where a pod runs, and one of its containers.
type place struct {
	node      state.NodeName
	uid       state.UID
	container string
	tty       bool
}

// locate finds the pod of a target and a container in it; with no name, the
// one that kubectl would take.
func (a *api) locate(t target, container string) (place, error) {
	var pl place
	var problem error
	a.Controller.View(func(s *state.State) {
		p := s.ByName[state.PodKey{Namespace: t.namespace, Name: t.name}]
		if p == nil {
			problem = noSuch(t)
			return
		}
		pl = place{node: p.Node, uid: p.UID, container: container}
		spec := &p.Template.Spec.Spec
		if container == "" {
			if pl.container = p.Template.Spec.Annotations["kubectl.kubernetes.io/default-container"]; pl.container == "" {
				pl.container = spec.Containers[0].Name
			}
		}
		var names []string
		for i := range spec.InitContainers {
			names = append(names, spec.InitContainers[i].Name)
		}
		for i := range spec.Containers {
			names = append(names, spec.Containers[i].Name)
		}
		if slices.Contains(names, pl.container) {
			return
		}
		problem = apierrors.NewBadRequest(fmt.Sprintf("pod %s has no container %s: it has %s", t.name, pl.container, strings.Join(names, ", ")))
	})
	return pl, problem
}

// unreachable turns a runtime's error into what a client should be told.
func unreachable(pl place, err error) error {
	switch {
	case errors.Is(err, runtimes.ErrUnsupported):
		return apierrors.NewBadRequest(fmt.Sprintf("node %s: %v", pl.node, err))
	case errors.Is(err, runtimes.ErrNotFound):
		e := apierrors.NewBadRequest(fmt.Sprintf("container %s on node %s: %v", pl.container, pl.node, err))
		return e
	default:
		return apierrors.NewServiceUnavailable(fmt.Sprintf("node %s: %v", pl.node, err))
	}
}

// log copies a container's log to the client, as it comes.
func (a *api) log(c *call, t target) error {
	q := c.r.URL.Query()
	pl, err := a.locate(t, q.Get("container"))
	if err != nil {
		return err
	}
	o, err := logOptions(q.Get, time.Now())
	if err != nil {
		return err
	}
	from, err := a.Nodes.Logs(c.r.Context(), pl.node, pl.uid, pl.container, o)
	if err != nil {
		return unreachable(pl, err)
	}
	defer from.Close()
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.w.WriteHeader(http.StatusOK)
	if err := pour(c.w, from); err != nil && c.r.Context().Err() == nil {
		// The status is sent: breaking off is the only way left to say it.
		a.Logger.LogAttrs(c.r.Context(), slog.LevelWarn, "broke off a log",
			slog.String("pod", t.namespace+"/"+t.name), slog.String("node", string(pl.node)), slog.String("err", err.Error()))
		panic(http.ErrAbortHandler)
	}
	return nil
}

// pour copies and flushes after each read.
func pour(w http.ResponseWriter, from io.Reader) error {
	flush := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return nil //nolint:nilerr // the client has gone
			}
			if err := flush.Flush(); err != nil {
				return nil //nolint:nilerr // the client has gone
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// logOptions reads the query of a log request.
func logOptions(get func(string) string, now time.Time) (LogOptions, error) {
	o := LogOptions{Follow: isTrue(get("follow")), Previous: isTrue(get("previous")), Timestamps: isTrue(get("timestamps")), Tail: -1}
	number := func(name string) (int64, bool, error) {
		s := get(name)
		if s == "" {
			return 0, false, nil
		}
		var n int64
		if _, err := fmt.Sscanf(s, "%d", &n); err != nil || n < 0 {
			return 0, false, apierrors.NewBadRequest(fmt.Sprintf("%s %q: want a number from 0", name, s))
		}
		return n, true, nil
	}
	if n, ok, err := number("tailLines"); err != nil {
		return o, err
	} else if ok {
		o.Tail = n
	}
	if n, ok, err := number("sinceSeconds"); err != nil {
		return o, err
	} else if ok {
		o.Since = now.Add(-time.Duration(n) * time.Second)
	}
	if s := get("sinceTime"); s != "" {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return o, apierrors.NewBadRequest("sinceTime: want a time as in RFC 3339")
		}
		o.Since = at
	}
	if n, ok, err := number("limitBytes"); err != nil {
		return o, err
	} else if ok {
		if n == 0 {
			return o, apierrors.NewBadRequest("limitBytes: want a number from 1")
		}
		o.Limit = n
	}
	switch s := get("stream"); s {
	case "", "All":
	case "Stdout", "Stderr":
		o.Stream = strings.ToLower(s)
	default:
		return o, apierrors.NewBadRequest("stream: want All, Stdout or Stderr")
	}
	return o, nil
}

// exec runs a command in a container, over a websocket (v4, v5) or SPDY. It is
// recorded before it begins.
func (a *api) exec(c *call, t target) error {
	q := c.r.URL.Query()
	pl, err := a.locate(t, q.Get("container"))
	if err != nil {
		return err
	}
	opts := &remotecommand.Options{Stdin: isTrue(q.Get("stdin")), Stdout: isTrue(q.Get("stdout")), Stderr: isTrue(q.Get("stderr")), TTY: isTrue(q.Get("tty"))}
	if opts.TTY {
		opts.Stderr = false
	}
	command := q["command"]
	switch {
	case len(command) == 0:
		return apierrors.NewBadRequest("exec wants a command")
	case !opts.Stdin && !opts.Stdout && !opts.Stderr:
		return apierrors.NewBadRequest("exec wants at least one of stdin, stdout and stderr")
	}
	cmd := &state.Command{
		Verb: state.CmdExec, Object: state.Ref{Kind: "Pod", Namespace: t.namespace, Name: t.name},
		Detail: a.Controller.Text(pl.container + ": " + strings.Join(command, " ")),
	}
	asked, err := a.ask(c.r.Context(), c.user, cmd, "")
	if err != nil {
		return err
	}
	pl.tty = opts.TTY
	run := &execution{nodes: a.Nodes, place: pl, err: errNotBegun}
	defer func() {
		if why := revoked(c.r.Context()); why != nil {
			run.err = why
		}
		a.over(asked.Seq, run.code, run.err)
	}()
	if wsstream.IsWebSocketRequest(c.r) {
		run.webSocket(c, command, opts)
		return nil
	}
	remotecommand.ServeExec(c.w, c.r, run, t.name, pl.uid.String(), pl.container, command, opts, streamIdle, streamStart, remotecommand.SupportedStreamingProtocols)
	return nil
}

// errNotBegun is what becomes of a session whose client never opened its streams.
var errNotBegun = errors.New("the client opened no stream")

// errOver is what becomes of a connection that comes when its session has ended.
var errOver = errors.New("the session is over")

// over tells how something that a person did in a pod ended.
func (a *api) over(session state.Seq, code int, err error) {
	e := &state.SessionOver{Session: session, Outcome: state.SessionDone, Code: int32(code)} //nolint:gosec // an exit status
	if err != nil {
		e.Outcome, e.Detail = state.SessionFailed, a.Controller.Text(err.Error())
	}
	a.Controller.Submit(e)
}

// An execution is one command that runs in a container.
type execution struct {
	nodes Nodes
	place
	code int // how it ended
	err  error
}

// ExecInContainer implements cri-streaming's Executor.
func (x *execution) ExecInContainer(
	ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	code, err := x.run(ctx, cmd, in, out, errs, tty, resize)
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit status %s", codeText(code)), Code: clientCode(code)}
	}
	return nil
}

func (x *execution) run(ctx context.Context, cmd []string, in io.Reader, out, errs io.Writer, tty bool, resize <-chan remotecommand.TerminalSize) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := runtimes.Exec{Command: cmd, TTY: tty}
	// A nil pointer in an interface is not nil: streams that weren't asked for stay out.
	if in != nil {
		e.Stdin = in
	}
	if out != nil {
		e.Stdout = out
	}
	if errs != nil {
		e.Stderr = errs
	}
	if resize != nil {
		sizes := make(chan runtimes.Size)
		e.Resize = sizes
		done := make(chan struct{})
		defer func() { cancel(); <-done }()
		go func() {
			defer close(done)
			for {
				select {
				case <-ctx.Done():
					return
				case s, ok := <-resize:
					if !ok {
						return
					}
					select {
					case sizes <- runtimes.Size{Width: s.Width, Height: s.Height}:
					case <-ctx.Done():
						return
					}
				}
			}
		}()
	}
	x.code, x.err = x.nodes.Exec(ctx, x.node, x.uid, x.container, e)
	if x.err == nil {
		tellCode(x.code, out, errs, tty)
	}
	return x.code, x.err
}

// The channels of a remote command on a websocket.
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel
	resizeChannel
)

// webSocket serves v4 and v5 of the remote command protocol; in v5 a client
// can close its input alone, which wsstream understands.
func (x *execution) webSocket(c *call, command []string, o *remotecommand.Options) {
	kinds := []wsstream.ChannelType{wsstream.IgnoreChannel, wsstream.IgnoreChannel, wsstream.IgnoreChannel, wsstream.WriteChannel, wsstream.ReadChannel}
	if o.Stdin {
		kinds[stdinChannel] = wsstream.ReadChannel
	}
	if o.Stdout {
		kinds[stdoutChannel] = wsstream.WriteChannel
	}
	if o.Stderr {
		kinds[stderrChannel] = wsstream.WriteChannel
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: kinds},
		remotecommand.StreamProtocolV4Name: {Binary: true, Channels: kinds},
	})
	conn.SetIdleTimeout(streamIdle)
	_, streams, err := conn.Open(c.w, c.r)
	if err != nil {
		return // the handshake told the client
	}
	defer conn.Close()
	// An empty message tells the client that the stream is open.
	_, _ = streams[errorChannel].Write(nil)
	var in io.Reader
	var out, errs io.Writer
	if o.Stdin {
		in = streams[stdinChannel]
	}
	if o.Stdout {
		out = streams[stdoutChannel]
	}
	if o.Stderr {
		errs = streams[stderrChannel]
	}
	resize := make(chan remotecommand.TerminalSize)
	ctx, cancel := context.WithCancel(c.r.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		readSizes(ctx, streams[resizeChannel], resize)
	}()
	code, err := x.run(ctx, command, in, out, errs, o.TTY, resize)
	_, _ = streams[errorChannel].Write(mustJSON(exitStatus(code, err)))
	cancel()
	_ = conn.Close()
	<-done
}

// readSizes hands on the sizes of the client's terminal until the stream ends.
func readSizes(ctx context.Context, from io.Reader, to chan<- remotecommand.TerminalSize) {
	d := json.NewDecoder(from)
	for {
		var s remotecommand.TerminalSize
		if d.Decode(&s) != nil {
			return
		}
		select {
		case to <- s:
		case <-ctx.Done():
			return
		}
	}
}

// clientMost is the highest exit code that client-go reads; beyond it, it reports
// a broken stream instead of the command's end. Codes of Windows have 32 bits.
const clientMost = 255

// clientCode is what clients are told of an exit code.
func clientCode(code int) int {
	if code < 0 || code > clientMost {
		return clientMost
	}
	return code
}

// codeText is an exit code as a person looks it up: "-1073741510 (0xc000013a)".
func codeText(code int) string {
	if clientCode(code) == code {
		return fmt.Sprint(code)
	}
	return fmt.Sprintf("%d (0x%08x)", code, uint32(code)) //nolint:gosec // the same 32 bits
}

// tellCode writes a code that clients can't be told to where the person sees it:
// kubectl shows nothing of a status but its code.
func tellCode(code int, out, errs io.Writer, tty bool) {
	end := "\n"
	if tty {
		errs, end = out, "\r\n" // a terminal has one stream, and is raw
	}
	if errs == nil || clientCode(code) == code {
		return
	}
	// The status says it too, so a client that has gone misses nothing.
	_, _ = fmt.Fprintf(errs, "tandem: the command ended with exit code %s; it is reported as %d%s", codeText(code), clientMost, end)
}

// exitStatus is how a command's end is told.
func exitStatus(code int, err error) metav1.Status {
	switch {
	case err != nil:
		return metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Message: err.Error(), Code: http.StatusInternalServerError}
	case code != 0:
		return metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason, Message: "command terminated with exit code " + codeText(code),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: fmt.Sprint(clientCode(code))}}},
		}
	default:
		return metav1.Status{Status: metav1.StatusSuccess}
	}
}

// tunnelProtocol carries SPDY, and with it port-forward, in a websocket.
const tunnelProtocol = "SPDY/3.1+portforward.k8s.io"

// portForward connects the client to ports of a pod.
func (a *api) portForward(c *call, t target) error {
	pl, err := a.locate(t, "")
	if err != nil {
		return err
	}
	w, r := c.w, c.r
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		up := websocket.Upgrader{Subprotocols: []string{tunnelProtocol}, CheckOrigin: func(*http.Request) bool { return true }}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return nil // Upgrade told the client
		}
		tunnel := portforward.NewTunnelingConnection("server", conn)
		defer tunnel.Close()
		r = r.Clone(r.Context())
		r.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {criforward.ProtocolV1Name},
		}
		w = &tunnelWriter{header: http.Header{}, conn: tunnel}
	} else if wsstream.IsWebSocketRequest(r) {
		return apierrors.NewBadRequest("port-forward over websocket wants the protocol " + tunnelProtocol)
	}
	f := &forwarder{api: a, call: c, target: t, place: pl, ports: map[int32]*forwarded{}}
	defer f.over()
	criforward.ServePortForward(w, r, f, t.name, pl.uid.String(), &criforward.V4Options{}, streamIdle, streamStart, criforward.SupportedProtocols)
	return nil
}

// A tunnelWriter answers a SPDY upgrade inside a tunnel whose outer handshake
// is done: the header goes nowhere, the connection is the tunnel.
type tunnelWriter struct {
	header http.Header
	conn   net.Conn
}

func (w *tunnelWriter) Header() http.Header         { return w.header }
func (w *tunnelWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *tunnelWriter) WriteHeader(int)             {}

// Hijack implements http.Hijacker.
func (w *tunnelWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(w.conn)), nil
}

// A forwarder connects streams to a pod's ports. Each port is recorded before the
// first connection to it.
type forwarder struct {
	*api
	call   *call
	target target
	place

	mu    sync.Mutex
	ports map[int32]*forwarded
	ended bool
}

// forwarded is a port that is connected to, and how that ended last.
type forwarded struct {
	session state.Seq
	err     error
}

// begin records that a port is connected to.
func (f *forwarder) begin(ctx context.Context, port int32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended { // nobody would tell how it ended
		return errOver
	}
	if f.ports[port] != nil {
		return nil
	}
	asked, err := f.ask(ctx, f.call.user, &state.Command{
		Verb: state.CmdPortForward, Object: state.Ref{Kind: "Pod", Namespace: f.target.namespace, Name: f.target.name},
		Detail: f.Controller.Text(fmt.Sprintf("port %d", port)),
	}, "")
	if err != nil {
		return err
	}
	f.ports[port] = &forwarded{session: asked.Seq}
	return nil
}

// over records how it ended, of every port.
func (f *forwarder) over() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for _, port := range slices.Sorted(maps.Keys(f.ports)) {
		f.api.over(f.ports[port].session, 0, cmp.Or(revoked(f.call.r.Context()), f.ports[port].err))
	}
}

// PortForward implements cri-streaming's PortForwarder.
func (f *forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("port %d: want 1 to 65535", port)
	}
	if err := f.begin(ctx, port); err != nil {
		return err
	}
	err := f.Nodes.PortForward(ctx, f.node, f.uid, uint16(port), stream)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports[port].err = err
	return err
}
