package overlay

import "time"

// Limits of one render, so that no text can make it slow or large.
const (
	MaxFileBytes    = 4 << 20          // a file that a render reads
	MaxReadBytes    = 64 << 20         // all files of a render
	MaxOutputBytes  = 64 << 20         // the rendered YAML of one operating system
	MaxObjects      = 20_000           // objects of one operating system
	MaxApplications = 20_000           // directories that an ApplicationSet finds
	MaxDirectories  = 2_000            // kustomizations that a render reads, each time counted
	MaxNesting      = 64               // kustomizations below one another
	MaxRounds       = 16               // renders until no new pair is found
	MaxProblems     = 500              // that a Result lists
	MaxTime         = 30 * time.Second // checked at each read and between steps
)
