// SPDX-License-Identifier: MIT OR Apache-2.0

// Package clib calls the C library. It is the only package that imports "C", and it makes no decisions.
package clib

import "syscall"

// Manager is a manager of the C library; 0 is none.
type Manager uintptr

// Cancel is a cancel object of the C library; 0 is none.
type Cancel uintptr

// Unlimited is the count if there is no maximum.
const Unlimited = ^uint32(0)

// Failure is the errno and the sentence of a call that failed.
type Failure struct {
	Errno syscall.Errno
	Text  string
	// Freed: an Unlock or UnlockShared failed, and the lock is free all the same.
	Freed bool
}

// Owner says who owns the locks of a manager.
type Owner uint32

// The numbers are how much a lock adds to what its thread holds.
const (
	Process Owner = 0
	Thread  Owner = 1
)

// Taken is the outcome of a lock call.
type Taken int

const (
	// Clean: the caller holds the lock now.
	Clean Taken = iota
	// OwnerDied: the caller holds the lock now, and its last holder died holding it.
	OwnerDied
	// Busy: this call did not take the lock, and the calling goroutine holds no lock at all.
	Busy
	// BusyForHolder: this call did not take the lock, and the calling goroutine holds this or another lock.
	BusyForHolder
)

// SHMOptions are the options for a new segment. Zero means the default.
type SHMOptions struct {
	Layout, MaxLocks, Mode uint32
}

// EtcdParty is lock_manager_etcd_party_t.
type EtcdParty struct {
	Holds, Here    bool
	PID, TID       int32
	Token, SinceNS uint64
	Host, Command  string
}

// EtcdOptions say how a cluster of etcd is used. Zero means the default.
type EtcdOptions struct {
	TTLSeconds, PatienceSeconds uint32
	ConfigFile, Host            string
}

// LockInfo is the state of one lock.
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

// Info is the state of a manager's storage.
type Info struct {
	Kind, Layout, NumLocks, MaxLocks, Attached uint32
	Retired                                    bool
}
