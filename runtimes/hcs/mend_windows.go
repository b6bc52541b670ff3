package hcs

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/Microsoft/hcsshim/hcn"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// lookAfter is between two looks at whether the network service still has what
// pods were given: it forgets without a word when it is reset.
const lookAfter = 10 * time.Second

// mend removes pods that have lost their endpoint, until the runtime is closed:
// nothing reaches a container whose network namespace is gone, and Windows can't
// move it into another. The agent then makes the pod again, as after a reboot.
func (r *Runtime) mend() {
	lost := map[state.UID]bool{} // at the look before
	for {
		select {
		case <-r.life.Done():
			return
		case <-time.After(lookAfter):
		}
		now, err := r.lostPods()
		if err != nil {
			r.logger.LogAttrs(r.life, slog.LevelWarn, "could not see whether the network service has the pods' endpoints", slog.Any("err", err))
			continue // it says nothing, so nothing is known
		}
		for uid := range now {
			if !lost[uid] {
				continue // twice: it may have been made just now
			}
			r.logger.LogAttrs(r.life, slog.LevelWarn, "the network service has lost a pod's endpoint; the pod is made again", slog.String("pod", uid.String()))
			if err := r.Remove(r.life, uid); err != nil && r.life.Err() == nil {
				r.logger.LogAttrs(context.WithoutCancel(r.life), slog.LevelWarn, "could not remove a pod that has lost its endpoint", slog.Any("err", err))
			}
			delete(now, uid)
		}
		lost = now
	}
}

// lostPods are those whose endpoint isn't there.
func (r *Runtime) lostPods() (map[state.UID]bool, error) {
	lost := map[state.UID]bool{}
	want := map[string]state.UID{}
	r.mu.Lock()
	for uid, p := range r.pods {
		if p.record.Made && p.record.Endpoint != "" && !p.leaving {
			want[strings.ToLower(p.record.Endpoint)] = uid
		}
	}
	r.mu.Unlock()
	if len(want) == 0 {
		return lost, nil
	}
	have, err := hcn.ListEndpoints()
	if err != nil {
		return nil, hcnFailure("list endpoints", err)
	}
	for i := range have {
		delete(want, strings.ToLower(have[i].Id))
	}
	for _, uid := range want {
		lost[uid] = true
	}
	return lost, nil
}
