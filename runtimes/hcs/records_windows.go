package hcs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// A podRecord is sandbox.json in a pod's directory. It is there before anything
// of the pod is made and goes last.
type podRecord struct {
	UID       state.UID         `json:"uid"`
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Hostname  string            `json:"hostname"`
	IP        string            `json:"ip,omitempty"`
	Network   string            `json:"network,omitempty"` // the pod's HCN namespace
	Endpoint  string            `json:"endpoint,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Isolation state.Isolation   `json:"isolation,omitempty"`
	Made      bool              `json:"made"` // all of it
}

// phase of a container.
type phase string

const (
	starting phase = "starting" // something of it may exist
	running  phase = "running"
	ended    phase = "ended" // nothing of it is needed any more
)

// A containerRecord is c-NAME.json in its pod's directory: what the latest
// attempt came to.
type containerRecord struct {
	ID         string    `json:"id"` // of the compute system
	Name       string    `json:"name"`
	Attempt    int32     `json:"attempt"`
	Phase      phase     `json:"phase"`
	PID        uint32    `json:"pid,omitempty"` // of its first process
	Keeper     int       `json:"keeper,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int32     `json:"exitCode,omitempty"`
	Error      string    `json:"error,omitempty"`

	// What further processes of it begin with.
	Environment map[string]string `json:"environment,omitempty"`
	User        string            `json:"user,omitempty"`
	WorkingDir  string            `json:"workingDir,omitempty"`
}

// An outcome is what a keeper saw, in ID.exit beside the records.
type outcome struct {
	ExitCode   uint32    `json:"exitCode"`
	FinishedAt time.Time `json:"finishedAt"`
}

func (p *pod) file(name string) string      { return filepath.Join(p.dir, name) }
func (p *pod) outcomeFile(id string) string { return p.file(id + ".exit") }

// writeJSON replaces a file whole.
func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, raw, 0o600)
}

func readJSON(path string, v any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// load reads the records of all pods. A directory without a readable record was
// being made or removed; it is kept as a pod without name, for the sweep.
func (r *Runtime) load() error {
	entries, err := os.ReadDir(r.podsDir())
	if err != nil {
		return fmt.Errorf("read the records of pods: %w", err)
	}
	for _, e := range entries {
		uid, err := state.ParseUID(e.Name())
		if err != nil {
			continue // not ours to judge
		}
		p := r.newPod(podRecord{UID: uid})
		if err := readJSON(p.file("sandbox.json"), &p.record); err != nil {
			p.record = podRecord{UID: uid}
		}
		files, err := filepath.Glob(p.file("c-*.json"))
		if err != nil {
			return fmt.Errorf("read the records of pods: %w", err)
		}
		for _, file := range files {
			var rec containerRecord
			if err := readJSON(file, &rec); err != nil || rec.ID == "" {
				continue // half written means nothing was started yet
			}
			p.containers[rec.Name] = newContainer(rec)
		}
		r.pods[uid] = p
	}
	return nil
}

func (p *pod) save() error { return writeJSON(p.file("sandbox.json"), p.record) }

func (p *pod) saveContainer(rec containerRecord) error {
	return writeJSON(p.file("c-"+rec.Name+".json"), rec)
}
