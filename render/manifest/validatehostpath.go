package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/reconciler/state/platform"
)

// hostPaths validates the paths of the machine that a pod sees. What they may
// look like depends on its OS; where the text names none, either will do.
func (c *validator) hostPaths(p Path, volumes *corev1.PodSpec) {
	os := TemplateOS(volumes)
	for i := range volumes.Volumes {
		h := volumes.Volumes[i].HostPath
		if h == nil {
			continue
		}
		hp := p.At(i, volumes.Volumes[i].Name).Key("hostPath")
		c.hostPath(hp.Key("path"), h.Path, os)
		switch *h.Type {
		case corev1.HostPathUnset, corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket,
			corev1.HostPathCharDev, corev1.HostPathBlockDev:
			if os == state.Windows && !platform.HostPathOnWindows(*h.Type) {
				c.fail(hp.Key("type"), fmt.Sprintf("%s can't be honoured on Windows: a container there sees the machine's files and directories alone", *h.Type), "use Directory or File, or move it to the linux variant")
			}
		default:
			c.fail(hp.Key("type"), fmt.Sprintf("there is no type %q", clip(string(*h.Type))), "use Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice or BlockDevice, or remove it")
		}
	}
}

func (c *validator) hostPath(p Path, path string, os state.OS) {
	separated := strings.FieldsFunc(path, func(r rune) bool { return r == '/' || os != state.Linux && r == '\\' })
	switch {
	case os != state.Linux && strings.HasPrefix(strings.ReplaceAll(path, "/", "\\"), `\\.\`):
		c.fail(p, "not supported yet: named pipes and devices of Windows", "mount a directory, or reach the service through a port")
	case slices.Contains(separated, ".."):
		c.fail(p, "want an absolute path without ..", "write the path that it leads to")
	case strings.HasPrefix(path, "/"), os != state.Linux && platform.WindowsPath(path):
	case os == state.Windows:
		c.fail(p, "want an absolute path", `path: C:\data`)
	default:
		c.fail(p, "want an absolute path", "path: /var/lib/...")
	}
}
