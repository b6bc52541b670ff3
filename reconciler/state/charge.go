package state

// HyperVOverhead is what a Hyper-V guest takes beside what its pod asks for:
// hcsshim's default utility VM (internal/uvm/create.go), 1024 MB and two
// processors.
func HyperVOverhead() Resources { return Resources{MilliCPU: 2000, Memory: 1024 << 20} }

// Charge is what a pod takes of a node when it is kept apart in a given way.
func Charge(requests Resources, iso Isolation) Resources {
	if iso == HyperV {
		return requests.Add(HyperVOverhead())
	}
	return requests
}
