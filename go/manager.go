// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// manager is the common part of all managers, whatever their storage.
type manager struct {
	// handle is the C library's manager; 0 once it is closed.
	handle atomic.Uintptr
	owner  clib.Owner
	reader reader
	// known is the number of locks when C was last asked. A storage never shrinks.
	known atomic.Uint32
	// heldBefore is the number of locks that LocksHeld found last.
	heldBefore atomic.Int64
	closing    sync.Mutex
	waiters    waitingRoom
	// locker makes a lock of the manager's own kind.
	locker func(*manager, uint32) Locker
}

func (m *manager) c() clib.Manager { return clib.Manager(m.handle.Load()) }

// start sets the manager up from the result of a constructor of the C library.
func (m *manager) start(op string, handle clib.Manager, failed *clib.Failure, owner clib.Owner, locker func(*manager, uint32) Locker) error {
	if failed != nil {
		return errorFor(m.reader, op, failed)
	}
	if owner == clib.Process {
		if failed := handle.OwnByProcess(); failed != nil {
			handle.Close()
			return errorFor(m.reader, op, failed)
		}
	}
	count, failed := handle.NumLocks()
	if failed != nil {
		handle.Close()
		return errorFor(m.reader, op, failed)
	}
	m.handle.Store(uintptr(handle))
	m.owner = owner
	m.known.Store(count)
	m.locker = locker
	return nil
}

// failed makes the error that a call of this manager returns.
func (m *manager) failed(op string, failed *clib.Failure) error {
	if failed != nil && failed.Errno == syscall.EINVAL && m.handle.Load() == 0 {
		return invalid(op, "the manager is closed; open it again")
	}
	return errorFor(m.reader, op, failed)
}

// AllocateLock allocates a lock: a number that nobody else gets until it is freed. ENOLCK: all are allocated.
func (m *manager) AllocateLock() (Locker, error) {
	id, failed := m.c().AllocateLock()
	if failed != nil {
		return nil, m.failed(opAllocate, failed)
	}
	return m.locker(m, id), nil
}

// RetrieveLock returns the lock with this number, allocated or not. If the number is beyond the known ones, it asks C again, so
// it also finds locks that another process has added. EINVAL: there is no such lock.
func (m *manager) RetrieveLock(id uint32) (Locker, error) {
	if id >= m.known.Load() || m.handle.Load() == 0 {
		if err := m.askAgain(id); err != nil {
			return nil, err
		}
	}
	return m.locker(m, id), nil
}

func (m *manager) askAgain(id uint32) error {
	if failed := m.c().RetrieveLock(id); failed != nil {
		return m.failed(opRetrieve, failed)
	}
	if count, failed := m.c().NumLocks(); failed == nil {
		m.learn(count)
	}
	return nil
}

func (m *manager) learn(count uint32) {
	for {
		known := m.known.Load()
		if count <= known || m.known.CompareAndSwap(known, count) {
			return
		}
	}
}

// AllocateAndRetrieveLock allocates the lock with this number. EEXIST: it is already allocated. EINVAL: there is no such lock.
func (m *manager) AllocateAndRetrieveLock(id uint32) (Locker, error) {
	if failed := m.c().AllocateAndRetrieveLock(id); failed != nil {
		return nil, m.failed(opAllocate, failed)
	}
	return m.locker(m, id), nil
}

// FreeAllLocks frees every number, for all processes. Held locks stay held. It is for tests and for renumbering, while no
// other process allocates.
func (m *manager) FreeAllLocks() error { return m.failed(opFreeAll, m.c().FreeAllLocks()) }

// AvailableLocks returns how many locks can still be allocated. nil: there is no maximum.
func (m *manager) AvailableLocks() (*uint32, error) {
	count, failed := m.c().AvailableLocks()
	if failed != nil {
		return nil, m.failed(opCount, failed)
	}
	if count == clib.Unlimited {
		return nil, nil
	}
	return &count, nil
}

// heldMargin is room for more held locks than were found last time, so that one call is nearly always enough.
const heldMargin = 64

// LocksHeld returns the numbers of all held locks in ascending order, or nil if no lock is held. It touches no lock.
func (m *manager) LocksHeld() ([]uint32, error) {
	for {
		ids := make([]uint32, m.heldBefore.Load()+heldMargin)
		count, failed := m.c().LocksHeld(ids)
		if failed != nil {
			return nil, m.failed(opList, failed)
		}
		m.heldBefore.Store(int64(count))
		if count == 0 {
			return nil, nil
		}
		if count <= len(ids) {
			return ids[:count:count], nil
		}
	}
}

// Info returns the state of the storage. It touches no lock.
func (m *manager) Info() (Info, error) {
	info, failed := m.c().Info()
	if failed != nil {
		return Info{}, m.failed(opLook, failed)
	}
	return infoOf(info), nil
}

// Grow grows the storage to this many locks while others use it. Every process that has a native segment open sees the new
// locks without opening it again. EINVAL: fewer locks than there are, or more than the maximum. ENOSPC: the file system is
// full; nothing has changed. EOPNOTSUPP: the number is fixed, as in the libpod layout.
func (m *manager) Grow(numLocks uint32) error {
	if failed := m.c().Grow(numLocks); failed != nil {
		return m.failed(opGrow, failed)
	}
	if count, failed := m.c().NumLocks(); failed == nil {
		m.learn(count)
	}
	return nil
}

// Close closes the manager; the storage stays. Closing it again returns nil. EBUSY: this process holds a lock through the
// manager, or a goroutine waits for one, and the manager stays open. As with free in C, no other call on the manager may run
// at the same time.
func (m *manager) Close() error {
	m.closing.Lock()
	defer m.closing.Unlock()
	if !m.waiters.empty() {
		return &Error{Op: opClose, Errno: syscall.EBUSY, text: "goroutines still wait for locks of this manager; let them return before closing it"}
	}
	if failed := m.c().Close(); failed != nil {
		return m.failed(opClose, failed)
	}
	m.handle.Store(0)
	return nil
}
