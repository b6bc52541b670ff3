package agent

import (
	"context"
	"errors"

	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/agent/step"
)

// errConfig says that a ConfigMap, a Secret or a key of it isn't there.
var errConfig = errors.New("configuration is missing")

// errNeverPull says that an image is absent and its policy is Never.
var errNeverPull = errors.New("image is never pulled")

// ClassOf is the class of an error of a runtime. One of no class is tried
// again: nobody knows that it's final.
func ClassOf(err error) step.Class {
	switch {
	case err == nil:
		return step.OK
	case errors.Is(err, errConfig):
		return step.ConfigMissing
	case errors.Is(err, errNeverPull):
		return step.NeverPull
	case errors.Is(err, runtimes.ErrUnsupported):
		return step.Unsupported
	case errors.Is(err, runtimes.ErrRejected):
		return step.Rejected
	case errors.Is(err, runtimes.ErrNotFound):
		return step.NotFound
	case errors.Is(err, runtimes.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return step.Unavailable
	default:
		return step.Unavailable
	}
}
