package hcstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

//go:embed c
var sources embed.FS

const (
	wine         = "/usr/lib/wine/wine64"
	wineserver   = "/usr/lib/wine/wineserver64"
	compiler     = "x86_64-w64-mingw32-gcc"
	bootTimeout  = 3 * time.Minute
	templateKind = "1" // counts changes of how a template is made
)

// registryFile makes Wine say that it is Windows Server 2022.
const registryFile = `Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\Software\Microsoft\Windows NT\CurrentVersion]
"ProductName"="Windows Server 2022 Datacenter"
"InstallationType"="Server"
"CurrentVersion"="6.3"
"CurrentBuild"="20348"
"CurrentBuildNumber"="20348"
"CurrentMajorVersionNumber"=dword:0000000a
"CurrentMinorVersionNumber"=dword:00000000
"UBR"=dword:00000841

[HKEY_CURRENT_USER\Software\Wine]
"Version"="win10"

[HKEY_CURRENT_USER\Software\Wine\WineDbg]
"ShowCrashDialog"=dword:00000000
`

// Missing says which packages of Debian this machine lacks to be one.
func Missing() []string {
	var missing []string
	if _, err := os.Stat(wine); err != nil {
		missing = append(missing, "wine64")
	}
	if _, err := exec.LookPath(compiler); err != nil {
		missing = append(missing, "gcc-mingw-w64-x86-64")
	}
	return missing
}

// environment is what Windows programs run with in a prefix.
func environment(prefix string) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return strings.HasPrefix(name, "WINE") || slices.Contains([]string{"HOME", "DISPLAY", "GOOS", "GOARCH", "TMP", "TEMP"}, name)
	})
	return append(env, "WINEPREFIX="+prefix, "WINEARCH=win64", "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree=;mshtml=", "HOME="+prefix)
}

// template returns a prefix to copy, made once for each version of Wine and of
// our sources.
func template(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for Wine's template: %w", err)
	}
	sum := sha256.New()
	fmt.Fprint(sum, templateKind, registryFile)
	st, err := os.Stat(wine)
	if err != nil {
		return "", fmt.Errorf("find Wine: %w", err)
	}
	fmt.Fprintln(sum, st.Size(), st.ModTime().UnixNano())
	if err := fs.WalkDir(sources, "c", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := sources.ReadFile(path)
		fmt.Fprintln(sum, path, len(raw))
		sum.Write(raw)
		return err
	}); err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tandem-hcstest")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	done := filepath.Join(dir, fmt.Sprintf("prefix-%x", sum.Sum(nil)[:8]))
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	old, err := filepath.Glob(filepath.Join(dir, "prefix-*"))
	if err != nil {
		return "", err
	}
	for _, o := range old { // one is 700 MB
		if err := os.RemoveAll(o); err != nil {
			return "", err
		}
	}
	if err := makeTemplate(ctx, done+".new"); err != nil {
		return "", errors.Join(err, os.RemoveAll(done+".new"))
	}
	return done, os.Rename(done+".new", done)
}

func makeTemplate(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := inPrefix(ctx, dir, wine, "wineboot", "-i"); err != nil {
		return err
	}
	reg := filepath.Join(dir, "server.reg")
	if err := os.WriteFile(reg, []byte(registryFile), 0o600); err != nil {
		return err
	}
	if err := inPrefix(ctx, dir, wine, "regedit", "/S", windowsPath(reg)); err != nil {
		return err
	}
	if err := build(ctx, dir); err != nil {
		return err
	}
	return inPrefix(ctx, dir, wineserver, "-w")
}

func inPrefix(ctx context.Context, prefix, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = environment(prefix)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// build compiles the stubs into the prefix's system32.
func build(ctx context.Context, prefix string) error {
	src := filepath.Join(prefix, "c")
	if err := os.CopyFS(prefix, sources); err != nil {
		return err
	}
	system := filepath.Join(prefix, "drive_c", "windows", "system32")
	for name, files := range map[string][]string{
		"computecore":      {"computecore.c", "rpc.c"},
		"computenetwork":   {"computenetwork.c", "rpc.c"},
		"vmcompute":        {"vmcompute.c", "rpc.c"},
		"bcryptprimitives": {"mend.c"},
	} {
		args := append([]string{"-O2", "-Wall", "-Wextra", "-Werror", "-Wno-cast-function-type", "-shared", "-s", "-o", filepath.Join(system, name+".dll")}, files...)
		args = append(args, "-lws2_32", "-lole32", "-luuid", "-ladvapi32")
		cmd := exec.CommandContext(ctx, compiler, args...)
		cmd.Dir = src
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s.dll: %w\n%s", name, err, out)
		}
	}
	return nil
}

// windowsPath is a path of this machine as Wine's programs know it.
func windowsPath(path string) string { return "Z:" + strings.ReplaceAll(path, "/", `\`) }
