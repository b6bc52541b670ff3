package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// A Spec is an image to be written: one index with a manifest per variant.
type Spec struct {
	Name     string // "shop.example/web:1.4.0"
	Variants []Variant
}

// A Variant is what an image is on one platform: a single layer and how to run
// it.
type Variant struct {
	OS         state.OS
	Arch       string
	OSVersion  string // Windows: "10.0.20348.2113"
	Files      []File
	Entrypoint []string
	Cmd        []string
	Env        []string
	WorkingDir string
	User       string
	StopSignal string
	Ports      []string // "8080/tcp"
	Labels     map[string]string
}

// A File goes into the layer. On Windows its path is below Files/, as layers of
// that system have it.
type File struct {
	Path string // "bin/web", slashes
	Mode fs.FileMode
	Data []byte
}

// Write adds an image to the OCI layout in dir, which it makes where there is
// none. An image of the same name is replaced. The same Spec gives the same
// digest everywhere: no clock or owner enters it.
func Write(dir string, spec Spec) (state.Digest, error) {
	n, err := parseName(spec.Name)
	if err != nil {
		return state.Digest{}, lookupError(spec.Name, err)
	}
	if err := prepare(dir); err != nil {
		return state.Digest{}, fmt.Errorf("write the layout %s: %w", dir, err)
	}
	list := ociDocument{SchemaVersion: 2, MediaType: ociIndex}
	for _, v := range spec.Variants {
		d, err := writeVariant(dir, v)
		if err != nil {
			return state.Digest{}, fmt.Errorf("write %s for %s/%s: %w", spec.Name, v.OS, v.Arch, err)
		}
		list.Manifests = append(list.Manifests, d)
	}
	entry, err := writeJSON(dir, ociIndex, list)
	if err != nil {
		return state.Digest{}, err
	}
	entry.Annotations = map[string]string{refName: spec.Name}
	if err := register(dir, n, entry); err != nil {
		return state.Digest{}, fmt.Errorf("write the layout %s: %w", dir, err)
	}
	return parseDigest(entry.Digest)
}

type ociDocument struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
}

type imageConfig struct {
	Created      time.Time  `json:"created"`
	Architecture string     `json:"architecture"`
	OS           state.OS   `json:"os"`
	OSVersion    string     `json:"os.version,omitempty"`
	Config       runConfig  `json:"config"`
	RootFS       rootFS     `json:"rootfs"`
	History      []struct{} `json:"history,omitempty"`
}

type runConfig struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

func writeVariant(dir string, v Variant) (descriptor, error) {
	if !known(string(v.OS)) || v.Arch == "" {
		return descriptor{}, errors.New("want linux or windows and an architecture")
	}
	layer, err := tarball(v)
	if err != nil {
		return descriptor{}, err
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(layer); err != nil {
		return descriptor{}, err
	}
	if err := z.Close(); err != nil {
		return descriptor{}, err
	}
	blob, err := writeBlob(dir, ociLayer, packed.Bytes())
	if err != nil {
		return descriptor{}, err
	}
	config := imageConfig{
		Created: time.Unix(0, 0).UTC(), Architecture: v.Arch, OS: v.OS, OSVersion: v.OSVersion,
		Config: runConfig{
			User: v.User, Env: v.Env, Entrypoint: v.Entrypoint, Cmd: v.Cmd, WorkingDir: v.WorkingDir,
			Labels: v.Labels, StopSignal: v.StopSignal,
		},
		RootFS: rootFS{Type: "layers", DiffIDs: []string{state.DigestOf(layer).String()}},
	}
	for _, p := range v.Ports {
		if config.Config.ExposedPorts == nil {
			config.Config.ExposedPorts = map[string]struct{}{}
		}
		config.Config.ExposedPorts[p] = struct{}{}
	}
	configBlob, err := writeJSON(dir, ociConfig, config)
	if err != nil {
		return descriptor{}, err
	}
	d, err := writeJSON(dir, ociManifest, ociDocument{
		SchemaVersion: 2, MediaType: ociManifest, Config: &configBlob, Layers: []descriptor{blob},
	})
	d.Platform = &platform{OS: string(v.OS), Architecture: v.Arch, OSVersion: v.OSVersion}
	return d, err
}

// tarball is the layer, parents before what is in them. A Windows layer has
// Files/ and Hives/ at its top, as the system's own layers do.
func tarball(v Variant) ([]byte, error) {
	prefix := ""
	entries := map[string]*File{}
	if v.OS == state.Windows {
		prefix = "Files/"
		entries["Files"], entries["Hives"] = nil, nil
	}
	for _, f := range v.Files {
		name := path.Clean(prefix + strings.TrimPrefix(f.Path, "/"))
		if name == "." || !fs.ValidPath(name) {
			return nil, fmt.Errorf("file %q: want a path inside the image", f.Path)
		}
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			entries[parent] = nil
		}
		entries[name] = &f
	}
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range names {
		h := &tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		f := entries[name]
		if strings.HasSuffix(name, "tmp") && f == nil {
			h.Mode = 0o1777
		}
		if f != nil {
			h.Name, h.Typeflag, h.Mode, h.Size = name, tar.TypeReg, int64(f.Mode.Perm()), int64(len(f.Data))
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if f != nil {
			if _, err := w.Write(f.Data); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func prepare(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "index.json")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return replaceFile(filepath.Join(dir, "index.json"), []byte(`{"schemaVersion":2,"manifests":[]}`))
}

// register puts entry into index.json, in the place of one of the same name.
func register(dir string, n imageName, entry descriptor) error {
	file := filepath.Join(dir, "index.json")
	raw, err := readFile(file, manifestLimit)
	if err != nil {
		return err
	}
	var list ociDocument
	if err := json.Unmarshal(raw, &list); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	list.SchemaVersion = 2
	list.Manifests = slices.DeleteFunc(list.Manifests, func(d descriptor) bool { return layout{repo: "."}.named(d, n) })
	list.Manifests = append(list.Manifests, entry)
	raw, err = json.Marshal(list)
	if err != nil {
		return err
	}
	return replaceFile(file, raw)
}

func writeJSON(dir, mediaType string, v any) (descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return writeBlob(dir, mediaType, raw)
}

func writeBlob(dir, mediaType string, raw []byte) (descriptor, error) {
	digest := state.DigestOf(raw)
	d := descriptor{MediaType: mediaType, Digest: digest.String(), Size: int64(len(raw))}
	return d, replaceFile(layout{dir: dir}.path(digest), raw)
}

// replaceFile writes a file whole or not at all, so that a reader beside us
// never sees half of it.
func replaceFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
