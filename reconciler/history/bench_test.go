package history_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tandem-gitops/tandem/reconciler/history"
)

// syncFloor is what one append to a file and fsync cost here and now.
func syncFloor(b *testing.B, size int) time.Duration {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "floor"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, size)
	const rounds = 200
	start := time.Now()
	for range rounds {
		if _, err := f.Write(buf); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / rounds
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 10, 100, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			floor := syncFloor(b, 150*n)
			s := open(b, b.TempDir(), history.Options{})
			h := s.Head()
			var spent time.Duration
			rounds := 0
			for b.Loop() {
				b.StopTimer()
				batch := batchAfter(h, n)
				b.StartTimer()
				start := time.Now()
				var err error
				if h, err = s.Append(context.Background(), h, batch); err != nil {
					b.Fatal(err)
				}
				spent += time.Since(start)
				rounds++
			}
			b.ReportMetric(float64(n*rounds)/spent.Seconds(), "records/s")
			b.ReportMetric(float64(spent)/float64(rounds)/float64(floor), "floors")
		})
	}
}

func million(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	s := open(b, dir, history.Options{})
	for s.Head().Seq < 1 || int(s.Head().Seq) < n {
		add(b, s, 500)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

func BenchmarkReplay(b *testing.B) {
	const n = 1_000_000
	dir := million(b, n)
	for b.Loop() {
		start := time.Now()
		s, err := history.Open(dir, history.Options{})
		if err != nil {
			b.Fatal(err)
		}
		opened := time.Since(start)
		read := 0
		for _, err := range s.Read(context.Background(), 1) {
			if err != nil {
				b.Fatal(err)
			}
			read++
		}
		if read != n {
			b.Fatal(read)
		}
		b.ReportMetric(opened.Seconds()*1000, "open-ms")
		b.ReportMetric(time.Since(start).Seconds()*1000, "ms")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	const n = 300_000
	dir := million(b, n)
	for b.Loop() {
		start := time.Now()
		r, err := history.Verify(context.Background(), dir, history.VerifyOptions{})
		if err != nil || r.Records != n {
			b.Fatal(r, err)
		}
		b.ReportMetric(n/time.Since(start).Seconds(), "records/s")
	}
}

func BenchmarkProve(b *testing.B) {
	dir := million(b, 300_000)
	s := open(b, dir, history.Options{ReadOnly: true})
	for b.Loop() {
		if _, err := s.Prove(123_456); err != nil {
			b.Fatal(err)
		}
	}
}
