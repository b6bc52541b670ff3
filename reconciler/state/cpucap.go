package state

// wholeMachine is the hard cap of a Windows job object without a limit.
const wholeMachine = 10000

// CPUMaximum is a limit in thousandths of a core as a Windows job object takes
// it (JOBOBJECT_CPU_RATE_CONTROL_INFORMATION): a hard cap in hundredths of a
// per cent of the whole machine, cut to an integer, and 1 at least.
func CPUMaximum(milli int64, cores int) int64 {
	return min(max(10*milli/int64(max(cores, 1)), 1), wholeMachine)
}

// CPUCap is what becomes of a limit on a Windows machine, in ten-thousandths of a
// core: on many cores a small limit is coarse.
func CPUCap(milli int64, cores int) int64 {
	return CPUMaximum(milli, cores) * int64(max(cores, 1))
}
