package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// versions are the tags of the shop's two images.
type versions struct{ web, db string }

// before is what dev/kustomization.yaml says; after is what the demo commits.
func before() versions { return versions{web: "1.4.0", db: "2.0.3"} }
func after() versions  { return versions{web: "1.5.0", db: "2.1.0"} }

// image is the full name that pods of a workload should have.
func (v versions) image(workload string) string {
	return "shop.example/" + workload + ":" + map[string]string{"web": v.web, "db": v.db}[workload]
}

// commitShop makes a Git repository of the example's manifests.
func (s *stage) commitShop(ctx context.Context) error {
	if err := copyManifests(filepath.Join("examples", "shop"), s.repo); err != nil {
		return err
	}
	if err := s.git(ctx, "init", "--quiet", "--initial-branch", "main"); err != nil {
		return err
	}
	return s.commit(ctx, "the shop")
}

// commitImages commits the new tags, where dev says them.
func (s *stage) commitImages(ctx context.Context) error {
	file := filepath.Join(s.repo, "dev", "kustomization.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	was, will := before(), after()
	changed := strings.NewReplacer(was.web, will.web, was.db, will.db).Replace(string(text))
	if !strings.Contains(changed, will.web) || !strings.Contains(changed, will.db) {
		return fmt.Errorf("%s does not say the versions %s and %s", file, was.web, was.db)
	}
	if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
		return err
	}
	return s.commit(ctx, "web "+will.web+", db "+will.db)
}

func (s *stage) commit(ctx context.Context, message string) error {
	say("git commit -m %q", message)
	if err := s.git(ctx, "add", "--all"); err != nil {
		return err
	}
	return s.git(ctx, "-c", "user.name=Ada", "-c", "user.email=ada@shop.example", "commit", "--quiet", "-m", message)
}

func (s *stage) git(ctx context.Context, args ...string) error {
	return quiet(ctx, "git", append([]string{"-C", s.repo}, args...)...)
}

// copyManifests copies a tree without the sources of its images.
func copyManifests(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(to, "images"))
}

// quiet runs a command whose output matters only when it fails.
func quiet(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// show runs a command in front of the viewer.
func show(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return nil
}
