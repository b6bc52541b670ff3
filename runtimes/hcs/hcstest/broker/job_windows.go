package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// newJob makes or finds the job object that a container is, by the name that
// Windows gives it.
func newJob(id string) (windows.Handle, error) {
	name, err := windows.NewNTUnicodeString(`\Container_` + id)
	if err != nil {
		return 0, err
	}
	const openIf, allAccess = 0x80, 0x1f003f
	attributes := windows.OBJECT_ATTRIBUTES{ObjectName: name, Attributes: openIf}
	attributes.Length = uint32(unsafe.Sizeof(attributes))
	var job windows.Handle
	status, _, _ := windows.NewLazySystemDLL("ntdll.dll").NewProc("NtCreateJobObject").Call(uintptr(unsafe.Pointer(&job)), allAccess, uintptr(unsafe.Pointer(&attributes)))
	if int32(status) < 0 { // what was there already is a success too
		return 0, windows.NTStatus(status)
	}
	return job, nil
}

// hold lets a process keep the job's name while it lives, as a silo's own
// processes do, whatever becomes of the services.
func hold(job, process windows.Handle) {
	var there windows.Handle
	if err := windows.DuplicateHandle(windows.CurrentProcess(), job, process, &there, 0, false, windows.DUPLICATE_SAME_ACCESS); err != nil {
		fmt.Fprintln(os.Stderr, "broker: let a process hold its job:", err)
	}
}
