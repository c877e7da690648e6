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

// way is a way to hold a lock, exclusively or shared: the C functions for it, and the names of the operations.
type way struct {
	op, tryOp, unlockOp string
	try                 func(clib.Manager, uint32, clib.Owner) clib.Answer
	wait                func(clib.Manager, uint32, clib.Owner) (clib.Taken, *clib.Failure)
	waitUntil           func(clib.Manager, uint32, clib.Owner, clib.Cancel) (clib.Taken, *clib.Failure)
	// turns is how many goroutines wait in C at a time for one lock of one manager.
	turns int
}

// One writer gets in at a time. Readers that starve get in together, but only those that wait in C, each on a thread.
const (
	writersInC = 1
	readersInC = 16
)

var exclusively = way{
	op: opLock, tryOp: opTryLock, unlockOp: opUnlock, try: clib.Manager.TryLock,
	wait: clib.Manager.Lock, waitUntil: clib.Manager.CancellableLock, turns: writersInC,
}

var shared = way{
	op: opRLock, tryOp: opTryRLock, unlockOp: opRUnlock, try: clib.Manager.TryLockShared,
	wait: clib.Manager.LockShared, waitUntil: clib.Manager.CancellableLockShared, turns: readersInC,
}

// holdFrom completes a lock call after its try. The goroutine is pinned.
func (l *lock) holdFrom(w *way, answer clib.Answer) error {
	return l.finish(w, answer, func() (clib.Taken, *clib.Failure, error) {
		taken, failed := w.wait(l.manager.c(), l.id, l.manager.owner)
		return taken, failed, nil
	}, context.Background())
}

func (l *lock) holdContext(w *way, ctx context.Context) error {
	if ctx.Err() != nil {
		return l.cancelled(w, ctx)
	}
	runtime.LockOSThread()
	answer := w.try(l.manager.c(), l.id, l.manager.owner)
	return l.finish(w, answer, func() (clib.Taken, *clib.Failure, error) { return l.waitUntilDone(w, ctx) }, ctx)
}

func (l *lock) tryHold(w *way) (bool, error) {
	m := l.manager
	runtime.LockOSThread()
	taken, failed := w.try(m.c(), l.id, m.owner).Taken()
	switch {
	case failed != nil:
		runtime.UnlockOSThread()
		return false, m.failed(w.tryOp, failed)
	case taken == clib.Busy || taken == clib.BusyForHolder:
		runtime.UnlockOSThread()
		return false, nil
	}
	return true, m.acquired(taken)
}

// refused completes an unlock that failed.
func (l *lock) refused(w *way, failed *clib.Failure) error {
	if failed.Freed {
		l.manager.unpinOwner()
	}
	return l.manager.failed(w.unlockOp, failed)
}

// finish completes a lock call after its try. The goroutine is pinned; wait waits in C.
func (l *lock) finish(w *way, answer clib.Answer, wait func() (clib.Taken, *clib.Failure, error), ctx context.Context) error {
	m := l.manager
	taken, failed := answer.Taken()
	var err error
	if failed == nil && taken == clib.Busy {
		// The goroutine queues unpinned: its thread does not own anything yet.
		runtime.UnlockOSThread()
		q, ok := m.waiters.enter(l.id, w, ctx.Done())
		if !ok {
			return l.cancelled(w, ctx)
		}
		defer m.waiters.leave(q)
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
			return l.cancelled(w, ctx)
		}
		return m.failed(w.op, failed)
	}
	return m.acquired(taken)
}

// waitUntilDone waits in C until ctx is done.
func (l *lock) waitUntilDone(w *way, ctx context.Context) (clib.Taken, *clib.Failure, error) {
	m := l.manager
	if ctx.Done() == nil {
		taken, failed := w.wait(m.c(), l.id, m.owner)
		return taken, failed, nil
	}
	cancel, failed := clib.NewCancel()
	if failed != nil {
		return 0, nil, m.failed(w.op, failed)
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
		// Now neither the wait nor the trigger uses the object.
		cancel.Free()
	}()
	taken, failed := w.waitUntil(m.c(), l.id, m.owner, cancel)
	return taken, failed, nil
}

func (l *lock) cancelled(w *way, ctx context.Context) error {
	cause := ctx.Err()
	errno := syscall.ECANCELED
	if errors.Is(cause, context.DeadlineExceeded) {
		errno = syscall.ETIMEDOUT
	}
	return &cancelledError{
		failed: &Error{Op: w.op, Errno: errno, text: "the wait for lock " + strconv.FormatUint(uint64(l.id), 10) + " ended without the lock"},
		cause:  cause,
	}
}

// acquired completes a call that has taken the lock.
func (m *manager) acquired(taken clib.Taken) error {
	m.unpinUnlessOwner()
	if taken == clib.OwnerDied {
		return ErrOwnerDied
	}
	return nil
}

// unpinUnlessOwner unpins the goroutine unless its thread owns the lock that it has taken.
func (m *manager) unpinUnlessOwner() {
	if m.owner == clib.Process {
		runtime.UnlockOSThread()
	}
}

// unpinOwner unpins the goroutine if its thread owned the lock.
func (m *manager) unpinOwner() {
	if m.owner == clib.Thread {
		runtime.UnlockOSThread()
	}
}
