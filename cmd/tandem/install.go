package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/cmd/tandem/doctor"
)

const (
	unitName = "tandem-agent.service"
	unitDir  = "/etc/systemd/system"
)

// unit is the agent under systemd. Its hardening is what isn't inherited: pods
// are descendants of the agent, so a seccomp filter, a bounding set of
// capabilities or NoNewPrivileges would be theirs too, and a mount namespace
// (ProtectSystem, PrivateTmp and the like) would take their mounts away at the
// agent's restart.
const unit = `# Written by tandem agent install. Take it away with: tandem agent uninstall
[Unit]
Description=Tandem: this machine as a node
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=%s
Restart=always
RestartSec=1
# Pods, their containerd and the fencer outlive the agent: an upgrade restarts none.
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
LimitCORE=0
LimitMEMLOCK=infinity
OOMScoreAdjust=-900
UMask=0077
KeyringMode=private
# No NoNewPrivileges, seccomp or Protect*: pods would inherit the first two, and
# lose their mounts with the last.

[Install]
WantedBy=multi-user.target
`

// installFlags are those of agent install and uninstall.
type installFlags struct {
	print, start bool
	dir, program string
	run          []string
}

func (c *cli) agentInstall() *cobra.Command {
	f := installFlags{dir: unitDir, start: true}
	cmd := &cobra.Command{
		Use: "install [-- FLAGS OF agent run]", Short: "run the agent under systemd, now and after every boot", Args: cobra.ArbitraryArgs,
		Long: `Write a systemd unit for the agent of this machine, and start it. Join first. Run it
again after an upgrade: the agent is restarted, its pods are not.`,
		Example: `  tandem agent join --server controller.example:7443 --token tandem.…
  tandem agent install
  tandem agent install --print -- --label zone=a`,
		RunE: func(cmd *cobra.Command, list []string) error {
			f.run = list
			return c.install(cmd.Context(), &f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.print, "print", false, "print the unit, and change nothing")
	fl.BoolVar(&f.start, "start", true, "enable and start it; with --start=false it is only written")
	fl.StringVar(&f.dir, "unit-dir", unitDir, "`DIR`ectory of the unit")
	fl.StringVar(&f.program, "program", "", "`PATH` of tandem in the unit; by default this program's own")
	return cmd
}

func (c *cli) install(ctx context.Context, f *installFlags) error {
	if f.program == "" {
		path, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		f.program = path
	}
	words := append([]string{f.program, "agent", "run", "--data", c.agentData()}, f.run...)
	for i, w := range words {
		words[i] = unitWord(w)
	}
	text := fmt.Sprintf(unit, strings.Join(words, " "))
	if f.print {
		_, err := fmt.Fprint(c.out, text)
		return err
	}
	if _, err := os.Stat(filepath.Join(c.agentData(), "agent.json")); err != nil {
		return fmt.Errorf("this machine has joined no controller (%w); join one: tandem agent join --server HOST:PORT --token TOKEN", err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, unitName), []byte(text), 0o644); err != nil { //nolint:gosec // systemd wants to read it, and it holds no secret
		return fmt.Errorf("write the unit: %w; run as root, or see it with --print", err)
	}
	if !f.start {
		_, err := fmt.Fprintf(c.out, "wrote %s; start it: systemctl enable --now %s\n", filepath.Join(f.dir, unitName), unitName)
		return err
	}
	for _, words := range [][]string{{"daemon-reload"}, {"enable", unitName}, {"restart", unitName}} {
		if err := systemctl(ctx, words...); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(c.out, "the agent runs, also after a boot; see it: systemctl status %s\n", unitName)
	return err
}

// unitWord is an argument as systemd reads it (systemd.service(5), "Command
// lines"): quoted, with its own signs doubled.
func unitWord(w string) string {
	w = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(w)
	if strings.ContainsAny(w, " \t'\"") || w == "" {
		return `"` + w + `"`
	}
	return w
}

func systemctl(ctx context.Context, words ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", words...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s; where systemd doesn't run, start `tandem agent run` by another supervisor", strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (c *cli) agentUninstall() *cobra.Command {
	f := installFlags{dir: unitDir}
	cmd := &cobra.Command{
		Use: "uninstall", Short: "take the agent's systemd unit away; pods run on", Args: args(cobra.NoArgs),
		Long: `Stop the agent and remove its unit. Pods run on, without anybody to look after them:
remove them with tandem agent leave.`,
		Example: "  tandem agent uninstall && tandem agent leave",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := filepath.Join(f.dir, unitName)
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no %s: nothing is installed", path)
			}
			if f.start {
				if err := systemctl(cmd.Context(), "disable", "--now", unitName); err != nil {
					return err
				}
			}
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove the unit: %w", err)
			}
			if f.start {
				if err := systemctl(cmd.Context(), "daemon-reload"); err != nil {
					return err
				}
			}
			_, err := fmt.Fprintf(c.out, "removed %s. Pods of this machine run on; remove them: tandem agent leave\n", path)
			return err
		},
	}
	cmd.Flags().StringVar(&f.dir, "unit-dir", unitDir, "`DIR`ectory of the unit")
	cmd.Flags().BoolVar(&f.start, "stop", true, "stop it first; with --stop=false the unit is only removed")
	return cmd
}

func (c *cli) agentDoctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "what this machine lacks to be a node, and what to do", Args: args(cobra.NoArgs),
		Long: `Look at this machine: what runs containers, what the kernel has, disk, clock, names, the
fencer, and where it has joined the controller and its certificate. Nothing is changed.
Exit status 1 when no pod could run; warnings alone give 0.`,
		Example: `  tandem agent doctor
  tandem agent doctor -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := fencerProgram()
			if err != nil {
				return err
			}
			o := doctor.Options{Data: c.agentData(), Fencer: program, Version: version}
			if j, err := c.joined(); err == nil {
				o.Server = j.Server
			}
			r := doctor.Look(cmd.Context(), o)
			if err := c.print(r); err != nil {
				return err
			}
			if !r.Usable {
				return failed()
			}
			return nil
		},
	}
}
