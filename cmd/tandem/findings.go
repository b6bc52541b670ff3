package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"strings"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

// findings are what validate found, by application.
type findings struct {
	apps     []appFindings
	warnings []state.Problem
	unread   []string // kustomizations that nothing reads
}

type appFindings struct {
	name     string
	objects  int
	problems []state.Problem
}

func (f *findings) problems() []state.Problem {
	out := []state.Problem{}
	for i := range f.apps {
		out = append(out, f.apps[i].problems...)
	}
	return state.SortProblems(out)
}

func (f *findings) objects() int {
	n := 0
	for i := range f.apps {
		n += f.apps[i].objects
	}
	return n
}

// sarif is a log of SARIF 2.1.0 (OASIS), as code hosts show beside a change.
type sarif struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool    sarifTool     `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID    string    `json:"id"`
	Short sarifText `json:"shortDescription"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	Rule      string          `json:"ruleId"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations,omitempty"`
}

type sarifLocation struct {
	Physical sarifPhysical `json:"physicalLocation"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
	Region   *sarifRegion  `json:"region,omitempty"` // absent where the line isn't known
}

type sarifArtifact struct {
	URI  string `json:"uri"`
	Base string `json:"uriBaseId"`
}

type sarifRegion struct {
	Line int32 `json:"startLine"`
	Col  int32 `json:"startColumn,omitempty"`
}

func (f *findings) sarif(version string) ([]byte, error) {
	run := sarifRun{Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "tandem", Version: version, Rules: []sarifRule{
		{"problem", sarifText{"nothing of the commit is applied while it is there"}},
		{"warning", sarifText{"worth saying, and no reason to refuse the commit"}},
		{"unread", sarifText{"a kustomization that no Application reads"}},
	}}
	add := func(rule, level string, p state.Problem) {
		at := p.At
		p.At = state.Origin{} // it is beside the text
		r := sarifResult{Rule: rule, Level: level, Message: sarifText{p.Error()}}
		if at.Path != "" {
			where := sarifPhysical{Artifact: sarifArtifact{(&url.URL{Path: at.Path}).String(), "%SRCROOT%"}}
			if at.Line > 0 {
				where.Region = &sarifRegion{at.Line, at.Col}
			}
			r.Locations = []sarifLocation{{where}}
		}
		run.Results = append(run.Results, r)
	}
	for _, p := range f.problems() {
		add("problem", "error", p)
	}
	for _, p := range f.warnings {
		add("warning", "warning", p)
	}
	for _, path := range f.unread {
		add("unread", "note", state.Problem{At: state.Origin{Path: path}, Cause: "no Application reads this kustomization", Remedy: "name it in one, or remove it"})
	}
	return json.MarshalIndent(sarif{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}}, "", "  ")
}

// junit is a report as test runners write it: one case for each application.
type junit struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

func (f *findings) junit() ([]byte, error) {
	suite := junitSuite{Name: "tandem validate", Tests: len(f.apps)}
	for i := range f.apps {
		a := &f.apps[i]
		c := junitCase{Name: a.name, Class: "tandem.validate"}
		if len(a.problems) > 0 {
			var text strings.Builder
			for _, p := range state.SortProblems(a.problems) {
				text.WriteString(p.Error() + "\n")
			}
			c.Failure = &junitFailure{Message: fmt.Sprintf("%d problems", len(a.problems)), Type: "problem", Text: text.String()}
			suite.Failures++
		}
		suite.Cases = append(suite.Cases, c)
	}
	raw, err := xml.MarshalIndent(junit{Suites: []junitSuite{suite}}, "", "  ")
	return append([]byte(xml.Header), raw...), err
}
