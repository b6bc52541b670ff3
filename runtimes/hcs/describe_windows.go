package hcs

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/Microsoft/hcsshim/osversion"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// podsMax is how many pods a node takes, as a kubelet has it.
const podsMax = 110

// A release is which Windows this is.
type release struct {
	version string // "10.0.20348.2113"
	build   uint64
	name    string // "Windows Server 2022 Datacenter"
	client  bool
}

// readRelease asks the registry: a process without a manifest is told lies.
func readRelease() (release, error) {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SOFTWARE\Microsoft\Windows NT\CurrentVersion`, registry.QUERY_VALUE)
	if err != nil {
		return release{}, fmt.Errorf("read which Windows this is: %w", err)
	}
	defer k.Close()
	build, _, err := k.GetStringValue("CurrentBuildNumber")
	if err != nil {
		return release{}, fmt.Errorf("read which Windows this is: CurrentBuildNumber: %w", err)
	}
	n, err := strconv.ParseUint(build, 10, 32)
	if err != nil {
		return release{}, fmt.Errorf("read which Windows this is: CurrentBuildNumber: %w", err)
	}
	ubr, _, err := k.GetIntegerValue("UBR")
	if err != nil && !errors.Is(err, registry.ErrNotExist) {
		return release{}, fmt.Errorf("read which Windows this is: UBR: %w", err)
	}
	r := release{version: fmt.Sprintf("10.0.%d.%d", n, ubr), build: n}
	// Where these are missing, this is a server without a name.
	r.name, _, _ = k.GetStringValue("ProductName")
	kind, _, _ := k.GetStringValue("InstallationType")
	r.client = kind == "Client"
	return r, nil
}

// isolations that this runtime can give here: client editions before Windows 11
// have no process isolation, and guests need the role Hyper-V.
func (r release) isolations() []state.Isolation {
	if r.build < osversion.RS5 {
		return nil
	}
	var all []state.Isolation
	if !r.client || r.build >= osversion.V21H2Win11 {
		all = append(all, state.Process)
	}
	if hasHyperV() {
		all = append(all, state.HyperV)
	}
	return all
}

// hasHyperV says whether the service that manages guests is installed.
func hasHyperV() bool {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\vmms`, registry.QUERY_VALUE)
	if err != nil {
		return false
	}
	_ = k.Close() // nothing was written
	return true
}

type memoryStatus struct {
	length, load                     uint32
	total, available                 uint64
	pageTotal, pageAvailable         uint64
	virtualTotal, virtualAvailable   uint64
	extendedVirtualAvailableNotInUse uint64
}

func (r *Runtime) bits() int {
	r.network.Lock()
	defer r.network.Unlock()
	return r.o.Range.Bits()
}

// Describe says what this machine is.
func (r *Runtime) Describe(context.Context) (state.NodeFacts, error) {
	rel, err := readRelease()
	if err != nil {
		return state.NodeFacts{}, err
	}
	m := memoryStatus{}
	m.length = uint32(unsafe.Sizeof(m))
	if err := globalMemoryStatus(&m); err != nil {
		return state.NodeFacts{}, fmt.Errorf("describe the machine: memory: %w", err)
	}
	dir, err := windows.UTF16PtrFromString(r.o.Dir)
	if err != nil {
		return state.NodeFacts{}, err
	}
	var disk uint64
	if err := windows.GetDiskFreeSpaceEx(dir, nil, &disk, nil); err != nil {
		return state.NodeFacts{}, fmt.Errorf("describe the machine: disk: %w", err)
	}
	capacity := state.Resources{
		MilliCPU: int64(runtime.NumCPU()) * 1000, Memory: int64(m.total), Ephemeral: int64(disk), //nolint:gosec // both below 8 EiB
		Pods: min(podsMax, int64(1)<<(32-r.bits())-3), // without network, gateway and broadcast
	}
	left := capacity.Sub(r.o.Reserve)
	return state.NodeFacts{
		OS: state.Windows, Arch: runtime.GOARCH, OSVersion: rel.version, Isolations: rel.isolations(), Capacity: capacity,
		Allocatable: state.Resources{
			MilliCPU: max(0, left.MilliCPU), Memory: max(0, left.Memory), Ephemeral: max(0, left.Ephemeral), Pods: max(0, left.Pods),
		},
		Labels: r.o.Labels, Taints: r.o.Taints, Address: r.o.Address,
		Runtime: "hcs://" + rel.version, Kernel: rel.version, OSImage: rel.name,
	}, nil
}

// Check says whether this machine can be a Windows node.
func Check() []Finding {
	var findings []Finding
	rel, err := readRelease()
	f := Finding{Name: "windows", Fatal: true, OK: err == nil && len(rel.isolations()) > 0, Detail: rel.name + " " + rel.version}
	if !f.OK {
		f.Remedy = "use Windows Server 2019 or later, Windows 11, or Windows 10 with Hyper-V"
	}
	findings = append(findings, f)
	_, err = openCompute()
	f = Finding{Name: "computecore", Fatal: true, OK: err == nil, Detail: "computecore.dll"}
	if err != nil {
		f.Detail, f.Remedy = err.Error(), installContainers
	}
	findings = append(findings, f)
	for _, dll := range []string{"computenetwork.dll", "vmcompute.dll"} {
		err := windows.NewLazySystemDLL(dll).Load()
		f := Finding{Name: strings.TrimSuffix(dll, ".dll"), Fatal: true, OK: err == nil, Detail: dll}
		if err != nil {
			f.Detail, f.Remedy = err.Error(), installContainers
		}
		findings = append(findings, f)
	}
	return findings
}

// installContainers is the remedy where a library of the feature is missing.
const installContainers = "install the feature Containers of Windows Server 2019 or later: Install-WindowsFeature Containers"
