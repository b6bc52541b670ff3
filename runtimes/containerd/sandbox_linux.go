package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

const shmSize = "size=64m" // as Kubernetes gives every pod

// Sandbox makes a pod's namespaces, address and files, or finds them.
func (r *Runtime) Sandbox(ctx context.Context, s runtimes.Sandbox) (runtimes.SandboxStatus, error) {
	if err := r.supported(s); err != nil {
		return runtimes.SandboxStatus{}, fmt.Errorf("sandbox of %s: %w", s.Key, err)
	}
	p, err := r.enter(s.UID, func() *pod {
		return r.newPod(podRecord{
			UID: s.UID, Namespace: s.Key.Namespace, Name: s.Key.Name, Hostname: s.Hostname, HostNetwork: s.HostNetwork, Labels: s.Labels,
			Ports: s.Ports, SharePID: s.SharePID,
		})
	})
	if err != nil {
		return runtimes.SandboxStatus{}, fmt.Errorf("sandbox of %s: %w", s.Key, err)
	}
	p.life.Lock()
	defer p.life.Unlock()
	if p.removed {
		return runtimes.SandboxStatus{}, fmt.Errorf("sandbox of %s: %w: it is being removed", s.Key, runtimes.ErrUnavailable)
	}
	if p.record.Made {
		if err := r.keepInit(p); err != nil {
			return runtimes.SandboxStatus{}, fmt.Errorf("sandbox of %s: %w: %w", s.Key, runtimes.ErrUnavailable, err)
		}
		return runtimes.SandboxStatus{IP: p.record.IP}, nil
	}
	if err := r.makeSandbox(p, s); err != nil {
		err = errors.Join(err, r.dropSandbox(p))
		return runtimes.SandboxStatus{}, fmt.Errorf("sandbox of %s: %w: %w", s.Key, runtimes.ErrUnavailable, err)
	}
	r.changed()
	r.logger.LogAttrs(ctx, slog.LevelDebug, "made sandbox", slog.String("pod", s.Key.String()), slog.String("ip", p.record.IP))
	return runtimes.SandboxStatus{IP: p.record.IP}, nil
}

func (r *Runtime) supported(s runtimes.Sandbox) error {
	switch {
	case s.UID.IsZero():
		return fmt.Errorf("%w: it has no UID", runtimes.ErrRejected)
	case s.Isolation != state.NoIsolation:
		return fmt.Errorf("%w: %s isolation is Windows's", runtimes.ErrUnsupported, s.Isolation)
	case len(s.Ports) > 0 && !s.HostNetwork && r.o.Ports == nil:
		return fmt.Errorf("%w: this node serves no host ports; use hostNetwork or the pod's address", runtimes.ErrUnsupported)
	}
	return nil
}

// makeSandbox writes the record first: whatever is made after it can be found.
func (r *Runtime) makeSandbox(p *pod, s runtimes.Sandbox) error {
	if err := os.MkdirAll(p.file("ns"), 0o711); err != nil {
		return err
	}
	var addr netip.Addr
	ip := r.o.Address
	if !s.HostNetwork {
		var err error
		if addr, err = r.addresses.next(s.UID); err != nil {
			return err
		}
		ip = addr.String()
	}
	r.mu.Lock()
	p.record.IP = ip
	r.mu.Unlock()
	if err := p.save(); err != nil {
		return err
	}
	if err := p.makeNamespaces(s.Sysctls); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := r.keepInit(p); err != nil {
		return err
	}
	if !s.HostNetwork {
		if err := r.connect(p.pin("net"), addr); err != nil {
			return err
		}
	}
	if err := p.makeFiles(s); err != nil {
		return err
	}
	done := p.record
	done.Made = true
	if err := writeJSON(p.file("sandbox.json"), done); err != nil {
		return err
	}
	r.mu.Lock()
	p.record = done
	r.mu.Unlock()
	r.publish(p)
	return nil
}

// publish makes the pod's ports of the machine lead to it.
func (r *Runtime) publish(p *pod) {
	if addr, err := netip.ParseAddr(p.record.IP); err == nil && len(p.record.Ports) > 0 && !p.record.HostNetwork && r.o.Ports != nil {
		r.o.Ports.Publish(p.record.UID, addr, p.record.Ports)
	}
}

// namespaces are what the pod's containers share. On the host's network they
// share its hostname too, as under Kubernetes.
func (p *pod) namespaces() []string {
	if p.record.HostNetwork {
		return []string{"ipc"}
	}
	return []string{"net", "ipc", "uts"}
}

