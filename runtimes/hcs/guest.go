package hcs

import (
	"github.com/tandem-gitops/tandem/runtimes"
)

// The document of schema 1 that makes a container in a Hyper-V guest of its own.
// Schema 2 has no such thing: there a guest is a system that whoever makes it
// talks to, as containerd's shim does. The field names are Windows'.
type (
	guestSystem struct {
		SystemType               string // "Container"
		Name                     string
		Owner                    string
		LayerFolderPath          string // the scratch layer, which the guest mounts
		Layers                   []guestLayer
		ProcessorCount           int64
		MemoryMaximumInMB        int64             `json:",omitempty"`
		HostName                 string            `json:",omitempty"`
		MappedDirectories        []mappedDirectory `json:",omitempty"`
		HvPartition              bool
		EndpointList             []string `json:",omitempty"`
		HvRuntime                guestImage
		AllowUnqualifiedDNSQuery bool `json:",omitempty"`
	}

	guestLayer struct {
		ID   string
		Path string
	}

	guestImage struct {
		ImagePath string // the directory UtilityVM of a layer
	}
)

const (
	guestMemory     = 1024 // MiB of the guest itself: state.HyperVOverhead charges as much
	guestProcessors = 2    // of a guest without a limit
)

// guest is the compute system of a container with Hyper-V isolation. A memory
// limit is what the guest has beside its own; a CPU limit is whole processors, at
// least the guest's two, since the guest's own share isn't told from the pod's.
func (a *assembly) guest(id string, c *runtimes.Container) guestSystem {
	d := guestSystem{
		SystemType: "Container", Name: id, Owner: owner, LayerFolderPath: a.folder, HostName: a.hostname, ProcessorCount: guestProcessors,
		MappedDirectories: mapped(c.Mounts), HvPartition: true, HvRuntime: guestImage{a.utilityVM}, AllowUnqualifiedDNSQuery: true,
	}
	for _, l := range a.layers {
		d.Layers = append(d.Layers, guestLayer(l))
	}
	if a.endpoint != "" {
		d.EndpointList = []string{a.endpoint}
	}
	if c.Limits.Memory > 0 {
		d.MemoryMaximumInMB = guestMemory + (c.Limits.Memory+mebibyte-1)/mebibyte
	}
	if c.Limits.CPULimit > 0 {
		d.ProcessorCount = min(max(guestProcessors, (c.Limits.CPULimit+999)/1000), int64(a.cores))
	}
	return d
}

func mapped(mounts []runtimes.Mount) (dirs []mappedDirectory) {
	for _, m := range mounts {
		dirs = append(dirs, mappedDirectory{HostPath: drivePath(m.Source), ContainerPath: drivePath(m.Target), ReadOnly: m.ReadOnly})
	}
	return dirs
}
