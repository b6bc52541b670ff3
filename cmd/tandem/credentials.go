package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tandem-gitops/tandem/sources/git"
)

// credentialsFlag names the file that says who we are to Git hosts.
func credentialsFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "git-credentials", os.Getenv("TANDEM_GIT_CREDENTIALS"), "`FILE` that says who we are to each Git host (TANDEM_GIT_CREDENTIALS): see docs/sources.md")
}

// credentials reads that file; an empty name is no credentials.
func credentials(file string) (git.Credentials, error) {
	if file == "" {
		return git.Credentials{}, nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return git.Credentials{}, fmt.Errorf("read the credentials for Git: %w", err)
	}
	c, err := git.ParseCredentials(raw, filepath.Dir(file))
	if err != nil {
		return git.Credentials{}, fmt.Errorf("read the credentials for Git in %s: %w", file, err)
	}
	return c, nil
}
