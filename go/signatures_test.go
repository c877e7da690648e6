// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager_test

import (
	"sync"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// libpod's names with libpod's signatures: this compiles, or the package cannot take the place of libpod's.
var (
	_ func(lockmanager.Manager) (lockmanager.Locker, error)         = lockmanager.Manager.AllocateLock
	_ func(lockmanager.Manager, uint32) (lockmanager.Locker, error) = lockmanager.Manager.RetrieveLock
	_ func(lockmanager.Manager, uint32) (lockmanager.Locker, error) = lockmanager.Manager.AllocateAndRetrieveLock
	_ func(lockmanager.Manager) error                               = lockmanager.Manager.FreeAllLocks
	_ func(lockmanager.Manager) (*uint32, error)                    = lockmanager.Manager.AvailableLocks
	_ func(lockmanager.Manager) ([]uint32, error)                   = lockmanager.Manager.LocksHeld

	_ func(lockmanager.Locker) uint32 = lockmanager.Locker.ID
	_ func(lockmanager.Locker)        = lockmanager.Locker.Lock
	_ func(lockmanager.Locker)        = lockmanager.Locker.Unlock
	_ func(lockmanager.Locker) error  = lockmanager.Locker.Free
)

// Whoever implements libpod's Manager and Locker implements these: they ask for nothing more.
type (
	libpodManager struct{}
	libpodLocker  struct{}
)

func (libpodManager) AllocateLock() (lockmanager.Locker, error)                  { return nil, nil }
func (libpodManager) RetrieveLock(uint32) (lockmanager.Locker, error)            { return nil, nil }
func (libpodManager) AllocateAndRetrieveLock(uint32) (lockmanager.Locker, error) { return nil, nil }
func (libpodManager) FreeAllLocks() error                                        { return nil }
func (libpodManager) AvailableLocks() (*uint32, error)                           { return nil, nil }
func (libpodManager) LocksHeld() ([]uint32, error)                               { return nil, nil }

func (libpodLocker) ID() uint32  { return 0 }
func (libpodLocker) Lock()       {}
func (libpodLocker) Unlock()     {}
func (libpodLocker) Free() error { return nil }

var (
	_ lockmanager.Manager = libpodManager{}
	_ lockmanager.Locker  = libpodLocker{}
)

// rwMutex is what a [sync.RWMutex] does: a lock of this package can take its place.
type rwMutex interface {
	sync.Locker
	RLock()
	RUnlock()
	RLocker() sync.Locker
}

var (
	_ rwMutex = (*sync.RWMutex)(nil)
	_ rwMutex = (*lockmanager.SHMLock)(nil)
	_ rwMutex = (*lockmanager.FileLock)(nil)
	_ rwMutex = (*lockmanager.Mutex)(nil)
)
