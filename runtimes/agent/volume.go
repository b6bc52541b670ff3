package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

func (a *Agent) volumeDir(uid state.UID, name string) string {
	return filepath.Join(a.podsDir(), uid.String(), "volumes", name)
}

// prepareVolumes makes a pod's volumes, or brings those that follow a ConfigMap
// or Secret up to date.
func (a *Agent) prepareVolumes(x *step.Action) error {
	v := a.values(x)
	for i := range x.Pod.Template.Spec.Spec.Volumes {
		vol := &x.Pod.Template.Spec.Spec.Volumes[i]
		if err := a.prepareVolume(&v, vol); err != nil {
			return fmt.Errorf("volume %s: %w", vol.Name, err)
		}
	}
	return nil
}

func (a *Agent) prepareVolume(v *values, vol *corev1.Volume) error {
	dir := a.volumeDir(v.pod.UID, vol.Name)
	switch {
	case vol.EmptyDir != nil:
		return errors.Join(a.emptyDir(dir, vol.EmptyDir), a.own(dir, v.group(), 0o2777))
	case vol.HostPath != nil:
		return hostPath(vol.HostPath)
	case vol.PersistentVolumeClaim != nil:
		return a.claimed(v, vol.Name)
	case vol.ConfigMap != nil, vol.Secret != nil, vol.Projected != nil, vol.DownwardAPI != nil:
	default:
		return fmt.Errorf("its type: %w", runtimes.ErrUnsupported)
	}
	files, secret, err := v.files(vol)
	if err != nil {
		return err
	}
	if err := makeDir(dir, 0o755); err != nil {
		return err
	}
	if secret && !a.facts.Simulated {
		// What is secret doesn't touch the disk.
		if err := mountTmpfs(dir, 0, 0o755); err != nil {
			return err
		}
	}
	if gid := v.group(); gid >= 0 && !a.facts.Simulated {
		for path, f := range files {
			f.gid, f.mode = gid, f.mode|0o440
			files[path] = f
		}
	}
	return swap(dir, files)
}

// group is a pod's fsGroup; below 0: none.
func (v *values) group() int {
	if sc := v.pod.Template.Spec.Spec.SecurityContext; sc != nil && sc.FSGroup != nil && v.facts.OS == state.Linux {
		return int(*sc.FSGroup)
	}
	return -1
}

// own gives a directory to the pod's group, and what is made in it too.
func (a *Agent) own(dir string, gid int, mode uint32) error {
	if gid < 0 || a.facts.Simulated {
		return nil
	}
	if err := errors.Join(os.Chown(dir, -1, gid), chmod(dir, mode)); err != nil {
		return unavailable(err)
	}
	return nil
}

func (a *Agent) emptyDir(dir string, e *corev1.EmptyDirVolumeSource) error {
	if err := makeDir(dir, 0o777); err != nil {
		return err
	}
	switch e.Medium {
	case corev1.StorageMediumDefault:
		return nil
	case corev1.StorageMediumMemory:
		if a.facts.Simulated {
			return nil
		}
		var size int64
		if e.SizeLimit != nil {
			size = e.SizeLimit.Value()
		}
		return mountTmpfs(dir, size, 0o777)
	default:
		return fmt.Errorf("emptyDir.medium %s: %w", e.Medium, runtimes.ErrUnsupported)
	}
}

func hostPath(h *corev1.HostPathVolumeSource) error {
	want := corev1.HostPathUnset
	if h.Type != nil {
		want = *h.Type
	}
	path := filepath.FromSlash(h.Path)
	switch want {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate:
		return makeDir(path, 0o755)
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return unavailable(err)
		}
		return f.Close()
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return unavailable(err)
	case want == corev1.HostPathDirectory && !info.IsDir(), want == corev1.HostPathFile && !info.Mode().IsRegular(),
		want == corev1.HostPathSocket && info.Mode()&fs.ModeSocket == 0,
		want == corev1.HostPathCharDev && info.Mode()&fs.ModeCharDevice == 0,
		want == corev1.HostPathBlockDev && (info.Mode()&fs.ModeDevice == 0 || info.Mode()&fs.ModeCharDevice != 0):
		return fmt.Errorf("hostPath %s is no %s: %w", h.Path, want, runtimes.ErrRejected)
	}
	return nil
}

