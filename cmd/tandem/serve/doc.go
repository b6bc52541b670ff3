// Package serve puts a controller together: the log, the machine's shell, the
// sources, the agents' hub, this machine's nodes and the API.
//
//	[ serve: sources ──► render ──► act ──► hub ──► agents ]
//	                                 └──► kubeapi
//
// In: a data directory and what to follow. Out: a process that runs until its
// context ends. It decides nothing; it is where the parts meet.
package serve
