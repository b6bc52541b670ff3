package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/runtimes"
)

// tmpfsMagic is a tmpfs's type as statfs says it.
const tmpfsMagic = 0x01021994

// ownTmpfs says whether a tmpfs of its own is mounted on dir.
func ownTmpfs(dir string) (bool, error) {
	var at, above unix.Stat_t
	var kind unix.Statfs_t
	if err := errors.Join(unix.Stat(dir, &at), unix.Stat(dir+"/..", &above), unix.Statfs(dir, &kind)); err != nil {
		return false, err
	}
	return int64(kind.Type) == tmpfsMagic && at.Dev != above.Dev, nil //nolint:unconvert // its width differs by architecture
}

func mountTmpfs(dir string, size int64, mode fs.FileMode) error {
	mounted, err := ownTmpfs(dir)
	if err != nil || mounted {
		return err
	}
	options := fmt.Sprintf("mode=%o", mode)
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("mount a tmpfs: run the agent as root: %w", runtimes.ErrUnsupported)
	case err != nil:
		return fmt.Errorf("mount a tmpfs: %w", unavailable(err))
	}
	return nil
}

func unmountTmpfs(dir string) error {
	mounted, err := ownTmpfs(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !mounted {
		return nil
	}
	if err != nil {
		return unavailable(err)
	}
	// The containers are gone; a reader outside of them doesn't hold it up.
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount: %w", unavailable(err))
	}
	return nil
}

// subPath puts a part of a volume at a place of its own, which containers then
// mount. The way there is walked without leaving the volume, whatever symbolic
// links a container has put into it, and what was found is what is mounted.
func subPath(volume, path, at string, make bool) error {
	root, err := os.OpenRoot(volume)
	if err != nil {
		return unavailable(err)
	}
	defer root.Close()
	if _, err := root.Stat(path); errors.Is(err, fs.ErrNotExist) && make {
		if err := root.MkdirAll(path, 0o755); err != nil {
			return unavailable(err)
		}
	}
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", err, errConfig)
	case err != nil:
		return fmt.Errorf("%w: %w", err, runtimes.ErrRejected)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return unavailable(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), unmountAll(at)); err != nil {
		return unavailable(err)
	}
	if info.IsDir() {
		err = os.MkdirAll(at, 0o700)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err == nil {
		err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), at, "", unix.MS_BIND, "")
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// unmountAll takes away every mount on path; none is fine.
func unmountAll(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// unmountBelow takes away the mounts on what is in dir.
func unmountBelow(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, unmountAll(dir+"/"+e.Name()))
	}
	return err
}

// chmod sets the mode with the bits that fs.FileMode keeps elsewhere.
func chmod(path string, mode uint32) error { return unix.Chmod(path, mode) }

// ownedBy says whether a directory and what is made in it are a group's.
func ownedBy(dir string, gid int) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && int(st.Gid) == gid && st.Mode&unix.S_ISGID != 0
}
