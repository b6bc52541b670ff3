package audit

import (
	"context"
	"os"

	"github.com/tandem-gitops/tandem/cmd/tandem/report"
)

// Growth says how large the log is and how fast it grows; path is where it lies.
func (a *Archive) Growth(ctx context.Context, path string) (*report.Growth, error) {
	s, err := a.Store.Stats(ctx)
	if err != nil {
		return nil, err
	}
	free := int64(0)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		if free, err = freeOn(path); err != nil {
			return nil, err
		}
	}
	return report.NewGrowth(s, free), nil
}
