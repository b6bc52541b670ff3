package overlay

import (
	"path"
	"strings"
)

// isRemote says whether kustomize would, or might, fetch a reference instead of
// reading it from the tree. It is wider than kustomize's own rule
// (api/internal/git.NewRepoSpecFromURL, loader.IsRemoteFile), since kustomize
// would go out with HTTP or git.
func isRemote(ref string) bool {
	low := strings.ToLower(strings.TrimSpace(ref))
	first, _, _ := strings.Cut(low, "/")
	return strings.Contains(low, "://") || strings.Contains(low, "::") || strings.Contains(low, "?") ||
		strings.ContainsAny(first, ":@") ||
		strings.HasPrefix(low, "github.com") || strings.HasPrefix(low, "www.github.com") ||
		strings.Contains(low, "_git/") || strings.Contains(low, ".git/") || strings.HasSuffix(low, ".git")
}

// below says whether p is dir or lies below it.
func below(p, dir string) bool {
	return dir == "." || p == dir || strings.HasPrefix(p, dir+"/")
}

// join resolves a reference of a kustomization in dir; ok is false where it
// leads out of the tree.
func join(dir, ref string) (p string, ok bool) {
	if path.IsAbs(ref) {
		return "", false
	}
	p = path.Join(dir, ref)
	return p, p != ".." && !strings.HasPrefix(p, "../")
}
