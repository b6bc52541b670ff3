package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// A store is an agent's directory: the assignment without its Secrets, what
// can't be observed of the pods, and a note of who the agent is. Secrets go
// where no disk is, for as long as the machine runs; after a reboot the
// controller sends them again, and only pods that have some wait for it.
type store struct {
	dir      string
	volatile string // in memory; empty: Secrets are kept nowhere
}

// A note is small and changes rarely.
type note struct {
	Incarnation uint64 `json:"incarnation"`
	Head        Head   `json:"head"`
	Parked      string `json:"parked,omitempty"` // the boot in which a clean stop of the controller left the leases for ever
}

const (
	noteFile       = "agent.json"
	podsFile       = "pods.json"
	assignmentFile = "assignment"
	secretsFile    = "secrets"
)

func (s store) note() (note, error) {
	var n note
	if err := s.readJSON(noteFile, &n); err != nil {
		return n, fmt.Errorf("%w; a damaged note isn't guessed at: move the file away, and the node goes on without what it remembers of the controller's log", err)
	}
	return n, nil
}

func (s store) saveNote(n note) error { return s.writeJSON(noteFile, n, true) }

func (s store) savePods(p *step.Saved) error { return s.writeJSON(podsFile, p, false) }

func (s store) saveAssignment(a *state.Assignment) error {
	open, secrets := *a, state.Assignment{Node: a.Node}
	open.Objects = nil
	for _, o := range a.Objects {
		if o.Ref.Kind == "Secret" {
			secrets.Objects = append(secrets.Objects, o)
		} else {
			open.Objects = append(open.Objects, o)
		}
	}
	raw, err := encodeWhole(&open)
	if err != nil {
		return err
	}
	if err := s.write(assignmentFile, raw, true); err != nil || s.volatile == "" {
		return err
	}
	if raw, err = encodeWhole(&secrets); err != nil {
		return err
	}
	if err := os.MkdirAll(s.volatile, 0o700); err != nil {
		return err
	}
	return store{dir: s.volatile}.write(secretsFile, raw, false)
}

// secrets puts the Secrets back that the assignment was saved without.
func (s store) secrets(a *state.Assignment) error {
	if s.volatile == "" {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(s.volatile, secretsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the machine was started since
	}
	if err != nil {
		return err
	}
	kept, err := decodeWhole(raw)
	if err != nil || kept.Node != a.Node {
		return store{dir: s.volatile}.aside(secretsFile)
	}
	a.Objects = append(slices.Clone(a.Objects), kept.Objects...)
	slices.SortFunc(a.Objects, func(x, y *state.Object) int { return x.Ref.Compare(y.Ref) })
	return nil
}

// load reads what a former process left. A file that can't be read, after a
// power cut say, is as good as none: the controller sends the assignment again
// and what runs is observed.
func (s store) load() (*step.Saved, error) {
	raw, err := os.ReadFile(filepath.Join(s.dir, assignmentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none, and that is no error
	}
	if err != nil {
		return nil, err
	}
	a, err := decodeWhole(raw)
	if err != nil {
		return nil, s.aside(assignmentFile)
	}
	if err := s.secrets(a); err != nil {
		return nil, err
	}
	saved := &step.Saved{}
	if err := s.readJSON(podsFile, saved); err != nil {
		saved = &step.Saved{}
		if err := s.aside(podsFile); err != nil {
			return nil, err
		}
	}
	saved.Assignment = a
	return saved, nil
}

// aside keeps a damaged file for whoever wants to know.
func (s store) aside(name string) error {
	return os.Rename(filepath.Join(s.dir, name), filepath.Join(s.dir, name+".damaged"))
}

func (s store) readJSON(name string, v any) error {
	raw, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(s.dir, name), err)
	}
	return nil
}

func (s store) writeJSON(name string, v any, sync bool) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write(name, raw, sync)
}

// write replaces a file as a whole.
func (s store) write(name string, raw []byte, sync bool) error {
	path := filepath.Join(s.dir, name)
	if sync {
		return atomicfile.WriteDurable(path, raw, 0o600)
	}
	return atomicfile.Write(path, raw, 0o600)
}
