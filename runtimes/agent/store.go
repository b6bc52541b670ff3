package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// A store is an agent's directory: the assignment as it came, what can't be
// observed of the pods, and a note of who the agent is. All of it is readable
// by its owner only: the assignment holds secrets.
type store struct{ dir string }

// A note is small and changes rarely.
type note struct {
	Incarnation uint64 `json:"incarnation"`
	Head        Head   `json:"head"`
}

const (
	noteFile       = "agent.json"
	podsFile       = "pods.json"
	assignmentFile = "assignment"
)

func (s store) note() (note, error) {
	var n note
	err := s.readJSON(noteFile, &n)
	return n, err
}

func (s store) saveNote(n note) error { return s.writeJSON(noteFile, n, true) }

func (s store) savePods(p *step.Saved) error { return s.writeJSON(podsFile, p, false) }

func (s store) saveAssignment(a *state.Assignment) error {
	raw, err := encodeWhole(a)
	if err != nil {
		return err
	}
	return s.write(assignmentFile, raw, true)
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
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil && sync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
