// SPDX-License-Identifier: MIT OR Apache-2.0

// Package clib is the door to the C library: the only one that imports "C". Nothing here decides anything.
package clib

import "syscall"

// Manager is a manager of the C library; 0 is none.
type Manager uintptr

// Cancel is a cancel object of the C library; 0 is none.
type Cancel uintptr

// Unlimited is what counts say where there is no maximum.
const Unlimited = ^uint32(0)

// Failure is what the C library says about a call that failed.
type Failure struct {
	Errno syscall.Errno
	Text  string
	// Freed: it was an Unlock or UnlockShared, and the lock is free all the same.
	Freed bool
}

// Owner says whom a manager's locks belong to.
type Owner uint32

// The numbers are how much a lock adds to what its thread holds.
const (
	Process Owner = 0
	Thread  Owner = 1
)

// Taken says how a lock was found.
type Taken int

const (
	// Clean: it is held now.
	Clean Taken = iota
	// OwnerDied: it is held now, and its last holder died with it.
	OwnerDied
	// Busy: it is not held by this call, and the calling goroutine holds no lock at all.
	Busy
	// BusyForHolder: it is not held by this call, and the calling goroutine holds this or another lock.
	BusyForHolder
)

// SHMOptions is how a new segment is to be made; zero means the default.
type SHMOptions struct {
	Layout, MaxLocks, Mode uint32
}

// LockInfo is what is known of one lock.
type LockInfo struct {
	ID                                    uint32
	Allocated, Held, OwnerDied, ByProcess bool
	PID, TID                              int32
	Waiters, Readers                      uint32
	Acquisitions, PIDNamespace, WaitedNS  uint64
	// Draining: a writer waits for the readers to leave.
	Draining bool
}

// Holder is one holder of a lock.
type Holder struct {
	PID, TID          int32
	Shared, ByProcess bool
	PIDNamespace      uint64
}

// Info is what is known of a manager's storage.
type Info struct {
	Kind, Layout, NumLocks, MaxLocks, Attached uint32
	Retired                                    bool
}
