package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release, set when it is built: -ldflags "-X main.version=…".
var version = "0.1.0"

// versionInfo is what `tandem version` prints.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionInfo() versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	return v
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "which tandem this is", Args: args(cobra.NoArgs), Example: "  tandem version -o json",
		RunE: func(*cobra.Command, []string) error {
			v := newVersionInfo()
			if c.output == "json" || c.output == "yaml" {
				return c.encode(v)
			}
			text := "tandem " + v.Version
			if v.Revision != "" {
				text += " (" + v.Revision[:min(12, len(v.Revision))] + ")"
			}
			_, err := fmt.Fprintf(c.out, "%s %s %s\n", text, v.Go, v.Platform)
			return err
		},
	}
}
