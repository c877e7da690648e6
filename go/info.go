// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"time"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// LockInfo is what is known of one lock.
type LockInfo struct {
	ID        uint32
	Allocated bool
	// Held: somebody holds it, exclusively or shared.
	Held bool
	// OwnerDied: the last to hold it exclusively died, and nobody has taken it so since.
	OwnerDied bool
	// PID and TID are the holder's, or the first reader's, as this process's PID namespace sees them; 0 if unknown.
	PID, TID int
	// PIDNamespace is the holder's, as the inode number of /proc/PID/ns/pid; 0 if unknown.
	PIDNamespace uint64
	// ProcessOwned: it belongs to the holder's process, not to its thread.
	ProcessOwned bool
	// Waiters counts the threads known to wait; 0 where the storage does not say. Goroutines that queue in Go are not
	// among them.
	Waiters uint32
	// Acquisitions is how often it was acquired; 0 where not counted.
	Acquisitions uint64
	// Waited is how long the longest present waiter has waited, so that the lock is held at least that long.
	Waited time.Duration
	// Readers is how many hold it shared.
	Readers uint32
	// Draining: a writer, one of the waiters, waits for the readers to leave, and keeps later ones out.
	Draining bool
}

// LockHolder is one of those who hold a lock.
type LockHolder struct {
	// PID and TID are the holder's, as this process's PID namespace sees them; 0 if unknown. TID is 0 also where the
	// process owns the lock.
	PID, TID int
	// PIDNamespace is the holder's, as the inode number of /proc/PID/ns/pid; 0 if unknown.
	PIDNamespace uint64
	// Shared: it holds the lock shared, else exclusively.
	Shared bool
	// ProcessOwned: it belongs to the holder's process, not to its thread.
	ProcessOwned bool
}

// Kind is where the locks are.
type Kind uint32

const (
	SHM      Kind = 0
	File     Kind = 1
	InMemory Kind = 2
)

// Info is what is known of a manager's storage.
type Info struct {
	Kind Kind
	// Layout is that of a segment, else 0.
	Layout Layout
	// NumLocks and MaxLocks: how many locks there are, and may come to be; the largest uint32 where there is no maximum.
	NumLocks, MaxLocks uint32
	// Attached counts the processes that have it open; 0 where the storage does not say.
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
