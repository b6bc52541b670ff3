// Broker is the double of Windows' compute and network services, for tests under
// Wine.
//
//	runtimes/hcs ──► stub DLLs ──TCP──► [ broker ] ──► processes in job objects
//
// It runs as a Windows program in the same Wine prefix as the agent under test,
// keeps its state in C:\hcstest, and so outlives the agent and can itself be
// killed and started again. A compute system is a job object; layers are
// directories. It models no silo, no isolation of files or network and no
// limits: a process sees the prefix's drives. Its standard input is whoever
// started it: when that ends, it kills what it runs and leaves.
package main
