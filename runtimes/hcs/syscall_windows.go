package hcs

import "golang.org/x/sys/windows"

//go:generate go run golang.org/x/sys/windows/mkwinsyscall -output zsyscall_windows.go syscall_windows.go

// Handles of computecore.dll.
type (
	operationHandle windows.Handle
	systemHandle    windows.Handle
	processHandle   windows.Handle
)

// processInformation is HCS_PROCESS_INFORMATION.
type processInformation struct {
	pid      uint32
	_        uint32
	in       windows.Handle
	out, err windows.Handle
}

// Calls that work on an operation return at once; their documents are copied
// before that. Results are CoTaskMem strings.
//
//sys	hcsCreateOperation(context uintptr, callback uintptr) (operation operationHandle) = computecore.HcsCreateOperation
//sys	hcsCloseOperation(operation operationHandle) = computecore.HcsCloseOperation
//sys	hcsCancelOperation(operation operationHandle) (hr uint32) = computecore.HcsCancelOperation
//sys	hcsWaitForOperationResult(operation operationHandle, timeout uint32, result **uint16) (hr uint32) = computecore.HcsWaitForOperationResult
//sys	hcsWaitForOperationResultAndProcessInfo(operation operationHandle, timeout uint32, info *processInformation, result **uint16) (hr uint32) = computecore.HcsWaitForOperationResultAndProcessInfo
//sys	hcsEnumerateComputeSystems(query *uint16, operation operationHandle) (hr uint32) = computecore.HcsEnumerateComputeSystems
//sys	hcsCreateComputeSystem(id *uint16, document *uint16, operation operationHandle, security uintptr, system *systemHandle) (hr uint32) = computecore.HcsCreateComputeSystem
//sys	hcsOpenComputeSystem(id *uint16, access uint32, system *systemHandle) (hr uint32) = computecore.HcsOpenComputeSystem
//sys	hcsCloseComputeSystem(system systemHandle) = computecore.HcsCloseComputeSystem
//sys	hcsStartComputeSystem(system systemHandle, operation operationHandle, options *uint16) (hr uint32) = computecore.HcsStartComputeSystem
//sys	hcsShutDownComputeSystem(system systemHandle, operation operationHandle, options *uint16) (hr uint32) = computecore.HcsShutDownComputeSystem
//sys	hcsTerminateComputeSystem(system systemHandle, operation operationHandle, options *uint16) (hr uint32) = computecore.HcsTerminateComputeSystem
//sys	hcsGetComputeSystemProperties(system systemHandle, operation operationHandle, query *uint16) (hr uint32) = computecore.HcsGetComputeSystemProperties
//sys	hcsSetComputeSystemCallback(system systemHandle, options uint32, context uintptr, callback uintptr) (hr uint32) = computecore.HcsSetComputeSystemCallback
//sys	hcsCreateProcess(system systemHandle, parameters *uint16, operation operationHandle, security uintptr, process *processHandle) (hr uint32) = computecore.HcsCreateProcess
//sys	hcsOpenProcess(system systemHandle, pid uint32, access uint32, process *processHandle) (hr uint32) = computecore.HcsOpenProcess
//sys	hcsCloseProcess(process processHandle) = computecore.HcsCloseProcess
//sys	hcsTerminateProcess(process processHandle, operation operationHandle, options *uint16) (hr uint32) = computecore.HcsTerminateProcess
//sys	hcsGetProcessProperties(process processHandle, operation operationHandle, query *uint16) (hr uint32) = computecore.HcsGetProcessProperties
//sys	hcsModifyProcess(process processHandle, operation operationHandle, settings *uint16) (hr uint32) = computecore.HcsModifyProcess
//sys	hcsSetProcessCallback(process processHandle, options uint32, context uintptr, callback uintptr) (hr uint32) = computecore.HcsSetProcessCallback

//sys	globalMemoryStatus(status *memoryStatus) (err error) = kernel32.GlobalMemoryStatusEx
//sys	ntOpenJobObject(job *windows.Handle, access uint32, attributes *windows.OBJECT_ATTRIBUTES) (status uint32) = ntdll.NtOpenJobObject
