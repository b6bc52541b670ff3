package hcs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/hcsshim"
	"github.com/Microsoft/hcsshim/pkg/ociwclayer"
	"github.com/klauspost/compress/zstd"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

const configLimit = 8 << 20

// A layerStore keeps images: layers\CHAIN is an unpacked layer on top of its
// parents and layers\CHAIN.json says that it is whole; images\DIGEST.json is an
// image whose layers all are. scratch\ID is the writable layer of a container.
type layerStore struct {
	dir    string
	images *images.Store
	ledger *images.Ledger

	mu  sync.Mutex
	one map[string]*sync.Mutex // one unpacking for each layer
}

// A storedImage is an image record.
type storedImage struct {
	Name   string      `json:"name"`
	Config imageConfig `json:"config"`
	Chains []string    `json:"chains"` // of the layers, the lowest first
}

func (l *layerStore) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

func (l *layerStore) imageFile(d state.Digest) string {
	return l.path("images", hex.EncodeToString(d[:])+".json")
}

// image finds one that was pulled.
func (l *layerStore) image(d state.Digest) (*storedImage, error) {
	var img storedImage
	err := readJSON(l.imageFile(d), &img)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it is not on this node", runtimes.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: read its record: %w", runtimes.ErrUnavailable, err)
	}
	for _, chain := range img.Chains {
		for _, path := range []string{l.path("layers", chain), l.path("layers", chain+".json")} {
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%w: a layer of it was removed from this node", runtimes.ErrNotFound)
			}
		}
	}
	return &img, nil
}

// parents are the directories of an image's layers, the nearest first, as
// Windows wants them.
func (l *layerStore) parents(chains []string) []string {
	paths := make([]string, len(chains))
	for i, c := range chains {
		paths[len(chains)-1-i] = l.path("layers", c)
	}
	return paths
}

