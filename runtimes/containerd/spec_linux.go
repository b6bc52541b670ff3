package containerd

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/cgroup"
)

// The scheduler's period, and the least quota and shares that the kernel takes.
const (
	cpuPeriod  = 100_000 // microseconds
	quotaMin   = 1000
	sharesMin  = 2
	groupLabel = "io.containerd.runc.v2.group" // containers of one value share one shim
)

// specOptions say how a container runs, beyond its user (see userOptions).
func (r *Runtime) specOptions(p *pod, c runtimes.Container, img ocispec.Image) ([]oci.SpecOpts, error) {
	args, err := arguments(c, img.Config)
	if err != nil {
		return nil, err
	}
	env := img.Config.Env
	if len(env) == 0 {
		env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	opts := []oci.SpecOpts{
		oci.WithProcessArgs(args...),
		oci.WithEnv(env), oci.WithEnv([]string{"HOSTNAME=" + p.record.Hostname}), oci.WithEnv(c.Env),
		oci.WithProcessCwd(firstOf(c.WorkingDir, img.Config.WorkingDir, "/")),
		oci.WithCgroup(r.groupDir(c.UID) + "/" + c.Name),
		oci.WithAnnotations(map[string]string{groupLabel: p.record.UID.String()}),
		r.withNamespaces(p), r.withLimits(c.Limits), withMounts(p, c),
		oci.WithoutRunMount,
	}
	return append(opts, securityOptions(c.Security)...), nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// arguments follow Kubernetes: command replaces the entrypoint and drops the
// image's arguments, args replace the image's arguments.
func arguments(c runtimes.Container, img ocispec.ImageConfig) ([]string, error) {
	command, args := c.Command, c.Args
	if len(command) == 0 {
		command = img.Entrypoint
		if len(args) == 0 {
			args = img.Cmd
		}
	}
	all := slices.Concat(command, args)
	if len(all) == 0 || all[0] == "" {
		return nil, fmt.Errorf("%w: neither the image nor the container names a command", runtimes.ErrRejected)
	}
	return all, nil
}

// with makes an option of a plain change.
func with(change func(*oci.Spec)) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		change(s)
		return nil
	}
}

// withNamespaces joins the pod's pinned namespaces.
func (r *Runtime) withNamespaces(p *pod) oci.SpecOpts {
	return with(func(s *oci.Spec) {
		s.Hostname = "" // the pod's uts namespace has it
		list := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}}
		if p.record.SharePID {
			list[1].Path = p.pin("pid")
		}
		if cgroup.Unified(cgroup.Root) {
			list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}
		kinds := map[string]specs.LinuxNamespaceType{"net": specs.NetworkNamespace, "ipc": specs.IPCNamespace, "uts": specs.UTSNamespace}
		for _, ns := range p.namespaces() {
			list = append(list, specs.LinuxNamespace{Type: kinds[ns], Path: p.pin(ns)})
		}
		s.Linux.Namespaces = list
	})
}

func (r *Runtime) withLimits(l runtimes.Limits) oci.SpecOpts {
	return with(func(s *oci.Spec) {
		res := s.Linux.Resources
		res.CPU, res.Memory = &specs.LinuxCPU{}, &specs.LinuxMemory{}
		res.CPU.Shares = new(max(sharesMin, uint64(l.CPURequest)*1024/1000))
		if l.CPULimit > 0 {
			res.CPU.Period, res.CPU.Quota = new(uint64(cpuPeriod)), new(max(quotaMin, l.CPULimit*cpuPeriod/1000))
		}
		if l.Memory > 0 {
			res.Memory.Limit = new(l.Memory)
		}
		if l.PIDs > 0 {
			res.Pids = &specs.LinuxPids{Limit: new(l.PIDs)}
		}
		s.Process.OOMScoreAdj = new(max(l.OOMScore, r.oomLeast))
		s.Process.Rlimits = nil // the daemon's own, as under Kubernetes
	})
}

