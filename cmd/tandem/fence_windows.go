package main

import (
	"github.com/tandem-gitops/tandem/runtimes/agent/fencer"
	"github.com/tandem-gitops/tandem/runtimes/hcs"
)

// fenceCells are the pods of the node whose runtime has a directory.
func fenceCells(dir string) (fencer.Cells, error) { return hcs.OpenCells(dir) }
