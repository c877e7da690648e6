// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"time"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// LockInfo is the state of one lock.
type LockInfo struct {
	ID        uint32
	Allocated bool
	// Held: somebody holds the lock, exclusively or shared.
	Held bool
	// OwnerDied: the last exclusive holder died, and nobody has held the lock exclusively since.
	OwnerDied bool
	// PID and TID are the process id and thread id of the holder, or of the first reader, as this process's PID namespace
	// sees them; 0 if unknown.
	PID, TID int
	// PIDNamespace is the PID namespace of the holder, as the inode number of /proc/PID/ns/pid; 0 if unknown.
	PIDNamespace uint64
	// ProcessOwned: the lock belongs to the holder's process, not to its thread.
	ProcessOwned bool
	// Waiters is the number of threads known to wait; 0 if the storage does not say. Goroutines that queue in Go do not
	// count.
	Waiters uint32
	// Acquisitions is how often the lock was acquired exclusively; 0 if the storage does not count.
	Acquisitions uint64
	// Waited is for how long the longest waiter has waited. The lock has been held at least that long.
	Waited time.Duration
	// Readers is the number of readers that hold the lock.
	Readers uint32
	// Draining: a writer waits for the readers to leave and keeps later readers out. It counts as a waiter.
	Draining bool
}

// LockHolder is one holder of a lock.
type LockHolder struct {
	// PID and TID are its process id and thread id, as this process's PID namespace sees them; 0 if unknown. TID is also 0
	// if the process owns the lock.
	PID, TID int
	// PIDNamespace is its PID namespace, as the inode number of /proc/PID/ns/pid; 0 if unknown.
	PIDNamespace uint64
	// Shared: it holds the lock shared and not exclusively.
	Shared bool
	// ProcessOwned: the lock belongs to its process, not to its thread.
	ProcessOwned bool
}

// Kind is the kind of storage that the locks are in.
type Kind uint32

const (
	SHM      Kind = 0
	File     Kind = 1
	InMemory Kind = 2
	// Backend: another library keeps the locks, for several machines.
	Backend Kind = 3
)

// Info is the state of a manager's storage.
type Info struct {
	Kind Kind
	// Layout is the layout of a segment, else 0.
	Layout Layout
	// NumLocks is the number of locks, and MaxLocks the number that the storage may grow to. The largest uint32 means that
	// there is no maximum.
	NumLocks, MaxLocks uint32
	// Attached is the number of processes that have the storage open; 0 if the storage does not say.
	Attached uint32
	// Retired: the storage was removed.
	Retired bool
}

func lockInfoOf(info clib.LockInfo) LockInfo {
	return LockInfo{
		ID: info.ID, Allocated: info.Allocated, Held: info.Held, OwnerDied: info.OwnerDied,
		PID: int(info.PID), TID: int(info.TID), PIDNamespace: info.PIDNamespace, ProcessOwned: info.ByProcess,
		Waiters: info.Waiters, Acquisitions: info.Acquisitions, Waited: time.Duration(info.WaitedNS),
		Readers: info.Readers, Draining: info.Draining,
	}
}

func lockHoldersOf(found []clib.Holder) []LockHolder {
	var holders []LockHolder
	for _, holder := range found {
		holders = append(holders, LockHolder{
			PID: int(holder.PID), TID: int(holder.TID), PIDNamespace: holder.PIDNamespace,
			Shared: holder.Shared, ProcessOwned: holder.ByProcess,
		})
	}
	return holders
}

func infoOf(info clib.Info) Info {
	return Info{
		Kind: Kind(info.Kind), Layout: Layout(info.Layout), NumLocks: info.NumLocks, MaxLocks: info.MaxLocks,
		Attached: info.Attached, Retired: info.Retired,
	}
}
