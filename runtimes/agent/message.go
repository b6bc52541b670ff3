package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/output"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// How much of a container's last words is kept: the kubelet's figures.
const (
	messageMost  = 4096
	fallbackMost = 2048
	fallbackTail = 80 // lines
)

func (a *Agent) messagePath(uid state.UID, container string, attempt int32) string {
	return filepath.Join(a.podsDir(), uid.String(), "messages", container, strconv.Itoa(int(attempt)))
}

// messageMount makes the file that a container may write its last words to.
// Windows mounts no single files.
func (a *Agent) messageMount(x *step.Action, c *corev1.Container) ([]runtimes.Mount, error) {
	if a.facts.OS != state.Linux || a.facts.Simulated || c.TerminationMessagePath == "" {
		return nil, nil
	}
	path := a.messagePath(x.UID, x.Container, x.Attempt)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("termination message: %w", unavailable(err))
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666)
	if err == nil {
		err = errors.Join(f.Chmod(0o666), f.Close()) // whoever the container runs as
	}
	if err != nil {
		return nil, fmt.Errorf("termination message: %w", unavailable(err))
	}
	_ = os.Remove(a.messagePath(x.UID, x.Container, x.Attempt-logsKept)) // there may be none
	return []runtimes.Mount{{Source: path, Target: c.TerminationMessagePath}}, nil
}

// withMessages adds what ended containers said last.
func (a *Agent) withMessages(e *step.Observed) *step.Observed {
	for i := range e.Containers {
		c := &e.Containers[i]
		if !c.Running && c.Error == "" {
			c.Error = a.message(c)
		}
	}
	return e
}

func (a *Agent) message(c *step.Container) string {
	f, err := os.Open(a.messagePath(c.UID, c.Name, c.Attempt))
	if err == nil {
		b, err := io.ReadAll(io.LimitReader(f, messageMost))
		if err = errors.Join(err, f.Close()); err == nil && len(b) > 0 {
			return string(b)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if c.ExitCode == 0 || !a.saysByLog(c.UID, c.Name) {
		return ""
	}
	var rest []byte // of a line that nobody ended
	if l, _ := a.outputs.life(c.UID, c.Name, c.Attempt); l != nil {
		if err := l.Take(time.Now()); err != nil {
			return ""
		}
		if rest, err = l.Rest(); err != nil {
			return ""
		}
	}
	return a.lastLines(a.logDir(c.UID, c.Name, c.Attempt), rest)
}

// saysByLog says whether a container's policy is FallbackToLogsOnError.
func (a *Agent) saysByLog(uid state.UID, container string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.applied == nil {
		return false
	}
	for _, p := range a.applied.Pods {
		if p.UID == uid && p.Template != nil {
			c := specByName(p.Template, container)
			return c != nil && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError
		}
	}
	return false
}

func (a *Agent) lastLines(dir string, rest []byte) string {
	r, err := output.Read(dir, output.Request{Tail: fallbackTail})
	if err != nil {
		return ""
	}
	defer r.Close()
	var b strings.Builder
	for {
		text, err := r.Next()
		if err != nil || len(text) == 0 {
			s := b.String() + string(rest)
			return s[max(0, len(s)-fallbackMost):]
		}
		b.Write(text)
	}
}
