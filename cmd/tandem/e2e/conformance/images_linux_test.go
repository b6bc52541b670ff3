package conformance

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// The images of the checks. All hold busybox and the tool of this package.
const (
	box    = "e2e.example/box:1"    // /bin/sh
	server = "e2e.example/server:1" // the tool, serving
	user   = "e2e.example/user:1"   // runs as a user of its own: web, 1234:2345, also in group 3456
)

// applets are those that must be programs of their own: exec starts them
// without a shell.
func applets() []string {
	return []string{
		"sleep", "cat", "id", "hostname", "env", "echo", "true", "false", "ls", "touch", "wc", "dd", "stty", "kill", "grep", "tar", "wget", "nslookup", "stat", "nc",
		"ping", "mount", "ps", "date", "chown", "mknod", "su", "test", "mkdir", "rm",
	}
}

// writeImages makes the layout that the controller and the nodes read.
func writeImages(ctx context.Context, dir string) error {
	tool := filepath.Join(dir, "tool")
	if err := goBuild(ctx, tool, "github.com/tandem-gitops/tandem/cmd/tandem/e2e/conformance/tool"); err != nil {
		return err
	}
	program, err := os.ReadFile(tool)
	if err != nil {
		return err
	}
	shell, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	files := []images.File{
		{Path: "bin/busybox", Mode: 0o755, Data: shell},
		{Path: "bin/sh", Mode: 0o755, Data: shell},
		{Path: "bin/tool", Mode: 0o755, Data: program},
		{Path: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:::\nweb:x:1234:2345:::\n")},
		{Path: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nweb:x:2345:\nlogs:x:3456:web\n")},
		{Path: "tmp/.keep", Mode: 0o644},
		{Path: "data/kept", Mode: 0o644, Data: []byte("of the image\n")},
	}
	for _, name := range applets() {
		files = append(files, images.File{Path: "bin/" + name, Mode: 0o755, Data: []byte("#!/bin/busybox sh\nexec /bin/busybox " + name + " \"$@\"\n")})
	}
	variant := func(change func(*images.Variant)) []images.Variant {
		v := images.Variant{OS: state.Linux, Arch: "amd64", Files: files, Env: []string{"PATH=/bin", "FROM=image"}}
		change(&v)
		return []images.Variant{v}
	}
	layout := filepath.Join(dir, "images")
	var errs []error
	for name, change := range map[string]func(*images.Variant){
		box:    func(v *images.Variant) { v.Cmd = []string{"/bin/sh", "-c", "echo by default"} },
		server: func(v *images.Variant) { v.Entrypoint, v.Cmd = []string{"/bin/tool"}, []string{"serve"} },
		user: func(v *images.Variant) {
			v.User, v.WorkingDir, v.Entrypoint = "web", "/data", []string{"/bin/sh", "-c"}
		},
	} {
		_, err := images.Write(layout, images.Spec{Name: name, Variants: variant(change)})
		errs = append(errs, err)
	}
	return errors.Join(append(errs, writePrivate(dir, files))...)
}
