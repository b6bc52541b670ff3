package worker

import (
	"bytes"
	"io/fs"

	"github.com/tandem-gitops/tandem/sources"
)

// small is up to how many bytes a file comes with the first look at it.
const small = 64 << 10

// remoteTree is the controller's tree, asked for over the pipe. It remembers
// what it saw: a tree doesn't change.
type remoteTree struct {
	server *server
	looked map[string]*answer
}

var _ sources.Tree = (*remoteTree)(nil)

func (t *remoteTree) look(name string) *answer {
	a := t.looked[name]
	if a == nil {
		a = t.server.ask(ask{Op: opLook, Path: name})
		t.looked[name] = a
	}
	return a
}

// Stat implements fs.StatFS.
func (t *remoteTree) Stat(name string) (fs.FileInfo, error) {
	a := t.look(name)
	if a.Err != nil {
		return nil, a.Err
	}
	return a.Info, nil
}

// ReadFile implements fs.ReadFileFS. The caller may change what it gets.
func (t *remoteTree) ReadFile(name string) ([]byte, error) {
	if a := t.looked[name]; a != nil && a.Whole {
		return bytes.Clone(a.Data), nil
	}
	a := t.server.ask(ask{Op: opRead, Path: name})
	if a.Err != nil {
		return nil, a.Err
	}
	return a.Data, nil
}

// ReadDir implements fs.ReadDirFS.
func (t *remoteTree) ReadDir(name string) ([]fs.DirEntry, error) {
	a := t.server.ask(ask{Op: opList, Path: name})
	if a.Err != nil {
		return nil, a.Err
	}
	out := make([]fs.DirEntry, len(a.Names))
	for i := range a.Names {
		out[i] = &a.Names[i]
	}
	return out, nil
}

// Blob implements sources.Tree.
func (t *remoteTree) Blob(name string) string {
	if a := t.looked[name]; a != nil && a.Whole {
		return a.Blob
	}
	return t.server.ask(ask{Op: opBlob, Path: name}).Blob
}

// Open implements fs.FS. Rendering reads whole files.
func (t *remoteTree) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
}

// answerTree answers for a tree on the controller's side.
func answerTree(tree sources.Tree, a *ask) *answer {
	switch a.Op {
	case opLook:
		return look(tree, a.Path)
	case opRead:
		data, err := tree.ReadFile(a.Path)
		return &answer{Data: data, Err: toWire(err)}
	case opList:
		entries, err := tree.ReadDir(a.Path)
		out := &answer{Err: toWire(err), Names: make([]info, len(entries))}
		for i, e := range entries {
			out.Names[i] = info{FileName: e.Name(), FileMode: e.Type()}
		}
		return out
	case opBlob:
		return &answer{Blob: tree.Blob(a.Path)}
	default:
		return &answer{Err: &wireError{Text: "unknown question"}}
	}
}

func look(tree sources.Tree, name string) *answer {
	stat, err := tree.Stat(name)
	if err != nil {
		return &answer{Err: toWire(err)}
	}
	out := &answer{Info: &info{FileName: stat.Name(), Bytes: stat.Size(), FileMode: stat.Mode()}}
	if stat.IsDir() || stat.Size() > small {
		return out
	}
	// What is wrong with the content is said when it is asked for by itself.
	if data, err := tree.ReadFile(name); err == nil {
		out.Whole, out.Data, out.Blob = true, data, tree.Blob(name)
	}
	return out
}
