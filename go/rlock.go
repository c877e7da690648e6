// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"context"
	"runtime"
	"sync"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// RLock waits without end until the lock can be held shared: beside any number of others that hold it shared, while nobody
// holds it exclusively. That a writer died is not told; every other error is a panic.
func (l *lock) RLock() {
	runtime.LockOSThread()
	if answer := l.manager.tryShared(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		if err := l.holdFrom(&shared, answer); err != nil && err != ErrOwnerDied {
			panic(err)
		}
	}
}

// RLockErr waits without end until the lock can be held shared. nil or [ErrOwnerDied]: it is held shared now.
//
// A writer that waits keeps later readers out, so as not to starve, and a reader that was stopped keeps its hold: a writer
// is best given a deadline. EDEADLK: the goroutine holds the lock already, exclusively or shared, or is in a cycle, as for
// LockErr; to become a writer, unlock and lock. EAGAIN: there is no room for one more reader: 4 for each lock, and 8192 more
// in all. EOPNOTSUPP: the libpod layout, or a segment of format version 1. Otherwise as LockErr.
func (l *lock) RLockErr() error {
	runtime.LockOSThread()
	if answer := l.manager.tryShared(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		return l.holdFrom(&shared, answer)
	}
	return nil
}

// tryShared takes the lock shared if no writer has it or is next. Small, as try is.
func (m *manager) tryShared(id uint32) clib.Answer { return m.c().TryLockShared(id, m.owner) }

// RLockContext is RLockErr until ctx is done, as LockContext is LockErr.
func (l *lock) RLockContext(ctx context.Context) error { return l.holdContext(&shared, ctx) }

// TryRLock takes the lock shared if no writer has it or is next; false without an error: one is, or the goroutine holds the
// lock. True with [ErrOwnerDied]: it is held shared now, and a writer died.
func (l *lock) TryRLock() (bool, error) { return l.tryHold(&shared) }

// RUnlock gives back a lock that is held shared. Every error is a panic.
func (l *lock) RUnlock() {
	if answer := l.manager.giveBackShared(l.id); !answer.IsClean() {
		panic(l.refused(&shared, answer.Failure()))
	}
	l.manager.unpinOwner()
}

// RUnlockErr gives back a lock that is held shared. EPERM: the caller does not hold it, or holds it exclusively.
func (l *lock) RUnlockErr() error {
	if answer := l.manager.giveBackShared(l.id); !answer.IsClean() {
		return l.refused(&shared, answer.Failure())
	}
	l.manager.unpinOwner()
	return nil
}

// giveBackShared gives the lock back if the caller holds it shared. Small, as try is.
func (m *manager) giveBackShared(id uint32) clib.Answer { return m.c().UnlockShared(id, m.owner) }

// Downgrade makes what is held exclusively a shared hold, without a gap in which somebody else could have the lock
// exclusively; RUnlock gives it back. Readers that wait get in.
//
// EPERM: the caller does not hold it exclusively. EAGAIN: there is no room for one more reader. After every error it is
// held as it was.
func (l *lock) Downgrade() error { return l.manager.failed(opDowngrade, l.manager.c().Downgrade(l.id)) }

// RLocker returns a [sync.Locker] whose Lock is RLock, and whose Unlock is RUnlock.
func (l *lock) RLocker() sync.Locker { return (*rlocker)(l) }

type rlocker lock

func (r *rlocker) Lock()   { (*lock)(r).RLock() }
func (r *rlocker) Unlock() { (*lock)(r).RUnlock() }

// Room for holders beyond those that were found, so that one call more is nearly always enough.
const holdersMargin = 16

// Holders returns those who hold the lock, exclusively or shared, as far as they are not known to be dead; nil if nobody
// does. It touches no lock. EOPNOTSUPP: the libpod layout, where Info names the holder.
func (l *lock) Holders() ([]LockHolder, error) {
	for room := holdersMargin; ; {
		found, count, failed := l.manager.c().LockHolders(l.id, room)
		if failed != nil {
			return nil, l.manager.failed(opLook, failed)
		}
		if count <= room {
			return lockHoldersOf(found), nil
		}
		room = count + holdersMargin
	}
}
