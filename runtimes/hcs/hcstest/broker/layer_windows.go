package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Layers are directories. A writable one is mounted by giving it the name of a
// volume.
func (b *broker) layerCalls() map[string]handler {
	done := func(*request) (uint32, []any) { return ok, nil }
	return map[string]handler{
		"CreateSandboxLayer":  b.createLayer,
		"ActivateLayer":       b.needLayer,
		"PrepareLayer":        b.prepareLayer,
		"UnprepareLayer":      b.unprepareLayer,
		"DeactivateLayer":     b.needLayer,
		"DestroyLayer":        b.destroyLayer,
		"GetLayerMountPath":   b.mountPath,
		"LayerExists":         b.layerExists,
		"ExpandSandboxSize":   b.needLayer,
		"ProcessBaseImage":    b.needLayer,
		"ProcessUtilityImage": b.needLayer,
		"GrantVmAccess":       done,
	}
}

func there(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func (b *broker) needLayer(r *request) (uint32, []any) {
	if !there(r.text(0)) {
		return fileNotFound, nil
	}
	return ok, nil
}

func (b *broker) createLayer(r *request) (uint32, []any) {
	if there(r.text(0)) {
		return 0x800700b7, nil // ERROR_ALREADY_EXISTS
	}
	if err := os.MkdirAll(filepath.Join(r.text(0), "Files"), 0o700); err != nil {
		fmt.Fprintln(os.Stderr, "broker: make a layer:", err)
		return 0x80070005, nil
	}
	return ok, nil
}

func volume(path string) string { return `\\?\Volume{` + guidText(guidOf(path)) + `}\` }

func (b *broker) prepareLayer(r *request) (uint32, []any) {
	if !there(r.text(0)) {
		return fileNotFound, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept.Volumes[volume(r.text(0))] = r.text(0)
	b.save()
	return ok, nil
}

func (b *broker) unprepareLayer(r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, mounted := b.kept.Volumes[volume(r.text(0))]; !mounted {
		return elementNotFound, nil
	}
	delete(b.kept.Volumes, volume(r.text(0)))
	b.save()
	return ok, nil
}

// destroyLayer removes a layer; not one that a running system has mounted.
func (b *broker) destroyLayer(r *request) (uint32, []any) {
	b.mu.Lock()
	for _, s := range b.systems {
		if s.document.Container.Storage.Path == volume(r.text(0)) {
			b.mu.Unlock()
			return 0x80070020, nil // ERROR_SHARING_VIOLATION
		}
	}
	delete(b.kept.Volumes, volume(r.text(0)))
	b.save()
	b.mu.Unlock()
	if err := os.RemoveAll(r.text(0)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "broker: remove a layer:", err)
		return 0x80070020, nil
	}
	return ok, nil
}

func (b *broker) mountPath(r *request) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := volume(r.text(0))
	if _, mounted := b.kept.Volumes[v]; !mounted {
		return elementNotFound, nil
	}
	return ok, []any{v}
}

func (b *broker) layerExists(r *request) (uint32, []any) {
	if there(r.text(0)) {
		return ok, []any{uint64(1)}
	}
	return ok, []any{uint64(0)}
}
