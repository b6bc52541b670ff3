// Package sim is the other driver of the machine: a made-up world from a seed.
//
//	          ┌──────────── seed ───────────┐
//	[ sim: clock, disk, network, nodes, faults ( machine, agents' machines ) ] ──► laws
//
// In: a seed and a scenario. Out: a trace, and the first law that was broken.
// The machine and the agents' step machines are the real ones; the disk, the
// network and the containers are made up, and break on request. It is single
// threaded, and everything random comes from the seed: the same seed gives the
// same trace.
package sim
