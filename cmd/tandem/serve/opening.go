package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Mostly a start is over at once: a question waits so long for its end. After
// that the answer is to ask again, which kubectl does by itself.
const (
	openingWait = 2 * time.Second
	askAgain    = time.Second
)

// An opening is what a server does before it runs. Taking over what runs on this
// machine may take minutes, after a containerd or a shim that hangs.
type opening struct {
	since time.Time
	what  atomic.Pointer[string]
	ended chan struct{}
}

func newOpening() *opening {
	o := &opening{since: time.Now(), ended: make(chan struct{})}
	o.now("puts its parts together")
	return o
}

func (o *opening) now(what string) { o.what.Store(&what) }

// over is to be called once.
func (o *opening) over() { close(o.ended) }

// answer says that the server is starting, with what and for how long; false:
// it is not. That the process lives is true meanwhile.
func (o *opening) answer(w http.ResponseWriter, r *http.Request) bool {
	wait := time.NewTimer(openingWait)
	defer wait.Stop()
	if r.URL.Path == "/livez" {
		wait.Reset(0)
	}
	select {
	case <-o.ended:
		return false
	case <-r.Context().Done():
	case <-wait.C:
	}
	w.Header().Set("Cache-Control", "no-store")
	if r.URL.Path == "/livez" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprint(w, "ok") // whoever asked may have gone
		return true
	}
	status := apierrors.NewServiceUnavailable(fmt.Sprintf("the controller is starting: it %s, for %s so far", *o.what.Load(), time.Since(o.since).Round(time.Second))).Status()
	status.Kind, status.APIVersion = "Status", "v1"
	raw, err := json.Marshal(status)
	if err != nil {
		http.Error(w, status.Message, http.StatusServiceUnavailable)
		return true
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", strconv.Itoa(int(askAgain/time.Second)))
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write(raw) // as above
	return true
}