func unavailable(err error) error { return errors.Join(err, runtimes.ErrUnavailable) }

func makeDir(dir string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return unavailable(err)
	}
	switch err := os.Mkdir(dir, mode); {
	case err == nil:
		return os.Chmod(dir, mode) // whatever the umask is
	case errors.Is(err, fs.ErrExist):
		return nil
	default:
		return unavailable(err)
	}
}

// A file is one of a volume.
type file struct {
	data []byte
	mode fs.FileMode
	gid  int // 0: root's
}

// files are what a volume is to hold, by path.
func (v *values) files(vol *corev1.Volume) (files map[string]file, secret bool, err error) {
	files = map[string]file{}
	switch {
	case vol.ConfigMap != nil:
		c := vol.ConfigMap
		err = v.keys(files, "ConfigMap", c.Name, c.Items, c.DefaultMode, c.Optional)
	case vol.Secret != nil:
		s := vol.Secret
		secret = true
		err = v.keys(files, "Secret", s.SecretName, s.Items, s.DefaultMode, s.Optional)
	case vol.DownwardAPI != nil:
		err = v.downward(files, vol.DownwardAPI.Items, vol.DownwardAPI.DefaultMode)
	case vol.Projected != nil:
		for i := range vol.Projected.Sources {
			s := &vol.Projected.Sources[i]
			mode := vol.Projected.DefaultMode
			switch {
			case s.ConfigMap != nil:
				err = v.keys(files, "ConfigMap", s.ConfigMap.Name, s.ConfigMap.Items, mode, s.ConfigMap.Optional)
			case s.Secret != nil:
				secret = true
				err = v.keys(files, "Secret", s.Secret.Name, s.Secret.Items, mode, s.Secret.Optional)
			case s.DownwardAPI != nil:
				err = v.downward(files, s.DownwardAPI.Items, mode)
			default:
				err = fmt.Errorf("projected.sources[%d]: %w", i, runtimes.ErrUnsupported)
			}
			if err != nil {
				break
			}
		}
	}
	for path := range files {
		if !filepath.IsLocal(filepath.FromSlash(path)) || strings.HasPrefix(path, "..") {
			return nil, false, fmt.Errorf("path %q leaves the volume: %w", path, runtimes.ErrRejected)
		}
	}
	return files, secret, err
}

func modeOf(mode, def *int32) fs.FileMode {
	switch {
	case mode != nil:
		return fs.FileMode(*mode) & fs.ModePerm
	case def != nil:
		return fs.FileMode(*def) & fs.ModePerm
	default:
		return 0o644
	}
}

func (v *values) keys(files map[string]file, kind, name string, items []corev1.KeyToPath, mode *int32, optional *bool) error {
	data, ok := v.data(kind, name)
	if !ok {
		if optional != nil && *optional {
			return nil
		}
		return fmt.Errorf("%s %s/%s is not there: %w", kind, v.pod.Key.Namespace, name, errConfig)
	}
	if len(items) == 0 {
		for k, b := range data {
			files[k] = file{data: b, mode: modeOf(nil, mode)}
		}
		return nil
	}
	for _, item := range items {
		b, ok := data[item.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("%s %s/%s has no key %q: %w", kind, v.pod.Key.Namespace, name, item.Key, errConfig)
		}
		files[item.Path] = file{data: b, mode: modeOf(item.Mode, mode)}
	}
	return nil
}