// makeNamespaces pins fresh namespaces by bind mounts. They belong to a thread
// that ends, so no process is left.
func (p *pod) makeNamespaces(sysctls map[string]string) error {
	for _, ns := range p.namespaces() {
		if err := os.WriteFile(p.pin(ns), nil, 0o600); err != nil {
			return err
		}
	}
	result := make(chan error, 1)
	go ownThread(func() { result <- p.unshare(sysctls) })
	return <-result
}

// ownThread runs f on a thread that ends with it, never the process's first: that
// one stays for ever and is what /proc/self shows.
func ownThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // and never unlocked: the thread ends with this goroutine
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() { defer close(done); ownThread(f) }()
	<-done
}

func (p *pod) unshare(sysctls map[string]string) error {
	flags := unix.CLONE_NEWIPC
	if !p.record.HostNetwork {
		flags |= unix.CLONE_NEWNET | unix.CLONE_NEWUTS
	}
	if err := unix.Unshare(flags); err != nil {
		return err
	}
	if !p.record.HostNetwork {
		if err := unix.Sethostname([]byte(p.record.Hostname)); err != nil {
			return fmt.Errorf("set the hostname %q: %w", p.record.Hostname, err)
		}
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	for name, value := range sysctls {
		if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s: %w", name, err)
		}
	}
	for _, ns := range p.namespaces() {
		source := fmt.Sprintf("/proc/self/task/%d/ns/%s", unix.Gettid(), ns)
		if err := unix.Mount(source, p.pin(ns), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin the %s namespace: %w", ns, err)
		}
	}
	return nil
}

// loopbackUp prepares this thread's network namespace as Kubernetes does: ports
// below 1024 and ping are open to everyone in the pod.
func loopbackUp() error {
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(lo); err != nil {
		return err
	}
	for name, value := range map[string]string{"ip_unprivileged_port_start": "0", "ping_group_range": "0 2147483647"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// makeFiles writes what every container of the pod sees in /etc, and /dev/shm.
func (p *pod) makeFiles(s runtimes.Sandbox) error {
	hostname := p.record.Hostname
	if p.record.HostNetwork {
		var err error
		if hostname, err = os.Hostname(); err != nil {
			return err
		}
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if p.record.HostNetwork {
		raw, err := os.ReadFile("/etc/hosts")
		if err != nil {
			return err
		}
		hosts = string(raw)
	} else if p.record.IP != "" {
		hosts += p.record.IP + "\t"
		if s.Domain != "" {
			hosts += hostname + "." + s.Domain + " "
		}
		hosts += hostname + "\n"
	}
	for _, line := range s.Hosts {
		hosts += line + "\n"
	}
	resolv := strings.Join(s.DNS, "\n") + "\n"
	if len(s.DNS) == 0 {
		raw, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		resolv = string(raw)
	}
	for name, text := range map[string]string{"hosts": hosts, "hostname": hostname + "\n", "resolv.conf": resolv} {
		if err := os.WriteFile(p.file(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	shm := p.file("shm")
	if err := os.MkdirAll(shm, 0o700); err != nil {
		return err
	}
	return unix.Mount("shm", shm, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,"+shmSize)
}

// dropSandbox undoes makeSandbox, however far it came; what is gone already is
// fine. The record goes last.
func (r *Runtime) dropSandbox(p *pod) error {
	var errs []error
	if addr, err := netip.ParseAddr(p.record.IP); err == nil && !p.record.HostNetwork && addr.Is4() {
		errs = append(errs, disconnect(r.linkName(addr)))
	}
	if r.o.Ports != nil {
		r.o.Ports.Withdraw(p.record.UID)
	}
	errs = append(errs, r.endInit(p), p.unmountAll(), endCgroups(r.groupDir(p.record.UID)))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	removeDead(r.shimSocket(p.record.UID))
	if err := os.RemoveAll(p.dir); err != nil {
		return err
	}
	r.addresses.free(p.record.IP, p.record.UID)
	r.mu.Lock()
	if r.pods[p.record.UID] == p {
		delete(r.pods, p.record.UID)
	}
	p.removed = true
	r.mu.Unlock()
	r.changed()
	return nil
}

// unmountAll unmounts the pins and /dev/shm.
func (p *pod) unmountAll() error {
	paths, err := filepath.Glob(p.file("ns/*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range append(paths, p.file("shm")) {
		errs = append(errs, unmount(path))
	}
	return errors.Join(errs...)
}

// unmount takes away every mount on path; none is fine.
func unmount(path string) error {
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
