package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/runtimes/hcs"
)

// fenceNeeds is what a fencer that doesn't start lacks here.
const fenceNeeds = "run the agent as LocalSystem, or as an administrator"

// checks are of what runs containers.
func checks() []check {
	var all []check
	for _, f := range hcs.Check() {
		all = append(all, check{f.Name, f.OK, f.Fatal, f.Detail, f.Remedy})
	}
	return all
}

func system(ctx context.Context, o *Options) []Finding {
	return []Finding{account(), fence(ctx, o), disk(o.Data)}
}

// account is whose rights the agent would have.
func account() Finding {
	f := Finding{Name: "account", State: OK, Detail: "LocalSystem"}
	token := windows.GetCurrentProcessToken()
	user, err := token.GetTokenUser()
	switch {
	case err != nil:
		f.State, f.Detail = Bad, "can't be read: "+firstLine(err.Error())
	case user.User.Sid.IsWellKnown(windows.WinLocalSystemSid):
	case token.IsElevated():
		f.State, f.Detail = Warn, "an administrator: while the compute service hangs, the fencer can't end containers, whose job objects are LocalSystem's"
	default:
		f.State, f.Detail = Bad, "no administrator: Windows lets it make neither layers nor containers"
	}
	f.Remedy = "run the agent as LocalSystem"
	return f
}

func disk(data string) Finding {
	f := Finding{Name: "disk", State: OK, Remedy: "make room there, or choose another directory: --data DIR"}
	at := data
	for {
		_, err := os.Stat(at)
		if up := filepath.Dir(at); !errors.Is(err, fs.ErrNotExist) || up == at {
			break
		}
		at = filepath.Dir(at)
	}
	var free uint64
	name, err := windows.UTF16PtrFromString(at)
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(name, &free, nil, nil)
	}
	f.Detail = fmt.Sprintf("%d MiB free at %s", free>>20, at)
	switch {
	case err != nil:
		f.State, f.Detail = Bad, fmt.Sprintf("%s: %v", at, err)
	case free < diskLeast:
		f.State = Bad
	case free < diskGood:
		f.State = Warn
	}
	return f
}
