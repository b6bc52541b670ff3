// Package platform says which manifest of an image a node runs.
//
//	[ image index, node's OS, architecture, Windows build, isolation ] ──► manifest, or why none
//
// In: an image as it was looked up and a node's facts. Out: one of the image's
// platforms. The scheduler asks before it places a pod and the agent before it
// pulls, so both mean the same bytes; Microsoft's table of which build runs
// which is here, as data. It does no I/O and knows neither pods' state nor room.
package platform
