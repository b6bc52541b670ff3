package hcs

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// The documents of schema 2.1 that this package emits and reads. The field
// names are Windows'.
type (
	version struct {
		Major, Minor int
	}

	// computeSystem is what HcsCreateComputeSystem wants.
	computeSystem struct {
		Owner                             string
		SchemaVersion                     version
		ShouldTerminateOnLastHandleClosed bool // false: containers outlive the agent
		Container                         containerDocument
	}

	containerDocument struct {
		GuestOs           guestOS
		Storage           storage
		MappedDirectories []mappedDirectory `json:",omitempty"`
		Memory            *memory           `json:",omitempty"`
		Processor         *processor        `json:",omitempty"`
		Networking        *networking       `json:",omitempty"`
	}

	guestOS struct {
		HostName string
	}

	storage struct {
		Layers []layer // the nearest first
		Path   string  // the mounted scratch layer
	}

	layer struct {
		ID   string `json:"Id"`
		Path string
	}

	mappedDirectory struct {
		HostPath      string
		ContainerPath string
		ReadOnly      bool `json:",omitempty"`
	}

	memory struct {
		SizeInMB int64
	}

	processor struct {
		Maximum int64 // hundredths of a per cent of the whole machine
	}

	networking struct {
		AllowUnqualifiedDNSQuery bool   `json:"AllowUnqualifiedDnsQuery,omitempty"`
		Namespace                string // shared by all containers of a pod
	}

	// processParameters are what HcsCreateProcess wants.
	processParameters struct {
		CommandLine      string
		User             string            `json:",omitempty"`
		WorkingDirectory string            `json:",omitempty"`
		Environment      map[string]string `json:",omitempty"`
		EmulateConsole   bool              `json:",omitempty"`
		CreateStdInPipe  bool              `json:",omitempty"`
		CreateStdOutPipe bool              `json:",omitempty"`
		CreateStdErrPipe bool              `json:",omitempty"`
		ConsoleSize      []int32           `json:",omitempty"` // height, width
	}
)

const (
	owner    = "tandem"
	mebibyte = 1 << 20
)

// imageConfig is what this package reads of an image's configuration.
type imageConfig struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	OSVersion    string `json:"os.version"`
	Config       struct {
		User        string
		Env         []string
		Entrypoint  []string
		Cmd         []string
		WorkingDir  string
		ArgsEscaped bool
	} `json:"config"`
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// An assembly is what a container's document is made from, besides itself.
type assembly struct {
	hostname  string
	namespace string
	scratch   string // its mounted volume
	layers    []layer
	cores     int
	image     imageConfig

	// Of a Hyper-V guest, which has neither namespace nor mounted volume.
	folder    string // its scratch layer
	utilityVM string
	endpoint  string
}

// document is the compute system of a container.
func (a *assembly) document(c *runtimes.Container) computeSystem {
	d := computeSystem{Owner: owner, SchemaVersion: version{2, 1}, Container: containerDocument{
		GuestOs: guestOS{HostName: a.hostname},
		Storage: storage{Layers: a.layers, Path: a.scratch},
	}}
	if a.namespace != "" {
		d.Container.Networking = &networking{AllowUnqualifiedDNSQuery: true, Namespace: a.namespace}
	}
	d.Container.MappedDirectories = mapped(c.Mounts)
	if c.Limits.Memory > 0 {
		d.Container.Memory = &memory{SizeInMB: (c.Limits.Memory + mebibyte - 1) / mebibyte}
	}
	if c.Limits.CPULimit > 0 {
		d.Container.Processor = &processor{Maximum: state.CPUMaximum(c.Limits.CPULimit, a.cores)}
	}
	return d
}

