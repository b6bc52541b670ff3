package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// YAML prints what a manifest has for one operating system, for people: objects
// of that OS and of any, defaulted, in the order of the manifest. AnyOS prints
// every variant. Secret values are replaced by their sizes.
func YAML(m *state.Manifest, os state.OS) ([]byte, error) {
	var out bytes.Buffer
	for _, o := range m.Objects {
		for _, v := range o.Variants {
			if os != state.AnyOS && v.OS != state.AnyOS && v.OS != os {
				continue
			}
			raw, err := canonical(v.Body, func(b []byte) ([]byte, error) { return fmt.Appendf(nil, "(%d bytes)", len(b)), nil })
			if err != nil {
				return nil, err
			}
			text, err := tidy(raw)
			if err != nil {
				return nil, fmt.Errorf("print %s: %w", o.Ref, err)
			}
			fmt.Fprintf(&out, "---\n# %s", o.Ref)
			if v.OS != state.AnyOS {
				fmt.Fprintf(&out, ", %s", v.OS)
			}
			fmt.Fprintf(&out, ", from %s\n%s", v.Origin, text)
		}
	}
	return out.Bytes(), nil
}

// tidy is the YAML of an object without the empty status that its type adds.
func tidy(raw []byte) ([]byte, error) {
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, err
	}
	if m, ok := tree["data"].(map[string]any); ok && tree["kind"] == "Secret" {
		for k, v := range m {
			var size []byte
			if err := json.Unmarshal(fmt.Appendf(nil, "%q", v), &size); err == nil {
				m[k] = string(size)
			}
		}
	}
	delete(tree, "status")
	return yaml.Marshal(tree)
}
