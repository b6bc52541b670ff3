package worker

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Limits are what one render may take.
type Limits struct {
	Memory int64         // bytes of its process
	CPU    time.Duration // processor time, of all its threads
	Time   time.Duration // on the clock
}

// down is a message to a worker: one of its fields.
type down struct {
	Limits *Limits // first of all
	Job    *job
	Answer *answer
	Want   *want
}

// up is a message of a worker: one of its fields.
type up struct {
	Ready  *ready
	Ask    *ask
	Done   *done
	Bodies *bodies
	Passed *passed
}

// ready says that a worker is confined and waits for work.
type ready struct{ Refused string } // why it can't be, or ""

// job is a render.
type job struct {
	App      state.Application
	Revision state.Revision
	Keys     bool // there are keys to decrypt with
}

// op is what a worker asks for.
type op uint8

const (
	opLook   op = iota + 1 // what is at a path, and its content if it is small
	opRead                 // a file's content
	opList                 // a directory's names
	opBlob                 // a file's hash
	opToken                // what stands for a secret value
	opUnwrap               // a file's key, of age stanzas
)

type ask struct {
	Op      op
	Path    string
	Value   []byte
	Stanzas []*age.Stanza
}

// answer is to an ask.
type answer struct {
	Err    *wireError
	Info   *info
	Whole  bool // Data and Blob are the file's
	Data   []byte
	Blob   string
	Names  []info
	Secret []byte // a token or a key
}

// done is a result without the bodies of its objects: the controller may have
// them already.
type done struct {
	Err       string
	Apps      []state.Application
	Pipelines []state.Pipeline
	Access    *state.Access
	Problems  []state.Problem
	Manifest  *head
}

type head struct {
	Objects  []objectHead
	Reads    []state.Read
	Pairs    []string
	Warnings []state.Problem
	Digest   state.Digest
}

type objectHead struct {
	Ref      state.Ref
	Variants []variantHead
}

type variantHead struct {
	OS     state.OS
	Digest state.Digest
	Origin state.Origin
}

// want names the variants, counted through all objects, whose bodies are wanted.
type want struct{ Variants []int }

// bodies are as JSON.
type bodies struct{ JSON [][]byte }

// passed names a limit of the process.
type passed struct{ Limit string }

// The limits that a worker can find itself to have passed.
const (
	limitMemory = "memory"
	limitCPU    = "cpu"
)

// wireError is an error of the other side: its words, and the class that
// rendering tells apart.
type wireError struct {
	Text   string
	Absent bool
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	return &wireError{Text: err.Error(), Absent: errors.Is(err, fs.ErrNotExist)}
}

func (e *wireError) Error() string { return e.Text }

// Is makes an absent file fs.ErrNotExist on this side too.
func (e *wireError) Is(target error) bool { return e.Absent && target == fs.ErrNotExist }

// info is a file's as far as rendering looks at it.
type info struct {
	FileName string
	Bytes    int64
	FileMode fs.FileMode
}

func (i *info) Name() string               { return i.FileName }
func (i *info) Size() int64                { return i.Bytes }
func (i *info) Mode() fs.FileMode          { return i.FileMode }
func (i *info) ModTime() time.Time         { return time.Time{} }
func (i *info) IsDir() bool                { return i.FileMode.IsDir() }
func (i *info) Sys() any                   { return nil }
func (i *info) Type() fs.FileMode          { return i.FileMode.Type() }
func (i *info) Info() (fs.FileInfo, error) { return i, nil }

// pipe is one end of a connection between a controller and a worker.
type pipe struct {
	mu  sync.Mutex // of enc
	enc *gob.Encoder
	dec *gob.Decoder
	in  *metered
}

func newPipe(in io.Reader, out io.Writer) *pipe {
	m := &metered{r: in, left: -1}
	return &pipe{enc: gob.NewEncoder(out), dec: gob.NewDecoder(m), in: m}
}

func (p *pipe) send(message any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.enc.Encode(message)
}

// metered ends after so many bytes, unless left is negative.
type metered struct {
	r    io.Reader
	left int64
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.left >= 0 {
		if m.left -= int64(n); m.left < 0 {
			return 0, fmt.Errorf("sends more than %d bytes", maxSent)
		}
	}
	return n, err
}
