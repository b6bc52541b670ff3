package bootclock

import (
	"crypto/rand"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// Now is the time since the machine was booted, with that which it slept.
func Now() time.Duration { return windows.DurationSinceBoot() }

const (
	bootKey  = `SOFTWARE\TandemBoot`
	bootName = "ID"
	bootWait = 2 * time.Second // for another process that has made the key and not yet its value
)

// ID names this boot of the machine. Windows has no name for it, so the first
// who asks makes one up and puts it where Windows forgets it at the next boot: into a
// volatile key of the registry. The time of the boot would be none: it changes
// whenever the wall clock is set.
func ID() (string, error) {
	id, err := bootID()
	if err != nil {
		return "", fmt.Errorf(`name this boot in HKEY_LOCAL_MACHINE\%s: %w`, bootKey, err)
	}
	return id, nil
}

func bootID() (string, error) {
	k, made, err := volatileKey(bootKey)
	if err != nil {
		return "", err
	}
	defer k.Close()
	for end := time.Now().Add(bootWait); !made; time.Sleep(5 * time.Millisecond) {
		id, _, err := k.GetStringValue(bootName)
		if err == nil && id != "" {
			return id, nil
		}
		if err != nil && !errors.Is(err, registry.ErrNotExist) {
			return "", err
		}
		made = time.Now().After(end) // who made the key has ended before it named the boot
	}
	id := rand.Text()
	return id, k.SetStringValue(bootName, id)
}

// volatileKey makes a key that is gone after the next boot, or finds it.
func volatileKey(path string) (k registry.Key, made bool, err error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, false, err
	}
	const volatile, createdNew = 1, 1 // REG_OPTION_VOLATILE, REG_CREATED_NEW_KEY
	var h windows.Handle
	var disposition uint32
	status, _, _ := windows.NewLazySystemDLL("advapi32.dll").NewProc("RegCreateKeyExW").Call(uintptr(windows.HKEY_LOCAL_MACHINE), uintptr(unsafe.Pointer(name)),
		0, 0, volatile, registry.QUERY_VALUE|registry.SET_VALUE, 0, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&disposition)))
	if status != 0 {
		return 0, false, syscall.Errno(status)
	}
	return registry.Key(h), disposition == createdNew, nil
}
