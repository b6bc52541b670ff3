package hosttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Node says whose things are counted.
type Node struct {
	// Marks are in the names of all that is the node's: its directories, and its IDs.
	Marks []string
	// Daemon is the socket of its containerd, Pods are UIDs that were there: their
	// shims have sockets among those of all daemons.
	Daemon string
	Pods   []string
}

// namespace is the nodes' in containerd.
const namespace = "tandem"

// routeProtocol is how nodes mark their routes.
const routeProtocol = 0x54

// Things are a node's processes, mounts (pinned namespaces too), control groups
// and directories in memory, and in this thread's network namespace its links and
// tables: one a line, sorted.
func (n Node) Things(ctx context.Context) ([]string, error) {
	links, err := n.links()
	if err != nil {
		return nil, err
	}
	tables, err := tables(ctx)
	if err != nil {
		return nil, err
	}
	tables = slices.DeleteFunc(tables, func(name string) bool { return !n.marked(name) })
	found := slices.Concat(n.processLines(), n.mounts(), n.groupLines(), n.sockets(), links, tables)
	dirs, err := os.ReadDir("/run/tandem")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, d := range dirs {
		if n.marked(d.Name()) {
			found = append(found, "directory /run/tandem/"+d.Name())
		}
	}
	slices.Sort(found)
	return found, nil
}

// Left waits until nothing of the node is there any more but what was before:
// what was killed takes a moment to go. It returns what stays.
func (n Node) Left(ctx context.Context, before []string) ([]string, error) {
	limit := time.Now().Add(10 * time.Second)
	for {
		after, err := n.Things(ctx)
		if more := More(before, after); err != nil || len(more) == 0 || time.Now().After(limit) {
			return more, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (n Node) marked(text string) bool {
	return slices.ContainsFunc(n.Marks, func(m string) bool { return m != "" && strings.Contains(text, m) })
}

// Processes are those whose command line or control group bears a mark. This one
// and its parent, which may have been told of the marks, do not count, nor do
// those of which only the exit code is left.
func (n Node) Processes() []int {
	mine := map[int]bool{os.Getpid(): true, os.Getppid(): true}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	var found []int
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir)) // digits
		command, errCommand := os.ReadFile(filepath.Join(dir, "cmdline"))
		group, errGroup := os.ReadFile(filepath.Join(dir, "cgroup"))
		if errCommand != nil || errGroup != nil || mine[pid] || ended(dir) {
			continue
		}
		if n.marked(strings.ReplaceAll(string(command), "\x00", " ")) || n.marked(string(group)) {
			found = append(found, pid)
		}
	}
	return found
}

// ended says whether a process waits for nothing but its parent's look.
func ended(dir string) bool {
	raw, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return true
	}
	state := strings.TrimSpace(string(raw[strings.LastIndexByte(string(raw), ')')+1:])) // a name may have brackets
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

func (n Node) processLines() []string {
	var lines []string
	for _, pid := range n.Processes() {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may have ended
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		lines = append(lines, fmt.Sprintf("process %d %s: %s", pid, strings.TrimSpace(string(name)), strings.ReplaceAll(string(raw), "\x00", " ")))
	}
	return lines
}

// Mounts are the places of file systems and pinned namespaces that bear a mark.
func (n Node) Mounts() []string {
	raw, _ := os.ReadFile("/proc/self/mounts") // no such file: no mounts
	var found []string
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && n.marked(line) {
			found = append(found, f[1])
		}
	}
	return found
}

func (n Node) mounts() []string {
	var lines []string
	for _, m := range n.Mounts() {
		lines = append(lines, "mount "+m)
	}
	return lines
}

