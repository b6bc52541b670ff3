package hcs

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-gitops/tandem/runtimes"
)

var update = flag.Bool("update", false, "write the golden files again")

func golden(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; -update writes it again:\n%s", file, diff)
	}
}

func TestDocuments(t *testing.T) {
	a := assembly{
		hostname: "web-0", namespace: "6f2b6b0e-2f0e-4a52-8a7a-1f0c0a7f9d11", scratch: `\\?\Volume{c0ffee00-0000-4000-8000-000000000001}\`,
		layers: []layer{
			{ID: "5f3a1a9e-0000-4000-8000-000000000002", Path: `C:\tandem\layers\1111`},
			{ID: "5f3a1a9e-0000-4000-8000-000000000001", Path: `C:\tandem\layers\0000`},
		},
		cores: 4,
	}
	a.image.Config.Entrypoint = []string{`C:\shop\web.exe`}
	a.image.Config.Cmd = []string{"--port", "80"}
	a.image.Config.Env = []string{`Path=C:\windows;C:\shop`, "FROM=image"}
	plain := runtimes.Container{Name: "web"}
	full := runtimes.Container{
		Name: "web", Args: []string{"--greeting", `say "hello there"`, `C:\with space\`}, Env: []string{`PATH=C:\mine`, "MODE=shop=1"}, WorkingDir: "/shop",
		Mounts:   []runtimes.Mount{{Source: `C:\tandem\volumes\conf`, Target: "/etc/shop", ReadOnly: true}, {Source: `D:\data`, Target: `C:\data`}},
		Limits:   runtimes.Limits{CPULimit: 1500, Memory: 300<<20 + 1},
		Security: runtimes.Security{UserName: "ContainerUser"},
	}
	golden(t, "system-plain", a.document(&plain))
	golden(t, "process-plain", a.process(&plain))
	golden(t, "system-full", a.document(&full))
	golden(t, "process-full", a.process(&full))
	a.folder, a.utilityVM, a.endpoint = `C:\tandem\scratch\guest`, `C:\tandem\layers\0000\UtilityVM`, "b5a1e0b1-0000-4000-8000-000000000003"
	golden(t, "guest-plain", a.guest("0123abcd-web-0", &plain))
	golden(t, "guest-full", a.guest("0123abcd-web-0", &full))
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		name                           string
		entrypoint, cmd, command, args []string
		escaped                        bool
		want                           string
	}{
		{name: "image", entrypoint: []string{"web"}, cmd: []string{"a b"}, want: `web "a b"`},
		{name: "args replace cmd", entrypoint: []string{"web"}, cmd: []string{"x"}, args: []string{"y"}, want: "web y"},
		{name: "command drops cmd", entrypoint: []string{"web"}, cmd: []string{"x"}, command: []string{"sh"}, want: "sh"},
		{name: "escaped entrypoint", entrypoint: []string{`cmd /S /C "echo hi"`}, args: []string{"a b"}, escaped: true, want: `cmd /S /C "echo hi" "a b"`},
		{name: "escaped cmd", cmd: []string{`cmd /S /C "echo hi"`}, escaped: true, want: `cmd /S /C "echo hi"`},
		{name: "escaped, but ours", entrypoint: []string{"x"}, command: []string{"my prog"}, escaped: true, want: `"my prog"`},
		{name: "escaped, cmd replaced", cmd: []string{"cmd /C x"}, args: []string{"my prog"}, escaped: true, want: `"my prog"`},
		{name: "nothing", want: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var img imageConfig
			img.Config.Entrypoint, img.Config.Cmd, img.Config.ArgsEscaped = c.entrypoint, c.cmd, c.escaped
			if got := commandLine(&img, &runtimes.Container{Command: c.command, Args: c.args}); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestQuote(t *testing.T) {
	for arg, want := range map[string]string{
		"": `""`, "a": "a", `C:\x\`: `C:\x\`, "a b": `"a b"`, `a b\`: `"a b\\"`, `say "x"`: `"say \"x\""`, `\"`: `"\\\""`, `a\\b c`: `"a\\b c"`,
	} {
		if got := quote(arg); got != want {
			t.Errorf("%q is written %s, want %s", arg, got, want)
		}
	}
}

func TestEnvironmentHasNoCase(t *testing.T) {
	got := environment([]string{"Path=1", "A=x=y", "broken", "=C:=odd"}, []string{"PATH=2"})
	if diff := cmp.Diff(map[string]string{"PATH": "2", "A": "x=y"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRefusals(t *testing.T) {
	one := int64(1000)
	for name, c := range map[string]runtimes.Container{
		"privileged": {Security: runtimes.Security{Privileged: true}}, "numeric": {Security: runtimes.Security{User: &one}},
		"readOnlyRootFilesystem": {Security: runtimes.Security{ReadOnlyRoot: true}}, "capabilities": {Security: runtimes.Security{Add: []string{"NET_ADMIN"}}},
		"tty": {TTY: true}, "propagation": {Mounts: []runtimes.Mount{{Target: "/x", Propagate: "Bidirectional"}}},
		"seccomp": {Security: runtimes.Security{Seccomp: "profile.json"}},
	} {
		if err := refuseContainer(&c); !errors.Is(err, runtimes.ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, s := range map[string]runtimes.Sandbox{
		"hostNetwork": {HostNetwork: true}, "shareProcessNamespace": {SharePID: true},
		"hostAliases": {Hosts: []string{"192.0.2.7\ta"}}, "sysctls": {Sysctls: map[string]string{"net.ipv4.tcp_syncookies": "1"}},
	} {
		if err := refuseSandbox(&s); !errors.Is(err, runtimes.ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := refuseContainer(&runtimes.Container{Security: runtimes.Security{RunAsNonRoot: true, UserName: "containeradministrator"}}); !errors.Is(err, runtimes.ErrRejected) {
		t.Errorf("an administrator that must not be one: %v", err)
	}
}
