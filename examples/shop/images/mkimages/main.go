// Command mkimages builds the images of the shop from their Go source, for
// Linux and Windows, into an OCI layout that `tandem up --images DIR` reads.
//
//	go run ./examples/shop/images/mkimages -out images -web 1.4.0 -db 2.0.3
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

const source = "github.com/tandem-gitops/tandem/examples/shop/images/"

func main() {
	out := flag.String("out", "images", "directory of the OCI layout; images are added to what is there")
	web := flag.String("web", "", "version of shop.example/web to build")
	db := flag.String("db", "", "version of shop.example/db to build")
	arch := flag.String("arch", "amd64", "architecture, as Go spells it")
	build := flag.String("windows", "10.0.20348.2113", "the Windows build that the Windows variant names")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	for _, i := range []struct{ name, version string }{{"web", *web}, {"db", *db}} {
		if i.version == "" {
			continue
		}
		ref := "shop.example/" + i.name + ":" + i.version
		digest, err := make1(ctx, *out, i.name, i.version, *arch, *build)
		if err != nil {
			fmt.Fprintf(os.Stderr, "mkimages: %s: %v\n", ref, err)
			stop()
			os.Exit(1)
		}
		fmt.Printf("%s %s\n", ref, digest)
	}
	stop()
}

// make1 builds one image for both systems and adds it to the layout.
func make1(ctx context.Context, out, name, version, arch, windows string) (state.Digest, error) {
	spec := images.Spec{Name: "shop.example/" + name + ":" + version}
	for _, v := range []images.Variant{{OS: state.Linux, User: "1000:1000"}, {OS: state.Windows, OSVersion: windows}} {
		file := name
		v.Entrypoint = []string{"/" + name}
		if v.OS == state.Windows {
			file = name + ".exe"
			v.Entrypoint = []string{`C:\` + file}
		}
		program, err := compile(ctx, name, version, v.OS, arch)
		if err != nil {
			return state.Digest{}, err
		}
		v.Arch = arch
		v.Files = []images.File{{Path: file, Mode: 0o755, Data: program}, {Path: path.Join("tmp", ".keep"), Mode: 0o644}}
		spec.Variants = append(spec.Variants, v)
	}
	return images.Write(out, spec)
}

// compile builds one program. The same source and version give the same bytes.
func compile(ctx context.Context, name, version string, system state.OS, arch string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "mkimages-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, name)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X main.version="+version,
		"-o", file, source+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+string(system), "GOARCH="+arch)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("go build %s for %s/%s: %w", name, system, arch, err)
	}
	return os.ReadFile(file)
}
