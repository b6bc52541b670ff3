package bootclock

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows/registry"
)

// TestMain is also another process that asks.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "boot-id" {
		id, err := ID()
		if err != nil {
			id = err.Error()
		}
		_, _ = os.Stdout.WriteString(id)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestOneNameForABoot: whoever asks first, and whatever the wall clock says, all
// processes of a boot name it alike, and the next boot has another name.
func TestOneNameForABoot(t *testing.T) {
	names := make([]string, 4)
	var all sync.WaitGroup
	for i := range names {
		all.Go(func() {
			out, err := exec.CommandContext(t.Context(), os.Args[0], "boot-id").Output()
			if err != nil {
				t.Error(err)
			}
			names[i] = string(out)
		})
	}
	all.Wait()
	mine, err := ID()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name != mine || len(mine) < 20 {
			t.Errorf("one calls this boot %q, another %q", name, mine)
		}
	}
	// A volatile key can't have one below it that stays, so Windows would forget it.
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, bootKey+`\stays`, registry.QUERY_VALUE)
	if err == nil {
		_ = k.Close()
		_ = registry.DeleteKey(registry.LOCAL_MACHINE, bootKey+`\stays`)
	}
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), "volatile") {
		t.Errorf("the key isn't volatile: %v", err)
	}
	if err := registry.DeleteKey(registry.LOCAL_MACHINE, bootKey); err != nil { // as a boot does
		t.Fatal(err)
	}
	if next, err := ID(); err != nil || next == mine {
		t.Errorf("after a boot its name is %q again: %v", next, err)
	}
}

// TestTimer fires at a time of the clock.
func TestTimer(t *testing.T) {
	timer, err := NewTimer()
	if err != nil {
		t.Fatal(err)
	}
	at := Now() + 300*time.Millisecond
	if err := timer.Set(at, true); err != nil {
		t.Fatal(err)
	}
	<-timer.C
	if late := Now() - at; late < 0 || late > 5*time.Second {
		t.Errorf("it fired %s after its time", late)
	}
	if err := timer.Close(); err != nil {
		t.Error(err)
	}
}
