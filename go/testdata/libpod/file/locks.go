// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

// Package file has the names that the tests of libpod's package file use, on lockmanager: go/check-libpod puts it in that
// package's place and runs them.
package file

import (
	"path/filepath"
	"strconv"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// FileLocks is a manager of a directory.
type FileLocks struct {
	manager lockmanager.Manager
	path    string
}

func of(path string, manager lockmanager.Manager, err error) (*FileLocks, error) {
	if err != nil {
		return nil, err
	}
	return &FileLocks{manager, path}, nil
}

// CreateFileLock makes a directory of locks.
func CreateFileLock(path string) (*FileLocks, error) {
	manager, err := lockmanager.NewFileLockManager(path)
	return of(path, manager, err)
}

// OpenFileLock opens a directory of locks.
func OpenFileLock(path string) (*FileLocks, error) {
	manager, err := lockmanager.OpenFileLockManager(path)
	return of(path, manager, err)
}

// Close closes the directory and removes it, as libpod's does.
func (l *FileLocks) Close() error {
	if err := l.manager.(lockmanager.ExtendedManager).Close(); err != nil {
		return err
	}
	return lockmanager.RemoveFile(l.path)
}

//lint:ignore U1000 the tests of libpod call it
func (l *FileLocks) getLockPath(id uint32) string {
	return filepath.Join(l.path, strconv.FormatUint(uint64(id), 10))
}

// AllocateLock allocates any lock.
func (l *FileLocks) AllocateLock() (uint32, error) {
	lock, err := l.manager.AllocateLock()
	if err != nil {
		return 0, err
	}
	return lock.ID(), nil
}

// AllocateGivenLock allocates that lock.
func (l *FileLocks) AllocateGivenLock(id uint32) error {
	_, err := l.manager.AllocateAndRetrieveLock(id)
	return err
}

// DeallocateLock frees a lock.
func (l *FileLocks) DeallocateLock(id uint32) error {
	return l.with(id, (*lockmanager.FileLock).Free)
}

// DeallocateAllLocks frees every lock.
func (l *FileLocks) DeallocateAllLocks() error { return l.manager.FreeAllLocks() }

// LockFileLock waits for a lock.
func (l *FileLocks) LockFileLock(id uint32) error { return l.with(id, (*lockmanager.FileLock).LockErr) }

// UnlockFileLock unlocks a lock.
func (l *FileLocks) UnlockFileLock(id uint32) error {
	return l.with(id, (*lockmanager.FileLock).UnlockErr)
}

func (l *FileLocks) with(id uint32, call func(*lockmanager.FileLock) error) error {
	lock, err := l.manager.RetrieveLock(id)
	if err != nil {
		return err
	}
	return call(lock.(*lockmanager.FileLock))
}
