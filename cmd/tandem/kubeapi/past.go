package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tandem-gitops/tandem/cmd/tandem/kubeapi/access"
	"github.com/tandem-gitops/tandem/cmd/tandem/report"
	"github.com/tandem-gitops/tandem/reconciler/history"
	"github.com/tandem-gitops/tandem/reconciler/state"
)

// Where the past is asked about.
const (
	AtPath     = HistoryPath + "/at"    // ?time=
	DiffPath   = HistoryPath + "/diff"  // ?from=&to=
	ProofPath  = HistoryPath + "/proof" // ?seq=
	StatsPath  = HistoryPath + "/stats"
	KeysPath   = HistoryPath + "/keys"
	ExportPath = HistoryPath + "/export" // ?format= and the filter of history
)

// A Past answers what was: from the log, up to the durable watermark.
type Past interface {
	// Find is the last record at or before a moment as people write it.
	Find(when string, now time.Time) (state.Seq, error)
	At(ctx context.Context, seq state.Seq) (*report.Moment, error)
	// Why says why an object was as it was at a record.
	Why(ctx context.Context, object, namespace string, seq state.Seq) (*report.Why, error)
	Between(ctx context.Context, from, to string, now time.Time) (*report.Difference, error)
	Prove(seq state.Seq) ([]byte, error)
	// Lines tells what a filter wants, up to now, and gives what goes on telling from
	// the record after it.
	Lines(ctx context.Context, f report.Filter, each func(report.Line) error) (report.Teller, state.Seq, error)
	// Stats says how large the log is and how fast it grows.
	Stats(ctx context.Context) (*report.Growth, error)
	// Keys are those that sign the log.
	Keys() KeysAnswer
	Export(ctx context.Context, w io.Writer, format string, f report.Filter) error
}

// A KeysAnswer is the public keys of the log, the first one first, and what proves the
// later ones to somebody who has the first.
type KeysAnswer struct {
	Keys  []history.Key `json:"keys"`
	Chain string        `json:"chain,omitempty"` // the content of log.keys
}

func (a *api) keys(c *call) error {
	p, err := a.past()
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, p.Keys())
	return nil
}

func (a *api) past() (Past, error) {
	if a.Past == nil {
		return nil, apierrors.NewServiceUnavailable("this server does not answer questions about the past")
	}
	return a.Past, nil
}

func (a *api) at(c *call) error {
	p, err := a.past()
	if err != nil {
		return err
	}
	seq, err := p.Find(c.r.URL.Query().Get("time"), time.Now())
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	m, err := p.At(c.r.Context(), seq)
	if err != nil {
		return fmt.Errorf("look at record %d: %w", seq, err)
	}
	writeJSON(c.w, http.StatusOK, m)
	return nil
}

// whyThen answers why for a past moment.
func (a *api) whyThen(c *call) error {
	p, err := a.past()
	if err != nil {
		return err
	}
	q := c.r.URL.Query()
	seq, err := p.Find(q.Get("time"), time.Now())
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	v, err := p.Why(c.r.Context(), q.Get("object"), q.Get("namespace"), seq)
	if _, ok := errors.AsType[*report.NameError](err); ok {
		return apierrors.NewBadRequest(err.Error())
	}
	if err != nil {
		return fmt.Errorf("look at record %d: %w", seq, err)
	}
	writeJSON(c.w, http.StatusOK, v)
	return nil
}

func (a *api) diff(c *call) error {
	p, err := a.past()
	if err != nil {
		return err
	}
	q := c.r.URL.Query()
	d, err := p.Between(c.r.Context(), q.Get("from"), q.Get("to"), time.Now())
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	writeJSON(c.w, http.StatusOK, d)
	return nil
}

func (a *api) stats(c *call) error {
	p, err := a.past()
	if err != nil {
		return err
	}
	g, err := p.Stats(c.r.Context())
	if err != nil {
		return err
	}
	writeJSON(c.w, http.StatusOK, g)
	return nil
}

func (a *api) proof(c *call) error {
	p, err := a.past()
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(c.r.URL.Query().Get("seq"), 10, 63)
	if err != nil || n == 0 {
		return apierrors.NewBadRequest("seq: want the number of a record, from 1")
	}
	text, err := p.Prove(state.Seq(n))
	if errors.Is(err, history.ErrNoRecord) {
		return apierrors.NewBadRequest(err.Error())
	}
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err = c.w.Write(text)
	return err
}

// exportVerb is what an export needs: lines are what history shows, a bundle is
// the whole log and all that lies beside it.
func (a *api) exportVerb(c *call) string {
	if c.r.URL.Query().Get("format") == "bundle" {
		return "export"
	}
	return "get"
}

func (a *api) export(c *call) error {
	if err := access.Authorize(c.user, a.exportVerb(c), "history", access.Where{}); err != nil {
		return denied(err)
	}
	p, err := a.past()
	if err != nil {
		return err
	}
	q := c.r.URL.Query()
	f, err := report.ParseFilter(q, time.Now())
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	kind := map[string]string{"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8", "bundle": "application/x-tar"}[q.Get("format")]
	if kind == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("format %q: want jsonl, csv or bundle", q.Get("format")))
	}
	c.w.Header().Set("Content-Type", kind)
	c.w.WriteHeader(http.StatusOK)
	if err := p.Export(c.r.Context(), c.w, q.Get("format"), f); err != nil {
		panic(http.ErrAbortHandler) // the status is sent: breaking off is the only way left to say it
	}
	return nil
}