// process is the first process of a container.
func (a *assembly) process(c *runtimes.Container) processParameters {
	return processParameters{
		CommandLine:      commandLine(&a.image, c),
		User:             cmp.Or(c.Security.UserName, a.image.Config.User),
		WorkingDirectory: drivePath(cmp.Or(c.WorkingDir, a.image.Config.WorkingDir, `C:\`)),
		Environment:      environment(a.image.Config.Env, c.Env),
		CreateStdOutPipe: true,
		CreateStdErrPipe: true,
	}
}

// drivePath is a path as Windows writes it: Kubernetes allows "/data" for
// "C:\data", in a container and on the machine.
func drivePath(p string) string {
	p = strings.ReplaceAll(p, "/", `\`)
	if strings.HasPrefix(p, `\`) && !strings.HasPrefix(p, `\\`) {
		return "C:" + p
	}
	return p
}

// commandLine joins the arguments as Kubernetes chooses them. Where the image
// says that its own arguments are a command line already, and the first of them
// is the image's, that one is passed on as it is.
func commandLine(img *imageConfig, c *runtimes.Container) string {
	args := slices.Clone(c.Command)
	if len(c.Command) == 0 {
		args = slices.Clone(img.Config.Entrypoint)
	}
	fromImage := len(c.Command) == 0 && len(img.Config.Entrypoint) > 0
	switch {
	case len(c.Args) > 0:
		args = append(args, c.Args...)
	case len(c.Command) == 0:
		fromImage = fromImage || len(img.Config.Cmd) > 0
		args = append(args, img.Config.Cmd...)
	}
	if len(args) == 0 {
		return ""
	}
	if img.Config.ArgsEscaped && fromImage {
		return strings.TrimSpace(args[0] + " " + joinArgs(args[1:]))
	}
	return joinArgs(args)
}

// joinArgs writes arguments as one command line.
func joinArgs(args []string) string {
	line := make([]string, len(args))
	for i, a := range args {
		line[i] = quote(a)
	}
	return strings.Join(line, " ")
}

// quote writes an argument so that CommandLineToArgvW reads it back: blanks and
// quotes need quotes around, and backslashes count double before a quote alone.
func quote(arg string) string {
	if arg != "" && !strings.ContainsAny(arg, " \t\n\v\"") {
		return arg
	}
	var out strings.Builder
	out.WriteByte('"')
	slashes := 0
	for _, r := range arg {
		switch r {
		case '\\':
			slashes++
			continue
		case '"':
			out.WriteString(strings.Repeat(`\`, 2*slashes+1))
		default:
			out.WriteString(strings.Repeat(`\`, slashes))
		}
		slashes = 0
		out.WriteRune(r)
	}
	out.WriteString(strings.Repeat(`\`, 2*slashes))
	out.WriteByte('"')
	return out.String()
}

// environment merges lists of NAME=value. Windows' names have no case: the last
// one wins, and so does how it is written.
func environment(lists ...[]string) map[string]string {
	type variable struct{ name, value string }
	found := map[string]variable{}
	for _, list := range lists {
		for _, e := range list {
			name, value, ok := strings.Cut(e, "=")
			if !ok || name == "" {
				continue
			}
			found[strings.ToUpper(name)] = variable{name, value}
		}
	}
	out := make(map[string]string, len(found))
	for v := range maps.Values(found) {
		out[v.name] = v.value
	}
	return out
}

// refuse says what of a sandbox this runtime doesn't do.
func refuseSandbox(s *runtimes.Sandbox) error {
	switch {
	case s.HostNetwork:
		return fmt.Errorf("%w: hostNetwork: Windows gives it to HostProcess pods alone, which are not there yet; remove it", runtimes.ErrUnsupported)
	case s.SharePID:
		return fmt.Errorf("%w: shareProcessNamespace: Windows containers have process trees of their own; remove it", runtimes.ErrUnsupported)
	case len(s.Hosts) > 0:
		return fmt.Errorf("%w: hostAliases are not there yet on Windows; remove them", runtimes.ErrUnsupported)
	case len(s.Sysctls) > 0:
		return fmt.Errorf("%w: sysctls: Windows has none; remove them", runtimes.ErrUnsupported)
	}
	return nil
}

// refuseContainer says what of a container Windows or this runtime doesn't do.
func refuseContainer(c *runtimes.Container) error {
	s := c.Security
	var what, remedy string
	switch {
	case c.TTY || c.Stdin:
		what, remedy = "tty and stdin of a container itself are not there yet", "use exec"
	case s.Privileged:
		what, remedy = "privileged: Windows has HostProcess pods for that, which are not there yet", "remove it"
	case s.User != nil || s.Group != nil || len(s.Groups) > 0:
		what, remedy = "numeric users and groups: Windows has none", "use securityContext.windowsOptions.runAsUserName"
	case s.ReadOnlyRoot:
		what, remedy = "readOnlyRootFilesystem: Windows has no read-only root", "remove it"
	case len(s.Add) > 0 || len(s.Drop) > 0:
		what, remedy = "capabilities: Windows has none", "remove them for Windows"
	case s.Seccomp != "" && s.Seccomp != "RuntimeDefault" && s.Seccomp != "Unconfined":
		what, remedy = "seccomp profiles: Windows has none", "remove it for Windows"
	}
	if what != "" {
		return fmt.Errorf("%w: %s; %s", runtimes.ErrUnsupported, what, remedy)
	}
	if s.RunAsNonRoot && strings.EqualFold(s.UserName, "ContainerAdministrator") {
		return fmt.Errorf("%w: runAsNonRoot is set but runAsUserName is ContainerAdministrator; use ContainerUser", runtimes.ErrRejected)
	}
	for _, m := range c.Mounts {
		if m.Propagate != "" {
			return fmt.Errorf("%w: mount propagation of %s: Windows has none; remove it", runtimes.ErrUnsupported, m.Target)
		}
	}
	return nil
}
