package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/tandem-gitops/tandem/reconciler/state"
	"github.com/tandem-gitops/tandem/runtimes/hosttest"
	"github.com/tandem-gitops/tandem/runtimes/images"
)

// newBusy is a run of the manifests of testdata with an image that has a shell.
func newBusy(t *testing.T, manifests string) *run {
	t.Helper()
	hosttest.Need(t, hosttest.Root, "containerd", "runc", "nft")
	shell, err := exec.LookPath("busybox")
	if err != nil {
		hosttest.Lacks(t, "this test needs busybox")
	}
	r := &run{t: t, dir: filepath.Join(t.TempDir(), "app"), data: filepath.Join(t.TempDir(), "data"), images: t.TempDir(), out: new(bytes.Buffer)}
	r.bin = filepath.Join(t.TempDir(), "tandem")
	goTool(t, "build", "-o", r.bin, "github.com/tandem-gitops/tandem/cmd/tandem")
	program, err := os.ReadFile(shell)
	if err != nil {
		t.Fatal(err)
	}
	spec := images.Spec{Name: "example/busy:1", Variants: []images.Variant{{
		OS: state.Linux, Arch: "amd64", Entrypoint: []string{"/bin/busybox"}, Files: []images.File{{Path: "bin/busybox", Mode: 0o755, Data: program}},
	}}}
	if _, err := images.Write(r.images, spec); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(r.dir, os.DirFS(filepath.Join("testdata", manifests))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.end)
	return r
}

// get asks the API for one thing.
func (r *run) get(path string, into any) error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(r.data, "kubeconfig"))
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, raw)
	}
	return json.Unmarshal(raw, into)
}

// until waits for a state of the world; see says what is missing.
func (r *run) until(see func() string) {
	r.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		if last = see(); last == "" {
			return
		}
		select {
		case <-limit.C:
			r.t.Fatalf("after %s: %s", patience, last)
		case <-tick.C:
		}
	}
}

// TestKindsOnContainerd runs those of Kubernetes's cases for Jobs, DaemonSets,
// Deployments and Pods that containers themselves must bear out: exit codes, host
// names, restarts in place.
func TestKindsOnContainerd(t *testing.T) {
	r := newBusy(t, "kinds")
	r.up()
	const jobs, apps, core = "/apis/batch/v1/namespaces/kinds/jobs/", "/apis/apps/v1/namespaces/kinds/", "/api/v1/namespaces/kinds/pods"
	job := func(name string, want batchv1.JobConditionType, ok func(*batchv1.Job) bool) {
		t.Helper()
		r.until(func() string {
			var j batchv1.Job
			if err := r.get(jobs+name, &j); err != nil {
				return err.Error()
			}
			for _, c := range j.Status.Conditions {
				if c.Type == want && ok(&j) {
					return ""
				}
			}
			return fmt.Sprintf("job %s is not %s: %+v", name, want, j.Status)
		})
	}
	// should create pods for an Indexed job with completion indexes and specified hostname
	job("parts", batchv1.JobComplete, func(j *batchv1.Job) bool {
		return j.Status.Succeeded == 3 && j.Status.Failed == 0 && j.Status.CompletedIndexes == "0-2"
	})
	// should run a job to completion when tasks sometimes fail and are locally restarted
	job("again", batchv1.JobComplete, func(j *batchv1.Job) bool { return j.Status.Succeeded == 1 && j.Status.Failed == 0 })
	// should allow to use the pod failure policy on exit code to fail job early
	job("bad", batchv1.JobFailed, func(j *batchv1.Job) bool { return j.Status.Failed == 1 })
	// should fail when exceeds active deadline
	job("slow", batchv1.JobFailed, func(j *batchv1.Job) bool { return j.Status.Active == 0 })
	// should run and stop simple daemon
	r.until(func() string {
		var d appsv1.DaemonSet
		if err := r.get(apps+"daemonsets/agent", &d); err != nil {
			return err.Error()
		}
		if d.Status.NumberAvailable != 1 || d.Status.DesiredNumberScheduled != 1 {
			return fmt.Sprintf("daemon set: %+v", d.Status)
		}
		return ""
	})
	r.until(func() string {
		var d appsv1.Deployment
		if err := r.get(apps+"deployments/web", &d); err != nil {
			return err.Error()
		}
		if d.Status.AvailableReplicas != 2 {
			return fmt.Sprintf("deployment: %+v", d.Status)
		}
		return ""
	})
	var list corev1.PodList
	if err := r.get(core, &list); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		p := &list.Items[i]
		if p.Labels["batch.kubernetes.io/job-name"] == "again" && p.Status.ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("%s was restarted %d times, want once", p.Name, p.Status.ContainerStatuses[0].RestartCount)
		}
	}
	// A bare Pod runs to its end and stays ended.
	r.until(func() string {
		var p corev1.Pod
		if err := r.get(core+"/once", &p); err != nil {
			return err.Error()
		}
		if p.Status.Phase != corev1.PodSucceeded {
			return fmt.Sprintf("pod once is %s", p.Status.Phase)
		}
		return ""
	})
}
