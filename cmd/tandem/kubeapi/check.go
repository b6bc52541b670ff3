package kubeapi

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// ChecksPath is where systems outside answer external gates:
// POST /tandem/v1/checks/PIPELINE/STAGE/NAME, with a CheckAnswer as the body and
// its HMAC in SignatureHeader. The key is the value `key` of the Secret that the
// gate names, in the root.
const ChecksPath = "/tandem/v1/checks/"

// SignatureHeader holds "sha256=" and the hexadecimal HMAC-SHA-256 of the body.
const SignatureHeader = "Tandem-Signature"

// A CheckAnswer is what a system outside says of a commit.
type CheckAnswer struct {
	Commit string    `json:"commit"` // its whole hash
	OK     bool      `json:"ok"`
	Time   time.Time `json:"time"` // when it is said: a newer answer counts, an older one doesn't
	Detail string    `json:"detail,omitempty"`
}

// Limits of answers.
const (
	maxAnswer    = 64 << 10         // bytes
	answerSkew   = 5 * time.Minute  // between the sender's clock and ours
	answerWait   = 15 * time.Second // for it to be durable
	checkKey     = "key"            // of the Secret
	minCheckKey  = 16               // bytes
	maxAnswerOut = 4 << 10          // bytes of detail that are kept
)

// check takes an answer. Nothing of it is read before its signature is
// verified, and who can't sign learns nothing of what there is.
func (a *api) check(w http.ResponseWriter, r *http.Request) error {
	refused := apierrors.NewUnauthorized("no external gate with a key that signed this: " + SignatureHeader + " is sha256= and the HMAC-SHA-256 of the body, in hexadecimal")
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAnswer))
	if err != nil {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("want at most %d bytes", maxAnswer))
	}
	at := strings.Split(strings.TrimPrefix(r.URL.Path, ChecksPath), "/")
	if r.Method != http.MethodPost || len(at) != 3 {
		return refused
	}
	e := &state.Checked{Pipeline: state.PipelineName(at[0]), Stage: at[1], Name: at[2]}
	keys, why := a.checkKeys(e)
	if !signedBy(keys, r.Header.Get(SignatureHeader), raw) {
		a.Logger.LogAttrs(r.Context(), slog.LevelWarn, "refused an answer to a gate",
			slog.String("pipeline", at[0]), slog.String("stage", at[1]), slog.String("gate", at[2]), slog.String("err", why))
		return refused
	}
	var in CheckAnswer
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("read the body: %v", err))
	}
	if sum, err := hex.DecodeString(in.Commit); err != nil || len(sum) != 20 && len(sum) != 32 {
		return apierrors.NewBadRequest("commit: want its whole hash, in hexadecimal")
	}
	if skew := time.Since(in.Time); skew.Abs() > answerSkew {
		return apierrors.NewBadRequest(fmt.Sprintf("time: want the present one within %s, got %s", answerSkew, in.Time.UTC().Format(time.RFC3339)))
	}
	e.Commit, e.OK, e.Time = in.Commit, in.OK, in.Time.UnixNano()
	if detail := in.Detail[:min(len(in.Detail), maxAnswerOut)]; detail != "" {
		e.Detail = a.Controller.Text(strings.ToValidUTF8(detail, "�"))
	}
	return a.took(w, r, e)
}

// took answers once the log has it, or a newer one.
func (a *api) took(w http.ResponseWriter, r *http.Request, e *state.Checked) error {
	ctx, cancel := context.WithTimeout(r.Context(), answerWait)
	defer cancel()
	a.Controller.Submit(e)
	for {
		var seq, found state.Seq
		a.Controller.View(func(s *state.State) {
			seq = s.Seq
			if l := s.Lines[e.Pipeline]; l != nil {
				if _, up := l.Stage(e.Stage); up != nil {
					if c := up.Check(e.Name, e.Commit); c != nil && c.Time >= e.Time {
						found = c.Seq
					}
				}
			}
		})
		if found != 0 {
			writeJSON(w, http.StatusOK, CommandAnswer{Seq: found})
			return nil
		}
		select {
		case <-a.Controller.Changed(seq):
		case <-ctx.Done():
			return apierrors.NewServiceUnavailable("the answer is not recorded yet: send it again")
		}
	}
}

// checkKeys are the keys of the gate's Secret; why says why there is none, for
// the log.
func (a *api) checkKeys(e *state.Checked) (keys [][]byte, why string) {
	why = "there is no such gate"
	a.Controller.View(func(s *state.State) {
		l := s.Lines[e.Pipeline]
		if l == nil {
			return
		}
		stage, _ := l.Stage(e.Stage)
		if stage == nil {
			return
		}
		for i := range stage.Gates {
			g := &stage.Gates[i]
			if g.Kind != state.GateExternal || g.Name != e.Name {
				continue
			}
			why = "the root has no Secret " + g.Secret + " with a " + checkKey + " of 16 bytes or more"
			for _, o := range s.Objects {
				if o.App != state.RootApp || o.Retired || o.Object.Ref.Kind != "Secret" || o.Object.Ref.Name != g.Secret {
					continue
				}
				if secret, ok := o.Object.First().(*corev1.Secret); ok && len(secret.Data[checkKey]) >= minCheckKey {
					keys, why = append(keys, bytes.Clone(secret.Data[checkKey])), "the signature is wrong"
				}
			}
		}
	})
	return keys, why
}

// signedBy says whether one of the keys made the signature.
func signedBy(keys [][]byte, header string, body []byte) bool {
	text, ok := strings.CutPrefix(header, "sha256=")
	given, err := hex.DecodeString(text)
	if !ok || err != nil {
		return false
	}
	good := false
	for _, key := range keys {
		m := hmac.New(sha256.New, key)
		_, _ = m.Write(body) // a hash takes everything
		good = hmac.Equal(given, m.Sum(nil)) || good
	}
	return good
}
