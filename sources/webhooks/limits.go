package webhooks

import (
	"sync"
	"time"
)

// Limits of how often somebody may call.
const (
	perSecond  = 5.0  // requests of one address, over time
	burst      = 30.0 // at once
	maxCallers = 4096 // addresses that are told apart; the others share one allowance
)

// limiter gives each address an allowance of requests that fills up again.
type limiter struct {
	mu      sync.Mutex
	callers map[string]*allowance
	others  allowance
}

type allowance struct {
	left float64
	at   time.Time
}

func newLimiter() *limiter { return &limiter{callers: map[string]*allowance{}} }

func (l *limiter) allow(caller string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.callers[caller]
	if a == nil && len(l.callers) >= maxCallers {
		l.forget(now)
	}
	switch {
	case a != nil:
	case len(l.callers) >= maxCallers:
		a = &l.others
	default:
		a = &allowance{}
		l.callers[caller] = a
	}
	return a.take(now)
}

// forget drops whoever has all of its allowance back.
func (l *limiter) forget(now time.Time) {
	for name, a := range l.callers {
		if now.Sub(a.at).Seconds()*perSecond >= burst {
			delete(l.callers, name)
		}
	}
}

func (a *allowance) take(now time.Time) bool {
	if a.at.IsZero() {
		a.left = burst
	} else if passed := now.Sub(a.at).Seconds(); passed > 0 {
		a.left = min(burst, a.left+passed*perSecond)
	}
	a.at = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}

// memory remembers requests for a while.
type memory struct {
	mu    sync.Mutex
	times map[[32]byte]time.Time
	order [][32]byte // oldest first
}

// before says whether the request was there before, and remembers it.
func (m *memory) before(sum [32]byte, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.order) > 0 && (now.Sub(m.times[m.order[0]]) > replayTime || len(m.order) > maxReplays) {
		delete(m.times, m.order[0])
		m.order = m.order[1:]
	}
	if _, ok := m.times[sum]; ok {
		return true
	}
	m.times[sum] = now
	m.order = append(m.order, sum)
	return false
}