// Groups are the nodes' own control groups, of all hierarchies.
func (n Node) Groups() []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/tandem/*", "/sys/fs/cgroup/*/tandem/*"} {
		dirs, _ := filepath.Glob(pattern) // the pattern is well formed
		for _, dir := range dirs {
			if n.marked(dir) {
				found = append(found, dir)
			}
		}
	}
	return found
}

// groupLines has what is below the groups too.
func (n Node) groupLines() []string {
	var lines []string
	for _, top := range n.Groups() {
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error { // what goes meanwhile is none
			if err == nil && d.IsDir() {
				lines = append(lines, "cgroup "+path)
			}
			return nil
		})
	}
	return lines
}

// sockets are those of the pods' shims: containerd names them by a digest.
func (n Node) sockets() []string {
	var found []string
	for _, uid := range n.Pods {
		sum := sha256.Sum256([]byte(filepath.Join(n.Daemon, namespace, uid)))
		path := "/run/containerd/s/" + hex.EncodeToString(sum[:])
		if _, err := os.Lstat(path); err == nil {
			found = append(found, "socket "+path)
		}
	}
	return found
}

// whole asks the kernel again where its list changed while it was read.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

func (n Node) links() ([]string, error) {
	list, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var found []string
	for _, l := range list {
		if n.marked(l.Attrs().Name) {
			found = append(found, "link "+l.Attrs().Name)
		}
	}
	return found, nil
}

// tables are those of nftables in this thread's network namespace.
func tables(ctx context.Context) ([]string, error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return nil, nil //nolint:nilerr // a node without it makes none
	}
	out, err := exec.CommandContext(ctx, "nft", "list", "tables").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("nft list tables: %w\n%s", err, out)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		found = append(found, "nft "+strings.TrimSpace(line))
	}
	return found, nil
}

// Network is all of this thread's network namespace: links, nodes' routes, tables
// and connections that the kernel keeps track of.
func Network(ctx context.Context) ([]string, error) {
	found, err := tables(ctx)
	if err != nil {
		return nil, err
	}
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		found = append(found, "link "+l.Attrs().Name)
	}
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Protocol == routeProtocol {
			found = append(found, fmt.Sprintf("route %s", r.Dst))
		}
	}
	slices.Sort(found)
	return found, nil
}

// Connections are those of a network protocol (unix.IPPROTO_UDP) that the kernel
// keeps track of in this thread's network namespace: forward and answer.
func Connections(protocol uint8) ([]string, error) {
	flows, err := whole(func() ([]*netlink.ConntrackFlow, error) {
		return netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	})
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	var found []string
	for _, f := range flows {
		if f.Forward.Protocol == protocol {
			found = append(found, fmt.Sprintf("connection %s:%d to %s:%d, answered by %s:%d", f.Forward.SrcIP, f.Forward.SrcPort, f.Forward.DstIP, f.Forward.DstPort, f.Reverse.SrcIP, f.Reverse.SrcPort))
		}
	}
	return found, nil
}

// Wipe removes what a failed test left, so that others go on beside it.
func (n Node) Wipe(ctx context.Context) {
	for range 3 { // what is killed may have been starting another
		for _, pid := range n.Processes() {
			_ = unix.Kill(pid, unix.SIGCONT) // it has ended, or is seen again
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, m := range slices.Backward(n.Mounts()) {
		_ = unix.Unmount(m, unix.MNT_DETACH) // the test has failed already
	}
	lines := n.groupLines()
	for _, line := range slices.Backward(lines) {
		_ = unix.Rmdir(strings.TrimPrefix(line, "cgroup "))
	}
	all, _ := tables(ctx)
	for _, line := range all {
		if f := strings.Fields(line); n.marked(line) && len(f) == 4 { // nft table ip NAME
			_ = exec.CommandContext(ctx, "nft", "delete", "table", f[2], f[3]).Run()
		}
	}
	links, _ := whole(netlink.LinkList)
	for _, l := range links {
		if n.marked(l.Attrs().Name) {
			_ = netlink.LinkDel(l)
		}
	}
	for _, line := range n.sockets() {
		_ = os.Remove(strings.TrimPrefix(line, "socket "))
	}
	dirs, _ := filepath.Glob("/run/tandem/*")
	for _, dir := range dirs {
		if n.marked(dir) {
			_ = os.RemoveAll(dir)
		}
	}
}
