package conformance

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tandem-gitops/tandem/runtimes/hosttest"
)

// node is whatever bears a machine's marks: those of its runtime, its network and
// its fencer.
func (m *machine) node() hosttest.Node {
	return hosttest.Node{Marks: []string{m.data, hosttest.ID(filepath.Join(m.data, "containerd")), hosttest.ID(m.data)}}
}

// left is what an ended cluster has left on this machine, and in the machines'
// network namespaces, which are the test's alone.
func (c *cluster) left(ctx context.Context) ([]string, error) {
	found, err := (hosttest.Node{Marks: []string{c.dir}}).Left(ctx, nil)
	if err != nil {
		return found, err
	}
	for _, m := range c.machines {
		if m.space == nil {
			continue
		}
		err := m.Do(func() error {
			things, err := m.node().Left(ctx, nil)
			if err != nil {
				return err
			}
			network, err := hosttest.Network(ctx)
			for _, one := range append(things, hosttest.More([]string{"link lo", "link up0"}, network)...) {
				found = append(found, m.name+": "+one)
			}
			return err
		})
		if err != nil {
			return found, err
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// wipe removes what a failed test left.
func (c *cluster) wipe(ctx context.Context) {
	hosttest.Node{Marks: []string{c.dir}}.Wipe(ctx)
	for _, m := range c.machines {
		if m.space != nil {
			_ = m.Do(func() error { m.node().Wipe(ctx); return nil }) // the test has failed already
		}
	}
}

// tell shows what the processes had to say, for whoever looks into a failure.
func (c *cluster) tell(t *testing.T) {
	if c.control == nil {
		return // nothing was started
	}
	dir := os.Getenv("TANDEM_TEST_KEEP")
	if dir == "" {
		t.Logf("the controller said:\n%s", c.control.out)
		return
	}
	_ = os.MkdirAll(dir, 0o755)
	_ = os.WriteFile(filepath.Join(dir, "controller.log"), []byte(c.control.out.String()), 0o644)
	for _, m := range c.machines {
		if m.agent != nil {
			_ = os.WriteFile(filepath.Join(dir, m.name+".log"), []byte(m.agent.out.String()), 0o644)
		}
	}
}
