// Package output keeps what containers write: lines with time and stream.
//
//	container ──► runtime ──raw files──► [ output ] ──lines──► agent ──► people
//
// In: two files of each life of a container, stdout and stderr, to which the
// runtime appends bytes whether or not anybody reads them: so an application
// never waits for the agent, and loses nothing when the agent dies. Out: files
// of lines in the form that Kubernetes's log collectors read, rotated by size
//
//	2026-11-23T10:00:00.123456789Z stdout F the line
//
// (P instead of F: the line goes on in the next record, or has no end). It
// knows neither pods nor runtimes.
package output
