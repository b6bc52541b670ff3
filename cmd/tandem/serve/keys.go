package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tandem-gitops/tandem/render/sops"
)

// AgeKeys reads the age identities that open encrypted Secrets; nil where there
// is no such file.
func AgeKeys(path string) (*sops.Keys, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no keys are no error: encrypted Secrets are refused by name
	}
	if err != nil {
		return nil, fmt.Errorf("read age keys: %w", err)
	}
	keys, err := sops.ParseKeys(raw)
	if err != nil {
		return nil, fmt.Errorf("read age keys of %s: %w", path, err)
	}
	return keys, nil
}
