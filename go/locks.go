// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "github.com/lock-manager/lock-manager/go/internal/clib"

// Manager is a pool of numbered locks. All managers opened on one storage, in any process, mean the same lock by the
// same number.
type Manager interface {
	// AllocateLock returns a lock that nobody else gets until it is freed. ENOLCK: all are allocated.
	AllocateLock() (Locker, error)
	// RetrieveLock returns the lock of that number, allocated or not. EINVAL: there is none.
	RetrieveLock(id uint32) (Locker, error)
	// AllocateAndRetrieveLock allocates the lock of that number. EEXIST: it is allocated. EINVAL: there is none.
	AllocateAndRetrieveLock(id uint32) (Locker, error)
	// FreeAllLocks frees every number, of all processes; held locks stay held. It is for tests and for renumbering,
	// when no other process is allocating.
	FreeAllLocks() error
	// AvailableLocks says how many locks can still be allocated; nil: there is no maximum.
	AvailableLocks() (*uint32, error)
	// LocksHeld returns the numbers of the locks that somebody holds, ascending; nil if none is. It touches no lock.
	LocksHeld() ([]uint32, error)
}

// ExtendedManager is what every manager of this package can do beyond libpod's. The constructors that libpod has as well
// return a [Manager], which is one of these.
type ExtendedManager interface {
	Manager
	// Info tells what is known of the storage. It touches no lock.
	Info() (Info, error)
	// Grow makes room for that many locks while others work. EOPNOTSUPP: the number is fixed, as in the libpod layout.
	Grow(numLocks uint32) error
	// Close closes the manager; the storage stays. EBUSY: this process holds a lock through it, or waits for one.
	Close() error
}

// Locker is one lock of a manager. It is a [sync.Locker] that has a number and can be given back.
type Locker interface {
	// ID is the lock's number, by which other processes retrieve it.
	ID() uint32
	// Lock waits for the lock without end, and panics if it cannot be had. That the last holder died is not told.
	Lock()
	// Unlock gives the lock back, and panics if the caller does not hold it.
	Unlock()
	// Free gives the number back to the pool. The lock can still be used, and stays held if it is.
	Free() error
}

var (
	_ ExtendedManager = (*SHMLockManager)(nil)
	_ ExtendedManager = (*FileLockManager)(nil)
	_ ExtendedManager = (*InMemoryManager)(nil)
	_ Locker          = (*SHMLock)(nil)
	_ Locker          = (*FileLock)(nil)
	_ Locker          = (*Mutex)(nil)
)

// Version is the version of the C library that runs, such as "0.1.0".
func Version() string { return clib.Version() }
