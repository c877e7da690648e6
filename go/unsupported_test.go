// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build !(linux && cgo)

package lockmanager_test

import (
	"errors"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

func TestWithoutCgoEveryConstructorIsENOSYS(t *testing.T) {
	for name, make := range map[string]func() (lockmanager.Manager, error){
		"NewSHM":        func() (lockmanager.Manager, error) { return lockmanager.NewSHMLockManager("/x", 1) },
		"OpenSHM":       func() (lockmanager.Manager, error) { return lockmanager.OpenSHMLockManager("/x", 1) },
		"OpenOrNewSHM":  func() (lockmanager.Manager, error) { return lockmanager.OpenOrNewSHMLockManager("/x", 1) },
		"NewFile":       func() (lockmanager.Manager, error) { return lockmanager.NewFileLockManager("/x") },
		"OpenFile":      func() (lockmanager.Manager, error) { return lockmanager.OpenFileLockManager("/x") },
		"OpenOrNewFile": func() (lockmanager.Manager, error) { return lockmanager.OpenOrNewFileLockManager("/x") },
		"NewInMemory":   func() (lockmanager.Manager, error) { return lockmanager.NewInMemoryManager(1) },
	} {
		if m, err := make(); m != nil || !errors.Is(err, syscall.ENOSYS) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}
