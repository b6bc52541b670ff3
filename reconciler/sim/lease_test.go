package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestFastLeaseFromTheFirst: the first pod of the class with the short lease comes
// at any time between two renewals that keep to the longer one, and where nothing
// is wrong nothing of it is ended. Each seed has other clocks: a slow one hides it.
func TestFastLeaseFromTheFirst(t *testing.T) {
	for at := range 10 {
		text := fmt.Sprintf("seed %d\nnodes linux-1\n1m%ds add app1 statefulset linux=2 loss=failover-fast claims=1\n2m %s\n", 1+at, at, peace)
		story, err := ParseStory(text)
		if err != nil {
			t.Fatal(err)
		}
		opts := Options{Story: story, Trace: func(at time.Duration, line string) {
			if strings.Contains(line, "NodeLost") {
				t.Errorf("at %s, without a fault: %s\n%s", at, line, text)
			}
		}}
		if r := Run(opts); r.Err != nil {
			t.Errorf("%s\n%s", r, text)
		}
	}
}
