package reconciler

import (
	"cmp"
	"container/heap"
	"time"
)

// alarms are the steady times at which things are due. The earliest is found, and
// what is due, without going through all of them.
type alarms[K comparable] struct {
	at    map[K]time.Duration
	queue alarmQueue[K] // by time; what was set anew since, or taken back, lies there still
}

type alarm[K comparable] struct {
	at time.Duration
	of K
}

// set makes a thing due at a time; 0: it no longer is.
func (a *alarms[K]) set(k K, at time.Duration) {
	switch {
	case at == 0:
		delete(a.at, k)
		return
	case a.at[k] == at:
		return
	case a.at == nil:
		a.at = map[K]time.Duration{}
	}
	a.at[k] = at
	heap.Push(&a.queue, alarm[K]{at, k})
	if len(a.queue) > 2*len(a.at)+16 {
		a.queue = a.queue[:0]
		for k, at := range a.at {
			a.queue = append(a.queue, alarm[K]{at, k})
		}
		heap.Init(&a.queue)
	}
}

// get is when a thing is due; 0: it isn't.
func (a *alarms[K]) get(k K) time.Duration { return a.at[k] }

// first is when the next thing is due; 0: nothing is.
func (a *alarms[K]) first() time.Duration {
	for len(a.queue) > 0 {
		if top := a.queue[0]; a.at[top.of] == top.at {
			return top.at
		}
		heap.Pop(&a.queue)
	}
	return 0
}

// due takes what is due, in no order: it is to be set again, where it goes on.
func (a *alarms[K]) due(now time.Duration) []K {
	var out []K
	for at := a.first(); at > 0 && at <= now; at = a.first() {
		k := a.queue[0].of
		heap.Pop(&a.queue)
		delete(a.at, k)
		out = append(out, k)
	}
	return out
}

// alarmQueue implements heap.Interface.
type alarmQueue[K comparable] []alarm[K]

func (q alarmQueue[K]) Len() int           { return len(q) }
func (q alarmQueue[K]) Less(i, j int) bool { return cmp.Less(q[i].at, q[j].at) }
func (q alarmQueue[K]) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *alarmQueue[K]) Push(x any)        { *q = append(*q, x.(alarm[K])) } //nolint:forcetypeassert // set pushes nothing else
func (q *alarmQueue[K]) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
