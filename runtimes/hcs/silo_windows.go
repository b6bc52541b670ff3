package hcs

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/tandem-gitops/tandem/runtimes"
)

const (
	jobTerminate    = 0x0008 // JOB_OBJECT_TERMINATE
	jobQuery        = 0x0004 // JOB_OBJECT_QUERY
	basicAccounting = 1      // JobObjectBasicAccountingInformation

	exitFenced = 1067 // ERROR_PROCESS_ABORTED
)

// accounting is JOBOBJECT_BASIC_ACCOUNTING_INFORMATION.
type accounting struct {
	userTime, kernelTime, periodUserTime, periodKernelTime       int64
	pageFaults, totalProcesses, activeProcesses, totalTerminated uint32
}

// siloName is the job object that a container with process isolation is. The
// name is Windows' own; hcsshim reads statistics by it. Only SYSTEM may open it.
func siloName(id string) string { return `\Container_` + id }

// killSilo kills what runs in a container past the compute service, and returns
// when nothing does. It says how many processes ran.
func killSilo(id string) (int, error) {
	job, err := openJob(siloName(id))
	if err != nil {
		return 0, fmt.Errorf("open the job object of container %s: %w: %w", id, runtimes.ErrUnavailable, err)
	}
	defer closeHandles(job)
	first := -1
	for end := time.Now().Add(shutLimit); ; time.Sleep(shutPause) {
		var a accounting
		if err := windows.QueryInformationJobObject(job, basicAccounting, uintptr(unsafe.Pointer(&a)), uint32(unsafe.Sizeof(a)), nil); err != nil {
			return 0, fmt.Errorf("count the processes of container %s: %w: %w", id, runtimes.ErrUnavailable, err)
		}
		if first < 0 {
			first = int(a.activeProcesses)
		}
		if a.activeProcesses == 0 {
			return first, nil
		}
		if time.Now().After(end) {
			return first, fmt.Errorf("kill container %s: %w: %d processes are left", id, runtimes.ErrUnavailable, a.activeProcesses)
		}
		if err := windows.TerminateJobObject(job, exitFenced); err != nil {
			return 0, fmt.Errorf("kill container %s: %w: %w", id, runtimes.ErrUnavailable, err)
		}
	}
}

func openJob(name string) (windows.Handle, error) {
	text, err := windows.NewNTUnicodeString(name)
	if err != nil {
		return 0, err
	}
	attributes := windows.OBJECT_ATTRIBUTES{ObjectName: text}
	attributes.Length = uint32(unsafe.Sizeof(attributes))
	var job windows.Handle
	if status := ntOpenJobObject(&job, jobTerminate|jobQuery, &attributes); status != 0 {
		return 0, windows.NTStatus(status)
	}
	return job, nil
}
