// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

// Package shm has the names that the tests of libpod's package shm use, on lockmanager: go/check-libpod puts it in that
// package's place and runs them.
package shm

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// BitmapSize is what the number of locks is rounded up to a multiple of.
var BitmapSize = uint32(32)

// SHMLocks is a manager of a segment.
type SHMLocks struct{ manager *lockmanager.SHMLockManager }

func of(manager lockmanager.Manager, err error) (*SHMLocks, error) {
	if err != nil {
		return nil, err
	}
	return &SHMLocks{manager.(*lockmanager.SHMLockManager)}, nil
}

// CreateSHMLock creates a segment.
func CreateSHMLock(path string, numLocks uint32) (*SHMLocks, error) {
	return of(lockmanager.NewSHMLockManager(path, numLocks))
}

// OpenSHMLock opens a segment.
func OpenSHMLock(path string, numLocks uint32) (*SHMLocks, error) {
	return of(lockmanager.OpenSHMLockManager(path, numLocks))
}

// GetMaxLocks is how many locks there are.
func (l *SHMLocks) GetMaxLocks() uint32 {
	info, err := l.manager.Info()
	if err != nil {
		panic(err)
	}
	return info.NumLocks
}

// Close closes the segment, which stays. libpod's closes it with locks held as well, and a test of its does so.
func (l *SHMLocks) Close() error {
	if err := l.manager.Close(); !errors.Is(err, syscall.EBUSY) {
		return err
	}
	return nil
}

// AllocateSemaphore allocates any lock.
func (l *SHMLocks) AllocateSemaphore() (uint32, error) {
	lock, err := l.manager.AllocateLock()
	if err != nil {
		return 0, err
	}
	return lock.ID(), nil
}

// AllocateGivenSemaphore allocates that lock.
func (l *SHMLocks) AllocateGivenSemaphore(id uint32) error {
	_, err := l.manager.AllocateAndRetrieveLock(id)
	return err
}

// DeallocateSemaphore frees a lock.
func (l *SHMLocks) DeallocateSemaphore(id uint32) error {
	return l.with(id, (*lockmanager.SHMLock).Free)
}

// DeallocateAllSemaphores frees every lock.
func (l *SHMLocks) DeallocateAllSemaphores() error { return l.manager.FreeAllLocks() }

// LockSemaphore waits for a lock.
func (l *SHMLocks) LockSemaphore(id uint32) error { return l.with(id, (*lockmanager.SHMLock).LockErr) }

// UnlockSemaphore unlocks a lock.
func (l *SHMLocks) UnlockSemaphore(id uint32) error {
	return l.with(id, (*lockmanager.SHMLock).UnlockErr)
}

// GetFreeLocks counts the locks that are not allocated.
func (l *SHMLocks) GetFreeLocks() (uint32, error) {
	free, err := l.manager.AvailableLocks()
	if err != nil {
		return 0, err
	}
	return *free, nil
}

// GetTakenLocks lists the locks that are held.
func (l *SHMLocks) GetTakenLocks() ([]uint32, error) { return l.manager.LocksHeld() }

func (l *SHMLocks) with(id uint32, call func(*lockmanager.SHMLock) error) error {
	lock, err := l.manager.RetrieveLock(id)
	if err != nil {
		return err
	}
	return call(lock.(*lockmanager.SHMLock))
}

//lint:ignore U1000 the tests of libpod call it
func unlinkSHMLock(path string) error { return os.Remove(filepath.Join("/dev/shm", path)) }
