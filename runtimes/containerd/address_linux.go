package containerd

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
)

// addresses hands out a node's range. It goes round, so that an address rests
// as long as possible before another pod gets it.
type addresses struct {
	mu    sync.Mutex
	block netip.Prefix
	owner map[netip.Addr]state.UID
	last  netip.Addr
}

func newAddresses(block netip.Prefix) *addresses {
	return &addresses{block: block.Masked(), owner: map[netip.Addr]state.UID{}, last: block.Masked().Addr()}
}

// size is how many pods the range has room for: all but the first and the last
// address.
func (a *addresses) size() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.room()
}

func (a *addresses) room() int64 {
	return int64(1)<<(32-a.block.Bits()) - 2
}

// take marks an address that a pod has already.
func (a *addresses) take(ip string, uid state.UID) error {
	if ip == "" {
		return nil
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return fmt.Errorf("address of pod %s: %w", uid, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.block.Contains(addr) {
		a.owner[addr] = uid
		if a.last.Less(addr) {
			a.last = addr
		}
	}
	return nil
}

// next finds a free address.
func (a *addresses) next(uid state.UID) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for addr, tries := a.last, int64(0); tries < a.room()+2; tries++ {
		addr = addr.Next()
		if !addr.IsValid() || !a.block.Contains(addr.Next()) {
			addr = a.block.Addr() // skip the last, begin after the first
			continue
		}
		if _, used := a.owner[addr]; !used {
			a.owner[addr], a.last = uid, addr
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: all %d pod addresses of %s are taken", runtimes.ErrUnavailable, a.room(), a.block)
}

func (a *addresses) free(ip string, uid state.UID) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.owner[addr] == uid {
		delete(a.owner, addr)
	}
}

func checkRange(block netip.Prefix) error {
	if !block.Addr().Is4() || block.Bits() > 30 || block.Bits() < 16 {
		return fmt.Errorf("%w: pod range %s: want an IPv4 range of 4 to 65,536 addresses", runtimes.ErrRejected, block)
	}
	return nil
}

// SetRange says where addresses of new pods come from. Pods keep those that they
// have.
func (r *Runtime) SetRange(block netip.Prefix) error {
	if err := checkRange(block); err != nil {
		return err
	}
	if !r.addresses.move(block) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for uid, p := range r.pods {
		if err := r.addresses.take(p.record.IP, uid); err != nil {
			return err
		}
	}
	return nil
}

// move makes block the range, and says whether it was another.
func (a *addresses) move(block netip.Prefix) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.block == block.Masked() {
		return false
	}
	a.block, a.last = block.Masked(), block.Masked().Addr()
	return true
}
