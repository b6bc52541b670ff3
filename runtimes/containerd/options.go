package containerd

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// Options say where a node keeps its things and what it may use.
type Options struct {
	Node state.NodeName
	// Dir holds images and snapshots; they survive a reboot.
	Dir string
	// RunDir holds sockets, namespaces and records of pods; it must not survive
	// a reboot. Empty: a directory of Dir's own below /run/tandem.
	RunDir string
	// Socket is of a containerd that somebody else keeps running; empty: a
	// private one is started and supervised.
	Socket string
	// Range has the addresses of this node's pods; zero: 10.88.0.0/24.
	Range netip.Prefix
	// Address is the machine's own; pods on the host's network have it.
	Address string
	// Reserve is kept from pods for the machine itself.
	Reserve state.Resources
	// Labels and Taints are passed on by Describe.
	Labels map[string]string
	Taints []state.Taint
	// Ports makes ports of the machine lead to pods; nil: pods that want some are
	// refused.
	Ports Publisher
	// Images is where content comes from.
	Images *images.Store
	// Limits say when images that no pod needs are removed; zero:
	// DefaultImageLimits.
	Limits ImageLimits
	// Binary and Runc are programs; empty: containerd and runc in PATH.
	Binary, Runc string
	Logger       *slog.Logger
}

// ImageLimits say when images that no pod needs are removed, as the kubelet's
// imageGCHighThresholdPercent, imageGCLowThresholdPercent and imageMinimumGCAge.
type ImageLimits struct {
	High   int           // percent of the disk above which images go; 100: they never do
	Low    int           // percent of the disk down to which they go
	MinAge time.Duration // one that was needed so recently stays
}

// DefaultImageLimits are the kubelet's.
func DefaultImageLimits() ImageLimits { return ImageLimits{High: 85, Low: 80, MinAge: 2 * time.Minute} }

// Check says what is wrong with limits.
func (l ImageLimits) Check() error {
	switch {
	case l.High < 1 || l.High > 100 || l.Low < 0 || l.Low > 100:
		return fmt.Errorf("%w: limits of the disk of images are percents: want 1 to 100 for the higher and 0 to 100 for the lower, got %d and %d", runtimes.ErrRejected, l.High, l.Low)
	case l.Low >= l.High:
		return fmt.Errorf("%w: images would go above %d %% of the disk and down to %d %%; the lower limit must be below the higher", runtimes.ErrRejected, l.High, l.Low)
	case l.MinAge < 0:
		return fmt.Errorf("%w: images can't be kept for %s; want 0s or more", runtimes.ErrRejected, l.MinAge)
	}
	return nil
}

// A Publisher makes ports of the machine lead to pods. It doesn't block.
type Publisher interface {
	Publish(uid state.UID, ip netip.Addr, ports []runtimes.Port)
	Withdraw(uid state.UID)
}

// A Finding is one thing that this machine must have to be a Linux node.
type Finding struct {
	Name   string // "containerd"
	OK     bool
	Fatal  bool   // when not OK: nothing runs without it
	Detail string // what was found
	Remedy string // when not OK: what to do
}

// Usable says whether no finding is fatal.
func Usable(findings []Finding) bool {
	for _, f := range findings {
		if f.Fatal && !f.OK {
			return false
		}
	}
	return true
}
