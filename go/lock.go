// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"syscall"

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
		if err := l.lockFrom(answer); err != nil && err != ErrOwnerDied {
			panic(err)
		}
	}
}

// LockErr waits for the lock without end. nil or [ErrOwnerDied]: it is held now.
//
// EDEADLK: the goroutine holds it, or, elsewhere than in the libpod layout, it is in a cycle of goroutines and processes
// that wait for each other; the text names the locks and their holders, and what the goroutine holds it still holds.
// ESTALE: the storage was removed. ENOTRECOVERABLE: the lock's state is lost.
func (l *lock) LockErr() error {
	runtime.LockOSThread()
	if answer := l.manager.try(l.id); !answer.IsClean() || l.manager.owner != clib.Thread {
		return l.lockFrom(answer)
	}
	return nil
}

// try takes the lock if it is free. Called with the goroutine pinned, because the thread that takes a lock is its owner.
// Small, so that it is inlined: next to a foreign call, each call of Go's own is felt.
func (m *manager) try(id uint32) clib.Answer { return m.c().TryLock(id, m.owner) }

// lockFrom ends what a try has begun.
func (l *lock) lockFrom(answer clib.Answer) error {
	taken, failed := answer.Taken()
	return l.finish(taken, failed, func() (clib.Taken, *clib.Failure, error) {
		taken, failed := l.manager.c().Lock(l.id, l.manager.owner)
		return taken, failed, nil
	}, context.Background())
}

// LockContext is LockErr until ctx is done; it returns within 10 ms then. A context that is done already wins over a
// free lock. Its error unwraps to that of ctx and to ECANCELED, or ETIMEDOUT where a deadline has passed.
func (l *lock) LockContext(ctx context.Context) error {
	if ctx.Err() != nil {
		return l.cancelled(ctx)
	}
	runtime.LockOSThread()
	taken, failed := l.manager.try(l.id).Taken()
	return l.finish(taken, failed, func() (clib.Taken, *clib.Failure, error) { return l.waitUntilDone(ctx) }, ctx)
}

// TryLock takes the lock if it is free; false without an error: it is held, by whomever. True with [ErrOwnerDied]: it is
// held now, and its last holder died.
func (l *lock) TryLock() (bool, error) {
	m := l.manager
	runtime.LockOSThread()
	taken, failed := l.manager.try(l.id).Taken()
	switch {
	case failed != nil:
		runtime.UnlockOSThread()
		return false, m.failed(opTryLock, failed)
	case taken == clib.Busy || taken == clib.BusyForHolder:
		runtime.UnlockOSThread()
		return false, nil
	}
	return true, m.acquired(taken)
}

// Unlock gives the lock back. Every error is a panic.
func (l *lock) Unlock() {
	if answer := l.manager.giveBack(l.id); !answer.IsClean() {
		panic(l.refused(answer.Failure()))
	}
	l.manager.unpinOwner()
}

// UnlockErr gives the lock back. EPERM: the caller does not hold it. After an error of the storage, such as EIO, it is free
// all the same, but the next to take it is told [ErrOwnerDied].
func (l *lock) UnlockErr() error {
	if answer := l.manager.giveBack(l.id); !answer.IsClean() {
		return l.refused(answer.Failure())
	}
	l.manager.unpinOwner()
	return nil
}

func (l *lock) refused(failed *clib.Failure) error {
	if failed.Freed {
		l.manager.unpinOwner()
	}
	return l.manager.failed(opUnlock, failed)
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

// finish ends what a try has begun, on a goroutine that is pinned. wait waits in C.
func (l *lock) finish(taken clib.Taken, failed *clib.Failure, wait func() (clib.Taken, *clib.Failure, error), ctx context.Context) error {
	m := l.manager
	var err error
	if failed == nil && taken == clib.Busy {
		// Queued without the thread: it is not the owner of anything yet.
		runtime.UnlockOSThread()
		q, ok := m.waiters.enter(l.id, ctx.Done())
		if !ok {
			return l.cancelled(ctx)
		}
		defer m.waiters.leave(l.id, q)
		runtime.LockOSThread()
		taken, failed, err = wait()
	} else if failed == nil && taken == clib.BusyForHolder {
		taken, failed, err = wait()
	}
	switch {
	case err != nil:
		runtime.UnlockOSThread()
		return err
	case failed != nil:
		runtime.UnlockOSThread()
		if failed.Errno == syscall.ECANCELED && ctx.Err() != nil {
			return l.cancelled(ctx)
		}
		return m.failed(opLock, failed)
	}
	return m.acquired(taken)
}

// waitUntilDone waits in C until ctx is done.
func (l *lock) waitUntilDone(ctx context.Context) (clib.Taken, *clib.Failure, error) {
	m := l.manager
	if ctx.Done() == nil {
		taken, failed := m.c().Lock(l.id, m.owner)
		return taken, failed, nil
	}
	cancel, failed := clib.NewCancel()
	if failed != nil {
		return 0, nil, m.failed(opLock, failed)
	}
	returned := make(chan struct{})
	defer close(returned)
	go func() {
		select {
		case <-ctx.Done():
			cancel.Trigger()
			<-returned
		case <-returned:
		}
		// Neither the wait nor the trigger uses the object any more.
		cancel.Free()
	}()
	taken, failed := m.c().CancellableLock(l.id, m.owner, cancel)
	return taken, failed, nil
}

func (l *lock) cancelled(ctx context.Context) error {
	cause := ctx.Err()
	errno := syscall.ECANCELED
	if errors.Is(cause, context.DeadlineExceeded) {
		errno = syscall.ETIMEDOUT
	}
	return &cancelledError{
		failed: &Error{Op: opLock, Errno: errno, text: "the wait for lock " + strconv.FormatUint(uint64(l.id), 10) + " was ended"},
		cause:  cause,
	}
}

// acquired ends a call that has taken the lock.
func (m *manager) acquired(taken clib.Taken) error {
	m.unpinUnlessOwner()
	if taken == clib.OwnerDied {
		return ErrOwnerDied
	}
	return nil
}

// unpinUnlessOwner leaves the goroutine pinned if the lock it has taken is its thread's.
func (m *manager) unpinUnlessOwner() {
	if m.owner == clib.Process {
		runtime.UnlockOSThread()
	}
}

// unpinOwner ends what a lock of the goroutine's has begun.
func (m *manager) unpinOwner() {
	if m.owner == clib.Thread {
		runtime.UnlockOSThread()
	}
}
