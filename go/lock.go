// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"context"
	"runtime"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// lock is what the locks of all managers have in common.
type lock struct {
	manager *manager
	id      uint32
}

// ID is the lock's number, by which other processes retrieve it.
func (l *lock) ID() uint32 { return l.id }

// Lock waits for the lock without end. That its last holder died is not told; every other error is a panic.
func (l *lock) Lock() {
	runtime.LockOSThread()
	if answer := l.manager.try(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		if err := l.holdFrom(&exclusively, answer); err != nil && err != ErrOwnerDied {
			panic(err)
		}
	}
}

// LockErr waits for the lock without end. nil or [ErrOwnerDied]: it is held now.
//
// EDEADLK: the goroutine holds it, exclusively or shared, or, elsewhere than in the libpod layout, it is in a cycle of goroutines and processes
// that wait for each other; the text names the locks and their holders, and what the goroutine holds it still holds.
// ESTALE: the storage was removed. ENOTRECOVERABLE: the lock's state is lost.
func (l *lock) LockErr() error {
	runtime.LockOSThread()
	if answer := l.manager.try(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		return l.holdFrom(&exclusively, answer)
	}
	return nil
}

// try takes the lock if it is free. Called with the goroutine pinned, because the thread that takes a lock is its owner.
// Small, so that it is inlined: next to a foreign call, each call of Go's own is felt.
func (m *manager) try(id uint32) clib.Answer { return m.c().TryLock(id, m.owner) }

// LockContext is LockErr until ctx is done; it returns within 10 ms then. A context that is done already wins over a
// free lock. Its error unwraps to that of ctx and to ECANCELED, or ETIMEDOUT where a deadline has passed.
func (l *lock) LockContext(ctx context.Context) error { return l.holdContext(&exclusively, ctx) }

// TryLock takes the lock if it is free; false without an error: somebody holds it, exclusively or shared. True with [ErrOwnerDied]: it is
// held now, and its last holder died.
func (l *lock) TryLock() (bool, error) { return l.tryHold(&exclusively) }

// Unlock gives the lock back. Every error is a panic.
func (l *lock) Unlock() {
	if answer := l.manager.giveBack(l.id); !answer.IsClean() {
		panic(l.refused(&exclusively, answer.Failure()))
	}
	l.manager.unpinOwner()
}

// UnlockErr gives the lock back. EPERM: the caller does not hold it, or holds it shared. After an error of the storage,
// such as EIO, it is free all the same, but the next to take it is told [ErrOwnerDied].
func (l *lock) UnlockErr() error {
	if answer := l.manager.giveBack(l.id); !answer.IsClean() {
		return l.refused(&exclusively, answer.Failure())
	}
	l.manager.unpinOwner()
	return nil
}

// giveBack gives the lock back if the caller holds it. Small, as try is.
func (m *manager) giveBack(id uint32) clib.Answer { return m.c().Unlock(id, m.owner) }

// Free gives the number back to the pool. The lock can still be used, and stays held if it is. ENOENT: it is not
// allocated.
func (l *lock) Free() error { return l.manager.failed(opFree, l.manager.c().FreeLock(l.id)) }

// Info tells what is known of the lock. It touches no lock.
func (l *lock) Info() (LockInfo, error) {
	info, failed := l.manager.c().LockInfo(l.id)
	if failed != nil {
		return LockInfo{}, l.manager.failed(opLook, failed)
	}
	return lockInfoOf(info), nil
}

// Repair marks the lock if its holder is provably dead, so that the next to take it is told [ErrOwnerDied]; nil also
// where there was nothing to do. EBUSY: the holder lives, or cannot be judged.
func (l *lock) Repair() error { return l.manager.failed(opRepair, l.manager.c().RepairLock(l.id)) }
