// Package sim is the other driver of the machine: a made-up world from a seed.
//
//	          ┌──────────── seed ───────────┐
//	[ sim: clock, disk, network, nodes, faults ( machine, agents' machines ) ] ──► laws
//
// In: a seed and a scenario. Out: a trace, and the first law that was broken.
// Laws are checked after every step (laws.go): one life of an identity at a
// time, OS and room of every node, budgets, order, partitions, leases, what is
// gone does not run, one revision has one meaning, incremental planning equals
// full planning, one log has one state. When faults stop, all becomes as Git
// says, and then nothing more is written. TestMutations of package reconciler
// plants defects and sees that a law notices each.
//
// The machine and the agents' step machines are the real ones; the disk, the
// network and the containers are made up, and break on request. It is single
// threaded, and everything random comes from the seed: the same seed gives the
// same trace.
package sim
