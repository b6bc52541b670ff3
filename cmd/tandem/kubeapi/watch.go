package kubeapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

const (
	// bookmarkEvery is how often a quiet watch hears the position it is at.
	bookmarkEvery = 30 * time.Second
	// gather is how long changes are gathered into one answer: a rollout makes
	// thousands of records a second.
	gather = 10 * time.Millisecond
)

// A watcher is one watch that is open.
type watcher struct {
	call     *call
	filter   filter
	format   format
	columns  bool // were sent
	flush    http.Flusher
	bookmark bool
	at       state.Seq
	sent     state.Seq // of the last event or bookmark
}

// watch streams changes behind the watermark. It begins at resourceVersion;
// without one, or with sendInitialEvents, with all that is there.
func (a *api) watch(c *call, t target) error {
	f, err := newFilter(c, t)
	if err != nil {
		return err
	}
	q := c.r.URL.Query()
	flush, ok := c.w.(http.Flusher)
	if !ok {
		return apierrors.NewInternalError(http.ErrNotSupported)
	}
	w := &watcher{call: c, filter: f, format: tableFormat(c.r), flush: flush, bookmark: isTrue(q.Get("allowWatchBookmarks"))}
	asked, err := position(q.Get("resourceVersion"))
	if err != nil {
		return err
	}
	initial := asked == 0
	if s := q.Get("sendInitialEvents"); s != "" {
		if m := q.Get("resourceVersionMatch"); m != string(metav1.ResourceVersionMatchNotOlderThan) {
			return apierrors.NewBadRequest("sendInitialEvents wants resourceVersionMatch=NotOlderThan")
		}
		if isTrue(s) && !w.bookmark {
			return apierrors.NewBadRequest("sendInitialEvents wants allowWatchBookmarks=true")
		}
		initial = isTrue(s)
	}
	cache := a.caches[t.resource]
	var start []*entry
	w.at = asked
	if initial || asked == 0 {
		start, w.at = cache.all()
	}
	if _, _, err := cache.since(w.at); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	flush.Flush()
	if initial {
		if !w.begin(start, isTrue(q.Get("sendInitialEvents"))) {
			return nil
		}
	}
	a.follow(w, cache, timeout(q.Get("timeoutSeconds")))
	return nil
}

func position(s string) (state.Seq, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, apierrors.NewBadRequest("resourceVersion: want a number")
	}
	return state.Seq(n), nil
}

// timeout is how long a watch stays open.
func timeout(s string) time.Duration {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	return time.Hour
}

// begin sends what is there, and says where that ends.
func (w *watcher) begin(start []*entry, announce bool) bool {
	for _, e := range start {
		if w.filter.match(e) && !w.send(watch.Added, e, 0) {
			return false
		}
	}
	if announce && !w.mark(map[string]string{metav1.InitialEventsAnnotationKey: "true"}) {
		return false
	}
	w.flush.Flush()
	return true
}

// follow sends what changes until the client goes or the time is over.
func (a *api) follow(w *watcher, cache *cache, open time.Duration) {
	ctx := w.call.r.Context()
	end := time.NewTimer(open)
	defer end.Stop()
	marks := time.NewTicker(bookmarkEvery)
	defer marks.Stop()
	for {
		changes, at, err := cache.since(w.at)
		if err != nil {
			w.expire(err)
			return
		}
		w.at = at
		for _, ch := range changes {
			if !w.change(ch) {
				return
			}
		}
		if len(changes) > 0 {
			w.flush.Flush()
		}
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			if w.bookmark {
				w.mark(nil)
			}
			return
		case <-marks.C:
			if w.bookmark && w.at > w.sent {
				if !w.mark(nil) {
					return
				}
				w.flush.Flush()
			}
		case <-a.Controller.Changed(w.at):
			wait := time.NewTimer(gather)
			select {
			case <-ctx.Done():
				wait.Stop()
				return
			case <-wait.C:
			}
		}
	}
}

// change sends one step as the filter sees it: an object that stops matching
// is deleted for this client.
func (w *watcher) change(ch change) bool {
	before, now := w.filter.match(ch.before), w.filter.match(ch.now)
	switch {
	case now && before:
		return w.send(watch.Modified, ch.now, ch.seq)
	case now:
		return w.send(watch.Added, ch.now, ch.seq)
	case before:
		return w.send(watch.Deleted, ch.before, ch.seq)
	}
	return true
}

// send writes one event. Of an object that is gone, its last content is sent
// under the position at which it went.
func (w *watcher) send(t watch.EventType, e *entry, seq state.Seq) bool {
	if t == watch.Deleted {
		o, ok := e.object.DeepCopyObject().(object)
		if !ok {
			return false
		}
		o.SetResourceVersion(strconv.FormatUint(uint64(seq), 10))
		e = &entry{key: e.key, uid: e.uid, object: o}
	}
	raw := e.JSON()
	if w.format.wanted {
		table := newTable(w.filter.resource, w.format, !w.columns)
		w.columns = true
		table.ResourceVersion = e.object.GetResourceVersion()
		row, err := w.format.row(w.filter.resource, e, time.Now())
		if err != nil {
			return false
		}
		table.Rows = append(table.Rows, row)
		if raw, err = json.Marshal(table); err != nil {
			return false
		}
	}
	w.sent = max(w.sent, seq)
	return w.frame(t, raw)
}

func (w *watcher) frame(t watch.EventType, raw []byte) bool {
	line, err := json.Marshal(struct {
		Type   watch.EventType `json:"type"`
		Object json.RawMessage `json:"object"`
	}{t, raw})
	if err != nil {
		return false
	}
	_, err = w.call.w.Write(append(line, '\n'))
	return err == nil
}

// mark says which position the watch is at.
func (w *watcher) mark(annotations map[string]string) bool {
	r := w.filter.resource
	m := metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{Kind: r.kind, APIVersion: r.apiVersion()},
		ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(uint64(w.at), 10), Annotations: annotations},
	}
	var v any = m
	if w.format.wanted {
		m.TypeMeta = metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}
		raw, err := json.Marshal(m)
		if err != nil {
			return false
		}
		table := newTable(r, w.format, !w.columns)
		table.ResourceVersion = m.ResourceVersion
		row := metav1.TableRow{Cells: make([]any, len(r.columns))}
		row.Object.Raw = raw
		table.Rows = append(table.Rows, row)
		v = table
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return false
	}
	w.sent = w.at
	return w.frame(watch.Bookmark, raw)
}

// expire tells a client that fell behind to list again.
func (w *watcher) expire(err error) {
	var s apierrors.APIStatus
	if !asStatus(err, &s) {
		return
	}
	status := s.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	raw, err := json.Marshal(status)
	if err != nil {
		return
	}
	if w.frame(watch.Error, raw) {
		w.flush.Flush()
	}
}
