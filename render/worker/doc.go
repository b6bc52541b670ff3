// Package worker renders in processes of their own, so that no text can take
// the controller's memory, time or reach with it.
//
//	sources ──Snapshot──► [ pool ═pipe═ worker: render/overlay ] ──Manifest──► reconciler
//
// A worker is this program again, started beforehand. It has limits of memory
// and processor time, and is killed and replaced when a render passes one. It
// asks for what it reads over its pipe: it opens no file, dials nobody and runs
// no program, which on Linux the kernel holds it to. Keys stay on this side of
// the pipe.
//
// In: what a render.Renderer gets. Out: the same Result as without a process,
// or a problem that names the limit. It refuses to know what is rendered.
package worker