// withMounts adds the pod's files and the container's volumes. A volume on one
// of the pod's files wins.
func withMounts(p *pod, c runtimes.Container) oci.SpecOpts {
	return with(func(s *oci.Spec) {
		taken := map[string]bool{}
		for _, m := range c.Mounts {
			taken[filepath.Clean(m.Target)] = true
		}
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return taken[m.Destination] || m.Destination == "/dev/shm" })
		for target, file := range map[string]string{"/etc/hosts": "hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf"} {
			if !taken[target] {
				s.Mounts = append(s.Mounts, bind(runtimes.Mount{Source: p.file(file), Target: target, ReadOnly: c.Security.ReadOnlyRoot}))
			}
		}
		if !taken["/dev/shm"] {
			s.Mounts = append(s.Mounts, bind(runtimes.Mount{Source: p.file("shm"), Target: "/dev/shm"}))
		}
		for _, m := range c.Mounts {
			s.Mounts = append(s.Mounts, bind(m))
			switch {
			case m.Propagate == "Bidirectional":
				s.Linux.RootfsPropagation = "rshared"
			case m.Propagate == "HostToContainer" && s.Linux.RootfsPropagation == "":
				s.Linux.RootfsPropagation = "rslave"
			}
		}
		// Parents before what is mounted into them; equal input, equal spec.
		slices.SortStableFunc(s.Mounts, func(a, b specs.Mount) int {
			if d := strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/"); d != 0 {
				return d
			}
			return strings.Compare(a.Destination, b.Destination)
		})
		if c.Security.Privileged {
			for i, m := range s.Mounts {
				if m.Type == "sysfs" {
					s.Mounts[i].Options = []string{"nosuid", "noexec", "nodev", "rw"}
				}
			}
		}
	})
}

func bind(m runtimes.Mount) specs.Mount {
	options := []string{"rbind", "rw"}
	if m.ReadOnly {
		options[1] = "ro"
	}
	switch m.Propagate {
	case "Bidirectional":
		options = append(options, "rshared")
	case "HostToContainer":
		options = append(options, "rslave")
	default:
		options = append(options, "rprivate")
	}
	return specs.Mount{Destination: filepath.Clean(m.Target), Type: "bind", Source: m.Source, Options: options}
}

func securityOptions(sec runtimes.Security) []oci.SpecOpts {
	opts := []oci.SpecOpts{with(func(s *oci.Spec) {
		s.Process.NoNewPrivileges = sec.NoNewPrivileges
		s.Root.Readonly = sec.ReadOnlyRoot
	})}
	if sec.Privileged {
		return append(opts, oci.WithPrivileged, oci.WithAllDevicesAllowed, oci.WithHostDevices,
			with(func(s *oci.Spec) { s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil }))
	}
	opts = append(opts, oci.WithDefaultUnixDevices)
	if drop := capabilities(sec.Drop); slices.Contains(drop, "CAP_ALL") {
		opts = append(opts, oci.WithCapabilities(nil))
	} else if len(drop) > 0 {
		opts = append(opts, oci.WithDroppedCapabilities(drop))
	}
	if add := capabilities(sec.Add); slices.Contains(add, "CAP_ALL") {
		opts = append(opts, oci.WithAllCurrentCapabilities)
	} else if len(add) > 0 {
		opts = append(opts, oci.WithAddedCapabilities(add))
	}
	// Last: the default profile allows what the capabilities need.
	switch sec.Seccomp {
	case "Unconfined":
	case "", "RuntimeDefault":
		opts = append(opts, seccomp.WithDefaultProfile())
	default:
		opts = append(opts, seccomp.WithProfile(sec.Seccomp))
	}
	return opts
}

func capabilities(names []string) []string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = "CAP_" + strings.TrimPrefix(strings.ToUpper(n), "CAP_")
	}
	return all
}

// userString is the user in the form "user[:group]" that images have.
func userString(sec runtimes.Security, img ocispec.ImageConfig) string {
	if sec.User == nil {
		if sec.Group == nil {
			return firstOf(img.User, "0")
		}
		name, _, _ := strings.Cut(firstOf(img.User, "0"), ":")
		return name + ":" + strconv.FormatInt(*sec.Group, 10)
	}
	s := strconv.FormatInt(*sec.User, 10)
	if sec.Group != nil {
		s += ":" + strconv.FormatInt(*sec.Group, 10)
	}
	return s
}
