// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"context"
	"runtime"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// lock is the common part of the locks of all managers.
type lock struct {
	manager *manager
	id      uint32
}

// ID is the number of the lock, by which other processes retrieve it.
func (l *lock) ID() uint32 { return l.id }

// Lock waits for the lock without limit. It does not report that the last holder died, and panics on every other error.
func (l *lock) Lock() {
	runtime.LockOSThread()
	if answer := l.manager.try(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		if err := l.holdFrom(&exclusively, answer); err != nil && err != ErrOwnerDied {
			panic(err)
		}
	}
}

// LockErr waits for the lock without limit. nil or [ErrOwnerDied]: the caller holds the lock now.
//
// EDEADLK: the goroutine already holds the lock, exclusively or shared, or (except in the libpod layout) it is in a cycle of
// goroutines and processes that wait for each other. Then the text names the locks and their holders, and the goroutine still
// holds what it held. ESTALE: the storage was removed. ENOTRECOVERABLE: the state of the lock is lost.
func (l *lock) LockErr() error {
	runtime.LockOSThread()
	if answer := l.manager.try(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		return l.holdFrom(&exclusively, answer)
	}
	return nil
}

// try takes the lock if it is free. The goroutine must be pinned, because the thread that takes a lock owns it. try is small
// so that it is inlined: beside a foreign call, each call within Go costs noticeable time.
func (m *manager) try(id uint32) clib.Answer { return m.c().TryLock(id, m.owner) }

// LockContext waits as LockErr does, until ctx is done; then it returns, normally within 10 ms. If ctx is already done, it fails even if
// the lock is free. Its error unwraps to the error of ctx, and to ECANCELED, or ETIMEDOUT if the deadline has passed.
func (l *lock) LockContext(ctx context.Context) error { return l.holdContext(&exclusively, ctx) }

// TryLock takes the lock if it is free. False without an error: somebody holds the lock, exclusively or shared. True with
// [ErrOwnerDied]: the caller holds the lock now, and its last holder died.
func (l *lock) TryLock() (bool, error) { return l.tryHold(&exclusively) }

// Unlock unlocks the lock, and panics on every error.
func (l *lock) Unlock() {
	if answer := l.manager.giveBack(l.id); !answer.IsClean() {
		panic(l.refused(&exclusively, answer.Failure()))
	}
	l.manager.unpinOwner()
}

// UnlockErr unlocks the lock. EPERM: the caller does not hold it, or holds it shared. After an error of the storage, such as
// EIO, the lock is free all the same, but the next holder is told [ErrOwnerDied].
func (l *lock) UnlockErr() error {
	if answer := l.manager.giveBack(l.id); !answer.IsClean() {
		return l.refused(&exclusively, answer.Failure())
	}
	l.manager.unpinOwner()
	return nil
}

// giveBack unlocks the lock if the caller holds it. It is small, like try.
func (m *manager) giveBack(id uint32) clib.Answer { return m.c().Unlock(id, m.owner) }

// Free frees the number of the lock, so that it can be allocated again. A held lock stays held, and the lock can still be
// used. ENOENT: it is not allocated.
func (l *lock) Free() error { return l.manager.failed(opFree, l.manager.c().FreeLock(l.id)) }

// Info returns the state of the lock. It touches no lock.
func (l *lock) Info() (LockInfo, error) {
	info, failed := l.manager.c().LockInfo(l.id)
	if failed != nil {
		return LockInfo{}, l.manager.failed(opLook, failed)
	}
	return lockInfoOf(info), nil
}

// Repair marks the lock if its holder is provably dead, so that the next holder is told [ErrOwnerDied]. It returns nil also if
// there was nothing to do. EBUSY: the holder is alive, or cannot be judged.
func (l *lock) Repair() error { return l.manager.failed(opRepair, l.manager.c().RepairLock(l.id)) }
