package containerd

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/atomicfile"
)

// A podRecord is sandbox.json in a pod's directory. It is there before anything
// of the pod is made and goes last.
type podRecord struct {
	UID         state.UID         `json:"uid"`
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	Hostname    string            `json:"hostname"`
	HostNetwork bool              `json:"hostNetwork,omitempty"`
	IP          string            `json:"ip,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Ports       []runtimes.Port   `json:"ports,omitempty"` // of the machine
	SharePID    bool              `json:"sharePID,omitempty"`
	Init        int               `json:"init,omitempty"` // the first process of a shared PID namespace
	Made        bool              `json:"made"`           // all of it
}

// phase of a container.
type phase string

const (
	starting phase = "starting" // something of it may exist
	running  phase = "running"
	ended    phase = "ended" // nothing of it is needed any more
)

// A containerRecord is c-NAME.json in its pod's directory: what the latest
// attempt came to. It outlives containerd's own idea of the container.
type containerRecord struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Attempt    int32     `json:"attempt"`
	Phase      phase     `json:"phase"`
	Signal     string    `json:"signal,omitempty"` // to stop it
	PID        uint32    `json:"pid,omitempty"`    // while it runs
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int32     `json:"exitCode,omitempty"`
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	Error      string    `json:"error,omitempty"`
}

func (r *Runtime) podsDir() string               { return filepath.Join(r.run, "pods") }
func (r *Runtime) podDir(uid state.UID) string   { return filepath.Join(r.podsDir(), uid.String()) }
func (p *pod) file(name string) string           { return filepath.Join(p.dir, name) }
func (p *pod) pin(ns string) string              { return filepath.Join(p.dir, "ns", ns) }
func (r *Runtime) groupDir(uid state.UID) string { return r.cgroup + "/" + uid.String() }

// containerID names an attempt to containerd, which allows 76 characters; it
// begins with whose it is.
func (r *Runtime) containerID(uid state.UID, name string, attempt int32) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%s-%s-%x-%d", r.id, strings.ReplaceAll(uid.String(), "-", ""), sum[:5], attempt)
}

// writeJSON replaces a file whole. It isn't flushed: these files need not
// survive the machine, only us.
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
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
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
		if err := r.addresses.take(p.record.IP, uid); err != nil {
			return err
		}
		r.pods[uid] = p
		if p.record.Made {
			r.publish(p)
		}
	}
	return nil
}

func (p *pod) save() error {
	return writeJSON(p.file("sandbox.json"), p.record)
}

func (p *pod) saveContainer(rec containerRecord) error {
	return writeJSON(p.file("c-"+rec.Name+".json"), rec)
}
