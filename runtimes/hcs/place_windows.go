package hcs

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A place is where a node keeps its things, and the name that all of it begins
// with at Windows.
type place struct {
	dir string
	id  string // eight hexadecimal digits of dir
}

func placeOf(dir string) (place, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return place{}, err
	}
	sum := sha256.Sum256([]byte(dir))
	return place{dir: dir, id: fmt.Sprintf("%x", sum[:4])}, nil
}

func (p place) podsDir() string             { return filepath.Join(p.dir, "pods") }
func (p place) podDir(uid state.UID) string { return filepath.Join(p.podsDir(), uid.String()) }

// podPrefix is what the names of a pod's compute systems begin with.
func (p place) podPrefix(uid state.UID) string {
	return p.id + "-" + strings.ReplaceAll(uid.String(), "-", "") + "-"
}

// containerID names an attempt to the compute service.
func (p place) containerID(uid state.UID, name string, attempt int32) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("%s%x-%d", p.podPrefix(uid), sum[:5], attempt)
}
