// Package helm renders a Helm chart from files in memory, with Helm's own
// engine, as `helm template` would.
//
//	sources ──Snapshot──► overlay ──files──► [ helm ] ──documents──► overlay ──► manifest
//
// In: the files of a chart and values. Out: the documents of its templates, or
// where a template failed. It refuses to know a cluster, the network, the
// clock and chance: the same files give the same bytes on any machine, so a
// function that would ask one of them is an error when a template calls it.
package helm
