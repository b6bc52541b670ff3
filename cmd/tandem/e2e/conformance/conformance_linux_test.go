package conformance

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
)

// beside is how many checks go on at a time: they mostly wait.
const beside = "16"

func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		if err := flag.Set("test.parallel", beside); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// checks are all, by area.
func checks() map[string][]check {
	return map[string][]check{
		"configs": fileChecks("ConfigMap"), "dirs": emptyDirChecks(), "hooks": hookChecks(), "host": hostChecks(), "streams": streamChecks(), "names": nameChecks(), "network": networkChecks(), "pods": podChecks(),
		"probes": probeChecks(), "projected": projectedChecks(), "registry": registryChecks(), "runtime": runtimeChecks(), "secrets": fileChecks("Secret"), "security": securityChecks(),
		"services": serviceChecks(),
	}
}

// TestConformance starts three nodes and holds them to each check.
func TestConformance(t *testing.T) {
	c := start(t)
	t.Run("checks", func(t *testing.T) {
		all := checks()
		var areas []string
		for area := range all {
			areas = append(areas, area)
		}
		slices.Sort(areas)
		for _, area := range areas {
			for i, one := range all[area] {
				t.Run(one.name, func(t *testing.T) {
					t.Parallel()
					one.run(&kit{T: t, c: c, ns: fmt.Sprintf("%s-%d", area, i+1)})
				})
			}
		}
	})
}
