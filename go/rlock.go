// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"context"
	"runtime"
	"sync"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// RLock waits without limit until the lock can be held shared: any number of readers hold it at the same time, and nobody holds
// it exclusively meanwhile. It does not report that a writer died, and panics on every other error.
func (l *lock) RLock() {
	runtime.LockOSThread()
	if answer := l.manager.tryShared(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		if err := l.holdFrom(&shared, answer); err != nil && err != ErrOwnerDied {
			panic(err)
		}
	}
}

// RLockErr waits without limit until the lock can be held shared. nil or [ErrOwnerDied]: the caller holds it shared now.
//
// A waiting writer keeps later readers out, or it would starve. A stopped reader keeps its hold, so give writers a deadline.
//
// EDEADLK: the goroutine already holds the lock, exclusively or shared, or is in a cycle, as for LockErr. A reader that wants to
// write must unlock and then lock. EAGAIN: there is no room for one more reader; each lock has room for 4, and all locks share
// room for 8192 more. EOPNOTSUPP: the libpod layout, or a segment of format version 1. Otherwise as LockErr.
func (l *lock) RLockErr() error {
	runtime.LockOSThread()
	if answer := l.manager.tryShared(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		return l.holdFrom(&shared, answer)
	}
	return nil
}

// tryShared takes the lock shared if no writer holds it or is next. It is small, like try.
func (m *manager) tryShared(id uint32) clib.Answer { return m.c().TryLockShared(id, m.owner) }

// RLockContext waits as RLockErr does, until ctx is done. Otherwise it is like LockContext.
func (l *lock) RLockContext(ctx context.Context) error { return l.holdContext(&shared, ctx) }

// TryRLock takes the lock shared if no writer holds it or is next. False without an error: a writer holds it or is next, or the
// goroutine itself holds the lock. True with [ErrOwnerDied]: the caller holds it shared now, and a writer died.
func (l *lock) TryRLock() (bool, error) { return l.tryHold(&shared) }

// RUnlock unlocks a lock that is held shared, and panics on every error.
func (l *lock) RUnlock() {
	if answer := l.manager.giveBackShared(l.id); !answer.IsClean() {
		panic(l.refused(&shared, answer.Failure()))
	}
	l.manager.unpinOwner()
}

// RUnlockErr unlocks a lock that is held shared. EPERM: the caller does not hold it, or holds it exclusively.
func (l *lock) RUnlockErr() error {
	if answer := l.manager.giveBackShared(l.id); !answer.IsClean() {
		return l.refused(&shared, answer.Failure())
	}
	l.manager.unpinOwner()
	return nil
}

// giveBackShared unlocks the lock if the caller holds it shared. It is small, like try.
func (m *manager) giveBackShared(id uint32) clib.Answer { return m.c().UnlockShared(id, m.owner) }

// Downgrade turns an exclusive hold into a shared one. Nobody else can hold the lock exclusively in between. Waiting readers
// get in. Unlock it with RUnlock.
//
// EPERM: the caller does not hold the lock exclusively. EAGAIN: there is no room for one more reader. After an error the lock
// is held as before.
func (l *lock) Downgrade() error { return l.manager.failed(opDowngrade, l.manager.c().Downgrade(l.id)) }

// RLocker returns a [sync.Locker] whose Lock is RLock and whose Unlock is RUnlock.
func (l *lock) RLocker() sync.Locker { return (*rlocker)(l) }

type rlocker lock

func (r *rlocker) Lock()   { (*lock)(r).RLock() }
func (r *rlocker) Unlock() { (*lock)(r).RUnlock() }

// holdersMargin is room for more holders than were found, so that one more call is nearly always enough.
const holdersMargin = 16

// Holders returns the holders of the lock, exclusive or shared, without those that are known to be dead, or nil if there is
// none. It touches no lock. EOPNOTSUPP: the libpod layout; Info names the holder there.
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