// lock lets one at a time unpack a layer.
func (l *layerStore) lock(chain string) (unlock func()) {
	l.mu.Lock()
	m := l.one[chain]
	if m == nil {
		m = &sync.Mutex{}
		l.one[chain] = m
	}
	l.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// pull makes an image present and unpacked.
func (l *layerStore) pull(ctx context.Context, image runtimes.Image) error {
	content, err := l.images.With(image.Credentials).Fetch(ctx, image.Name, image.Digest)
	if err != nil {
		return classifyImage(err)
	}
	if err := l.ledger.Came(content); err != nil { // before it is anybody's
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
	raw, err := readBlob(ctx, content.Config)
	if err != nil {
		return classifyImage(err)
	}
	img := storedImage{Name: image.Name}
	if err := json.Unmarshal(raw, &img.Config); err != nil {
		return fmt.Errorf("%w: its configuration isn't JSON: %w", runtimes.ErrRejected, err)
	}
	if err := images.CheckPlatform(img.Config.OS, img.Config.Architecture, state.Windows, runtime.GOARCH); err != nil {
		return fmt.Errorf("%w: %w", runtimes.ErrUnsupported, err)
	}
	if len(img.Config.RootFS.DiffIDs) != len(content.Layers) || len(content.Layers) == 0 {
		return fmt.Errorf("%w: it has %d layers but names %d", runtimes.ErrRejected, len(content.Layers), len(img.Config.RootFS.DiffIDs))
	}
	chain := ""
	for i, blob := range content.Layers {
		diff := img.Config.RootFS.DiffIDs[i]
		chain = chainID(chain, diff)
		if err := l.unpack(ctx, blob, diff, chain, img.Chains); err != nil {
			return err
		}
		img.Chains = append(img.Chains, chain)
	}
	if err := writeJSON(l.imageFile(image.Digest), img); err != nil {
		return fmt.Errorf("%w: record it: %w", runtimes.ErrUnavailable, err)
	}
	return nil
}

// chainID names a layer on its parents: the first 32 hexadecimal digits of a
// hash, since Windows' paths are short.
func chainID(parent, diff string) string {
	sum := sha256.Sum256([]byte(parent + " " + diff))
	return hex.EncodeToString(sum[:16])
}

// unpack imports a layer once. Without its record a directory is what a kill
// left, and is made anew.
func (l *layerStore) unpack(ctx context.Context, blob images.Blob, diff, chain string, below []string) error {
	defer l.lock(chain)()
	record := l.path("layers", chain+".json")
	if _, err := os.Stat(record); err == nil {
		return nil
	}
	dir := l.path("layers", chain)
	if err := l.destroy(dir); err != nil {
		return fmt.Errorf("%w: remove half a layer: %w", runtimes.ErrUnavailable, err)
	}
	err := l.importLayer(ctx, blob, diff, dir, l.parents(below))
	if err == nil {
		err = writeJSON(record, map[string]string{"diff": diff})
	}
	if err != nil {
		return errors.Join(err, l.destroy(dir))
	}
	return nil
}

func (l *layerStore) importLayer(ctx context.Context, blob images.Blob, diff, dir string, parents []string) error {
	packed, err := blob.Open(ctx)
	if err != nil {
		return classifyImage(err)
	}
	defer packed.Close()
	plain, err := decompress(packed)
	if err != nil {
		return fmt.Errorf("%w: layer %s: %w", runtimes.ErrRejected, blob.Digest, err)
	}
	defer plain.Close()
	if err := winio.EnableProcessPrivileges([]string{winio.SeBackupPrivilege, winio.SeRestorePrivilege}); err != nil {
		return fmt.Errorf("%w: layers need the privileges to back up and restore; run as LocalSystem or administrator: %w", runtimes.ErrUnsupported, err)
	}
	sum := sha256.New()
	tee := io.TeeReader(plain, sum)
	if _, err := ociwclayer.ImportLayerFromTar(ctx, tee, dir, parents); err != nil {
		return fmt.Errorf("unpack layer %s: %w", blob.Digest, hcsFailure(opImport, err))
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return classifyImage(err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != diff {
		return fmt.Errorf("%w: layer %s unpacks to %s, the image says %s", runtimes.ErrRejected, blob.Digest, got, diff)
	}
	return nil
}

// decompress tells by the first bytes how a layer is packed.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

func readBlob(ctx context.Context, b images.Blob) ([]byte, error) {
	f, err := b.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, configLimit+1))
	if err == nil && len(raw) > configLimit {
		err = fmt.Errorf("%w: its configuration is larger than %d bytes", runtimes.ErrRejected, configLimit)
	}
	return raw, err
}

// A scratch is a container's mounted writable layer.
type scratch struct {
	volume string
	layers []layer // below it, the nearest first

	// Where a guest mounts it.
	folder    string
	utilityVM string
}

// mount makes a container's writable layer on an image's and mounts it; a guest
// mounts it itself.
func (l *layerStore) mount(id string, img *storedImage, guest bool) (*scratch, error) {
	dir := l.path("scratch", id)
	parents := l.parents(img.Chains)
	var none hcsshim.DriverInfo // paths are whole
	if err := hcsshim.CreateScratchLayer(none, dir, "", parents); err != nil {
		return nil, hcsFailure(opScratch, err)
	}
	s := &scratch{folder: dir}
	var err error
	if guest {
		s.utilityVM, err = utilityVM(parents)
	} else {
		s.volume, err = activate(dir, parents)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range parents {
		g, err := hcsshim.NameToGuid(filepath.Base(p))
		if err != nil {
			return nil, hcsFailure(opName, err)
		}
		s.layers = append(s.layers, layer{ID: g.ToString(), Path: p})
	}
	return s, nil
}

// activate mounts a writable layer.
func activate(dir string, parents []string) (volume string, err error) {
	var none hcsshim.DriverInfo
	if err := hcsshim.ActivateLayer(none, dir); err != nil {
		return "", hcsFailure(opActivate, err)
	}
	if err := hcsshim.PrepareLayer(none, dir, parents); err != nil {
		return "", hcsFailure(opPrepare, err)
	}
	if volume, err = hcsshim.GetLayerMountPath(none, dir); err != nil {
		return "", hcsFailure(opMount, err)
	}
	return volume, nil
}

// utilityVM is what an image's guests boot from, in the nearest layer that has it.
func utilityVM(parents []string) (string, error) {
	for _, p := range parents {
		dir := filepath.Join(p, "UtilityVM")
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: no layer of the image has a UtilityVM, which Hyper-V isolation boots; use an image on nanoserver or servercore, or process isolation", runtimes.ErrUnsupported)
}

// unmount removes a container's writable layer, or what there is of it.
func (l *layerStore) unmount(id string) error {
	dir := l.path("scratch", id)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var none hcsshim.DriverInfo
	// Neither is possible where mounting stopped early; what matters is that the
	// directory goes.
	_ = hcsshim.UnprepareLayer(none, dir)
	_ = hcsshim.DeactivateLayer(none, dir)
	return l.destroy(dir)
}

func (l *layerStore) destroy(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := hcsshim.DestroyLayer(hcsshim.DriverInfo{}, dir); err != nil {
		return hcsFailure(opDropLayer, err)
	}
	return os.RemoveAll(dir)
}

// scratches are the writable layers that exist.
func (l *layerStore) scratches() ([]string, error) {
	entries, err := os.ReadDir(l.path("scratch"))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	slices.Sort(ids)
	return ids, nil
}

// hcsFailure gives an error of hcsshim its class, by the code in it.
func hcsFailure(o op, err error) error {
	if code := codeOf(err); code != 0 {
		return &Error{Op: string(o), Code: code}
	}
	return fmt.Errorf("%s: %w: %w", o, runtimes.ErrUnavailable, err)
}

// codeOf finds Windows' code in an error. hcsshim's own errors have it in a field
// Err but don't unwrap to it, and their type has no name outside of hcsshim.
func codeOf(err error) uint32 {
	for range 4 {
		if code, is := errors.AsType[syscall.Errno](err); is {
			return uint32(code) //nolint:gosec // codes are 32 bits
		}
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() != reflect.Struct {
			return 0
		}
		f := v.FieldByName("Err")
		if !f.IsValid() || !f.CanInterface() {
			return 0
		}
		inner, isError := reflect.TypeAssert[error](f)
		if !isError || inner == nil {
			return 0
		}
		err = inner
	}
	return 0
}

// classifyImage: a name that isn't there or isn't an image stays so until
// someone acts; a registry that doesn't answer may later.
func classifyImage(err error) error {
	var lookup *images.LookupError
	if !errors.As(err, &lookup) {
		return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
	}
	switch {
	case lookup.Code == state.LookupNotFound:
		return fmt.Errorf("%w: %w", runtimes.ErrNotFound, err)
	case lookup.Code.Lasting():
		return fmt.Errorf("%w: %w", runtimes.ErrRejected, err)
	}
	return fmt.Errorf("%w: %w", runtimes.ErrUnavailable, err)
}
