package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// mirrorFlag adds --mirror.
func mirrorFlag(cmd *cobra.Command, to *[]string) {
	cmd.Flags().StringArrayVar(to, "mirror", nil, "`HOST=MIRROR`: a registry that is asked before another; docker.io is Docker Hub. May be given several times")
}

// parseMirrors reads "docker.io=mirror.example:5000".
func parseMirrors(list []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, text := range list {
		host, at, ok := strings.Cut(text, "=")
		if !ok || host == "" || at == "" || strings.ContainsAny(text, "/ ") {
			return nil, usageError("--mirror %s: want HOST=MIRROR, such as docker.io=mirror.example:5000", text)
		}
		out[host] = append(out[host], at)
	}
	return out, nil
}
