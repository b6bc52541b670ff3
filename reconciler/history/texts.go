package history

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Texts keeps the words that people and programs wrote, beside the log, where
// they can be erased. The log holds H(salt‖text); the salt is here, so that what
// was erased can't be guessed from the token. One append-only file:
//
//	length of text (4), state (1): 1 live or 2 erased, token (16), salt (16),
//	text, CRC-32C of all that (4)
//
// Erasing overwrites salt and text in place with zeros. It is safe for
// concurrent use.
type Texts struct {
	disk     Disk
	readOnly bool
	logger   *slog.Logger

	mu     sync.Mutex
	file   File
	size   int64 // durable or in pending
	synced int64
	at     map[state.Text]int64
	again  map[[16]byte]state.Text // by the text's own hash: equal words have one token
	names  map[[16]byte]state.Text // likewise, of people: never forgotten
	forgot bool                    // again doesn't hold all
	err    error
}

const (
	textsFile = "texts"
	textFixed = 4 + 1 + 16 + 16
	textTail  = 4
	textLive  = 1
	textGone  = 2
	// maxTextAgain bounds the memory for finding equal words again.
	maxTextAgain = 1 << 16
)

// MaxText is how many bytes of a text are kept.
const MaxText = 1 << 20

func openTexts(d Disk, readOnly bool) (*Texts, error) {
	t := &Texts{disk: d, readOnly: readOnly, at: map[state.Text]int64{}, again: map[[16]byte]state.Text{}, names: map[[16]byte]state.Text{}}
	var err error
	if readOnly {
		t.file, err = d.Open(textsFile)
		if errors.Is(err, fs.ErrNotExist) {
			t.file = nil
			return t, nil
		}
	} else {
		t.file, err = d.Create(textsFile, 0o600)
		if err == nil {
			err = d.SyncDir(".")
		}
	}
	if err != nil {
		return nil, err
	}
	raw, err := readAll(t.file)
	if err != nil {
		return nil, err
	}
	for int(t.size) < len(raw) {
		e, err := parseText(raw[t.size:])
		if errors.Is(err, errTorn) && t.size+int64(e.size) >= int64(len(raw)) {
			break // no record names it: it was not durable
		}
		if err != nil {
			return nil, damaged(textsFile, t.size, "%v", err)
		}
		t.at[e.token] = t.size
		if e.live && len(t.again) < maxTextAgain {
			t.again[shortHash(e.text)] = e.token
		} else {
			t.forgot = t.forgot || e.live
		}
		t.size += int64(e.size)
	}
	t.synced = t.size
	if !readOnly && t.size < int64(len(raw)) {
		if err := t.file.Truncate(t.size); err != nil {
			return nil, err
		}
		if err := t.file.Sync(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

type textEntry struct {
	size  int
	live  bool
	token state.Text
	text  []byte
}

// parseText reads one entry and holds its text against its token.
func parseText(b []byte) (textEntry, error) {
	if len(b) < textFixed {
		return textEntry{size: textFixed}, errTorn
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n > MaxText {
		return textEntry{}, errors.New("the length of a text is wrong")
	}
	e := textEntry{size: textFixed + n + textTail, token: state.Text(b[5:21])}
	if len(b) < e.size {
		return e, errTorn
	}
	end := e.size - textTail
	if castagnoli(b[:end]) != binary.LittleEndian.Uint32(b[end:]) {
		return e, errors.New("a text's checksum is wrong")
	}
	salt := b[21:37]
	e.text = b[textFixed:end]
	switch b[4] {
	case textLive:
		e.live = true
		if textToken(salt, e.text) != e.token {
			return e, fmt.Errorf("the words of text %s are not those that the log's token stands for", e.token)
		}
	case textGone:
		for _, c := range b[21:end] {
			if c != 0 {
				return e, fmt.Errorf("text %s was erased, and something is in its place", e.token)
			}
		}
	default:
		return e, errors.New("a text is neither live nor erased")
	}
	return e, nil
}

func textToken(salt, text []byte) state.Text {
	h := sha256.New()
	h.Write(salt)
	h.Write(text)
	return state.Text(h.Sum(nil)[:16])
}

func shortHash(b []byte) [16]byte {
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// Put keeps words and gives the token that stands for them; no words have the
// zero token. Equal words have one token as long as they aren't erased. They are
// durable before any record that is appended afterwards.
func (t *Texts) Put(clear string) (state.Text, error) {
	if clear == "" {
		return state.Text{}, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.put(cut(clear))
}

// Name gives the token of somebody's name. Equal names have one token however
// much was written in between: a person with two would be two people.
func (t *Texts) Name(clear string) (state.Text, error) {
	if clear == "" {
		return state.Text{}, nil
	}
	clear = cut(clear)
	t.mu.Lock()
	defer t.mu.Unlock()
	key := shortHash([]byte(clear))
	if token, ok := t.names[key]; ok {
		return token, nil
	}
	token, ok := t.again[key]
	var err error
	if !ok && t.forgot {
		token, ok, err = t.search(clear)
	}
	if !ok && err == nil {
		token, err = t.put(clear)
	}
	if err == nil {
		t.names[key] = token
	}
	return token, err
}

// search reads the file for words that aren't remembered: the first that are
// live count.
func (t *Texts) search(clear string) (state.Text, bool, error) {
	want := len(clear)
	for at := int64(0); at < t.size; {
		var fixed [textFixed]byte
		if _, err := t.file.ReadAt(fixed[:], at); err != nil {
			return state.Text{}, false, fmt.Errorf("look for a name: %w", err)
		}
		n := int(binary.LittleEndian.Uint32(fixed[:]))
		if n > MaxText {
			return state.Text{}, false, damaged(textsFile, at, "the length of a text is wrong")
		}
		if n == want && fixed[4] == textLive {
			e, _, err := t.entry(state.Text(fixed[5:21]))
			if err != nil {
				return state.Text{}, false, err
			}
			if e.live && string(e.text) == clear {
				return e.token, true, nil
			}
		}
		at += int64(textFixed + n + textTail)
	}
	return state.Text{}, false, nil
}

func (t *Texts) put(clear string) (state.Text, error) {
	if t.readOnly {
		return state.Text{}, ErrReadOnly
	}
	if t.err != nil {
		return state.Text{}, fmt.Errorf("%w: %w", ErrFailed, t.err)
	}
	key := shortHash([]byte(clear))
	if token, ok := t.again[key]; ok {
		return token, nil
	}
	if token, ok := t.names[key]; ok {
		return token, nil
	}
	b := make([]byte, textFixed, textFixed+len(clear)+textTail)
	binary.LittleEndian.PutUint32(b, uint32(len(clear)))
	b[4] = textLive
	if _, err := rand.Read(b[21:37]); err != nil {
		return state.Text{}, err
	}
	token := textToken(b[21:37], []byte(clear))
	copy(b[5:], token[:])
	b = append(b, clear...)
	b = binary.LittleEndian.AppendUint32(b, castagnoli(b))
	if _, err := t.file.WriteAt(b, t.size); err != nil {
		t.err = err
		return state.Text{}, fmt.Errorf("keep a text: %w", err)
	}
	t.at[token] = t.size
	t.size += int64(len(b))
	if len(t.again) >= maxTextAgain {
		t.again, t.forgot = map[[16]byte]state.Text{}, true
	}
	t.again[key] = token
	return token, nil
}

// cut shortens words that are too long, and says so in them.
func cut(s string) string {
	if len(s) <= MaxText {
		return s
	}
	const note = "… (cut)"
	s = s[:MaxText-len(note)]
	for len(s) > 0 && !utf8.ValidString(s[len(s)-min(4, len(s)):]) && !utf8.RuneStart(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return strings.ToValidUTF8(s, "�") + note
}

// Clear gives the words that a token stands for; no where they were erased or
// never here.
func (t *Texts) Clear(token state.Text) (string, bool) {
	if token.IsZero() {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e, _, err := t.entry(token)
	if err != nil {
		if t.logger != nil {
			t.logger.LogAttrs(context.Background(), slog.LevelError, "could not read a text", slog.String("token", token.String()), slog.Any("err", err))
		}
		return "", false
	}
	return string(e.text), e.live
}

func (t *Texts) entry(token state.Text) (textEntry, int64, error) {
	at, ok := t.at[token]
	if !ok {
		return textEntry{}, 0, nil
	}
	var fixed [textFixed]byte
	if _, err := t.file.ReadAt(fixed[:], at); err != nil {
		return textEntry{}, 0, err
	}
	n := binary.LittleEndian.Uint32(fixed[:])
	if n > MaxText {
		return textEntry{}, 0, damaged(textsFile, at, "the length of a text is wrong")
	}
	b := make([]byte, textFixed+int(n)+textTail)
	if _, err := t.file.ReadAt(b, at); err != nil {
		return textEntry{}, 0, err
	}
	e, err := parseText(b)
	if err != nil {
		return textEntry{}, 0, damaged(textsFile, at, "%v", err)
	}
	return e, at, nil
}

// ErrNoText means that no words are kept for the token.
var ErrNoText = errors.New("no such text")

// Erase destroys the words that a token stands for, durably. The log stays as
// it is, and provable.
func (t *Texts) Erase(token state.Text) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.readOnly {
		return ErrReadOnly
	}
	e, at, err := t.entry(token)
	if err != nil {
		return err
	}
	if e.size == 0 {
		return fmt.Errorf("erase %s: %w", token, ErrNoText)
	}
	if !e.live {
		return nil
	}
	delete(t.again, shortHash(e.text))
	delete(t.names, shortHash(e.text))
	b := make([]byte, textFixed, e.size)
	binary.LittleEndian.PutUint32(b, uint32(len(e.text)))
	b[4] = textGone
	copy(b[5:], token[:])
	b = append(b, make([]byte, len(e.text))...)
	b = binary.LittleEndian.AppendUint32(b, castagnoli(b))
	if _, err := t.file.WriteAt(b, at); err != nil {
		t.err = err
		return fmt.Errorf("erase %s: %w", token, err)
	}
	if err := t.file.Sync(); err != nil {
		t.err = err
		return fmt.Errorf("erase %s: %w", token, err)
	}
	return nil
}

// sync makes what was put durable; without new words it costs nothing.
func (t *Texts) sync() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	if t.synced == t.size {
		return nil
	}
	if err := t.file.Sync(); err != nil {
		t.err = err
		return err
	}
	t.synced = t.size
	return nil
}

func (t *Texts) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

// Texts are the words beside this log.
func (s *Store) Texts() *Texts { return s.texts }
