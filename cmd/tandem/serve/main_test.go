package serve

import (
	"fmt"
	"os"
	"testing"

	"github.com/tandem-gitops/tandem/render/worker"
)

// TestMain is also the process that renders run in.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == renderWorker {
		if err := worker.Serve(os.Stdin, os.Stdout, worker.Overlay); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const renderWorker = "render-worker"

// renders is this program again.
func renders() []string { return []string{"", renderWorker} }