func (v *values) downward(files map[string]file, items []corev1.DownwardAPIVolumeFile, mode *int32) error {
	for _, item := range items {
		var text string
		var err error
		switch {
		case item.FieldRef != nil:
			text, err = v.field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			c := specByName(v.pod.Template, item.ResourceFieldRef.ContainerName)
			if c == nil {
				return fmt.Errorf("%s names no container: %w", item.Path, runtimes.ErrRejected)
			}
			text, err = v.resource(c, item.ResourceFieldRef)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", item.Path, err)
		}
		files[item.Path] = file{data: []byte(text), mode: modeOf(item.Mode, mode)}
	}
	return nil
}

// dataLink is what readers go through: one rename changes all files at once, as
// the kubelet's AtomicWriter does.
const dataLink = "..data"

// swap makes a directory hold exactly these files. Readers see all the old or
// all the new ones.
func swap(dir string, files map[string]file) error {
	paths := slices.Sorted(maps.Keys(files))
	sum := sha256.New()
	for _, p := range paths {
		fmt.Fprintf(sum, "%q %o %d:", p, files[p].mode, len(files[p].data))
		sum.Write(files[p].data)
	}
	name := "..v" + hex.EncodeToString(sum.Sum(nil)[:8])
	if at, err := os.Readlink(filepath.Join(dir, dataLink)); err == nil && at == name && whole(filepath.Join(dir, name), files) {
		return nil
	}
	if err := fill(filepath.Join(dir, name), files); err != nil {
		return unavailable(err)
	}
	next := filepath.Join(dir, dataLink+"_next")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unavailable(err)
	}
	if err := os.Symlink(name, next); err != nil {
		return unavailable(err)
	}
	if err := os.Rename(next, filepath.Join(dir, dataLink)); err != nil {
		return unavailable(err)
	}
	return tidy(dir, name, paths)
}

func whole(dir string, files map[string]file) bool {
	for p, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p)))
		if err != nil || !bytes.Equal(b, f.data) {
			return false
		}
	}
	return true
}

func fill(dir string, files map[string]file) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for p, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
		if err := os.Chmod(path, f.mode); err != nil {
			return err
		}
		if f.gid != 0 {
			if err := os.Chown(path, -1, f.gid); err != nil {
				return err
			}
		}
	}
	return nil
}

// tidy makes the names that people see, and removes what no file needs.
func tidy(dir, current string, paths []string) error {
	tops := map[string]bool{}
	for _, p := range paths {
		top, _, _ := strings.Cut(p, "/")
		tops[top] = true
		link := filepath.Join(dir, top)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join(dataLink, top), link); err != nil {
			return unavailable(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return unavailable(err)
	}
	for _, e := range entries {
		if name := e.Name(); name != current && name != dataLink && !tops[name] {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return unavailable(err)
			}
		}
	}
	return nil
}

// removeVolumes leaves nothing of a pod's volumes.
func (a *Agent) removeVolumes(uid state.UID) error {
	return removePod(filepath.Join(a.podsDir(), uid.String()))
}

// RemovePods leaves nothing of the volumes that an agent made in its directory.
// The agent must not run, and no container either.
func RemovePods(dir string) error {
	pods, err := filepath.Glob(filepath.Join(dir, "pods", "*"))
	for _, pod := range pods {
		err = errors.Join(err, removePod(pod))
	}
	if err != nil {
		return fmt.Errorf("remove the volumes of pods: %w", err)
	}
	return nil
}

func removePod(pod string) error {
	entries, err := os.ReadDir(filepath.Join(pod, "volumes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unavailable(err)
	}
	for _, e := range entries {
		if err := unmountTmpfs(filepath.Join(pod, "volumes", e.Name())); err != nil {
			return fmt.Errorf("volume %s: %w", e.Name(), err)
		}
	}
	// What a bind mount leads to isn't the pod's: it goes first, or nothing goes.
	if err := unmountBelow(filepath.Join(pod, "subpaths")); err != nil {
		return unavailable(err)
	}
	if err := os.RemoveAll(pod); err != nil {
		return unavailable(err)
	}
	return nil
}
