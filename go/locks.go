// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "github.com/lock-manager/lock-manager/go/internal/clib"

// Manager is a pool of numbered locks. All managers that are open on one storage, in any process, mean the same lock by the
// same number.
type Manager interface {
	// AllocateLock returns a lock that nobody else gets until it is freed. ENOLCK: all are allocated.
	AllocateLock() (Locker, error)
	// RetrieveLock returns the lock with this number, allocated or not. EINVAL: there is no such lock.
	RetrieveLock(id uint32) (Locker, error)
	// AllocateAndRetrieveLock allocates the lock with this number. EEXIST: it is already allocated. EINVAL: there is no such
	// lock.
	AllocateAndRetrieveLock(id uint32) (Locker, error)
	// FreeAllLocks frees every number, for all processes. Held locks stay held. It is for tests and for renumbering, while no
	// other process allocates.
	FreeAllLocks() error
	// AvailableLocks returns how many locks can still be allocated. nil: there is no maximum.
	AvailableLocks() (*uint32, error)
	// LocksHeld returns the numbers of all held locks in ascending order, or nil if no lock is held. It touches no lock.
	LocksHeld() ([]uint32, error)
}

// ExtendedManager is what every manager of this package can do beyond libpod's interface. The constructors with libpod's names
// return a [Manager], which also is an ExtendedManager.
type ExtendedManager interface {
	Manager
	// Info returns the state of the storage. It touches no lock.
	Info() (Info, error)
	// Grow grows the storage to this many locks while others use it. EOPNOTSUPP: the number is fixed, as in the libpod
	// layout.
	Grow(numLocks uint32) error
	// Close closes the manager; the storage stays. EBUSY: this process holds a lock through the manager, or waits for one.
	Close() error
}

// Locker is one lock of a manager. It is a [sync.Locker] that has a number, which can be freed.
type Locker interface {
	// ID is the number of the lock, by which other processes retrieve it.
	ID() uint32
	// Lock waits for the lock without limit. It does not report that the last holder died, and panics on every other error.
	Lock()
	// Unlock unlocks the lock, and panics if the caller does not hold it.
	Unlock()
	// Free frees the number, so that it can be allocated again. A held lock stays held, and the lock can still be used.
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

// Version returns the version of the C library that runs, such as "0.1.0".
func Version() string { return clib.Version() }
