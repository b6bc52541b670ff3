package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// A claim's volume is DIR/volumes/UID: its data, and beside it a file that says
// whose it is, for people. It outlives pods, agents, runtimes and reboots; only
// a dropped one is deleted.
const (
	dataName  = "data"
	ownerName = "claim"
)

func (a *Agent) volumesDir() string { return filepath.Join(a.cfg.Dir, "volumes") }

func (a *Agent) dataDir(volume state.UID) string {
	return filepath.Join(a.volumesDir(), volume.String(), dataName)
}

func volumeOf(claims []step.PodVolume, name string) (state.UID, bool) {
	for _, c := range claims {
		if c.Name == name {
			return c.UID, true
		}
	}
	return state.UID{}, false
}

// claimed makes a claim's directory for its first pod, and finds it for the
// others. One that a pod has run with is never made again: an empty directory in
// place of data would be taken for the data.
func (a *Agent) claimed(v *values, name string) error {
	for i := range v.volumes {
		c := &v.volumes[i]
		if c.Name != name {
			continue
		}
		dir := a.dataDir(c.UID)
		_, err := os.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			if c.Begun && !a.facts.Simulated {
				return fmt.Errorf("%s: the data of %s is gone: put it back, or give it up: kubectl delete pvc %s: %w", dir, c.Claim, c.Claim.Name, runtimes.ErrUnavailable)
			}
			err = a.makeVolume(c)
		}
		if err != nil {
			return unavailable(err)
		}
		return a.ownAll(dir, v.group())
	}
	return fmt.Errorf("its claim was not assigned: %w", errConfig)
}

// makeVolume makes the directory last: where it is, all is.
func (a *Agent) makeVolume(c *step.PodVolume) error {
	dir := a.dataDir(c.UID)
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	owner := filepath.Join(filepath.Dir(dir), ownerName)
	if err := os.WriteFile(owner, []byte(c.Claim.Namespace+"/"+c.Claim.Name+"\n"), 0o644); err != nil {
		return err
	}
	return makeDir(dir, 0o777)
}

// ownAll gives a volume, and what is in it, to the pod's group, as the kubelet
// does with fsGroup. Where the directory is the group's already, all is.
func (a *Agent) ownAll(dir string, gid int) error {
	if gid < 0 || a.facts.Simulated || ownedBy(dir, gid) {
		return nil
	}
	// What containers put there may lead anywhere: nothing leaves the root.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return unavailable(err)
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != "." {
			err = give(root, path, d, gid)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another pod that has the volume removed it
		}
		return err
	})
	if err != nil {
		return unavailable(err)
	}
	return a.own(dir, gid, 0o2777) // last: it says that all is done
}

// dropVolume deletes a volume; one that isn't there is deleted.
func (a *Agent) dropVolume(ctx context.Context, volume state.UID) error {
	if err := os.RemoveAll(filepath.Join(a.volumesDir(), volume.String())); err != nil {
		return fmt.Errorf("delete volume %s: %w", volume, unavailable(err))
	}
	a.log.LogAttrs(ctx, slog.LevelInfo, "deleted a volume", slog.String("volume", volume.String()))
	return nil
}

// give gives one thing in a volume to a group, which may then read and write it.
func give(root *os.Root, path string, d fs.DirEntry, gid int) error {
	if err := root.Lchown(path, -1, gid); err != nil {
		return err
	}
	info, err := d.Info()
	switch {
	case err != nil || d.Type()&fs.ModeSymlink != 0:
		return err
	case d.IsDir():
		return root.Chmod(path, info.Mode()|fs.ModeSetgid|0o070)
	default:
		return root.Chmod(path, info.Mode()|0o060)
	}
}
