// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

func TestRLockContextTakesALockThatOthersRead(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		defer reading(t, l)()
		for _, ctx := range []context.Context{context.Background(), lastingContext(t)} {
			must(t, l.RLockContext(ctx))
			if info := infoOf(t, l); info.Readers != 2 {
				t.Fatalf("%+v of a lock that two goroutines read", info)
			}
			must(t, l.RUnlockErr())
		}
		wantError(t, l.RLockContext(endedContext()), context.Canceled)
		if info := infoOf(t, l); info.Readers != 1 {
			t.Fatalf("%+v, though a context that is done wins", info)
		}
	})
}

func TestRLockContextWaitsForAWriterToUnlock(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		ctx := lastingContext(t)
		// Each on the thread that has read before: it must not be taken for one that holds anything yet.
		orders, got := make(chan struct{}), make(chan error)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for range orders {
				err := l.RLockContext(ctx)
				if info, failed := l.Info(); err == nil && (failed != nil || info.Readers != 1) {
					t.Errorf("%+v, %v of a lock that one reads", info, failed)
				}
				if err == nil {
					err = l.RUnlockErr()
				}
				got <- err
			}
		}()
		for i := 0; i < 2; i++ {
			release := heldElsewhere(t, l.LockErr, l.UnlockErr)
			orders <- struct{}{}
			eventually(t, "it waits like one that holds nothing", func() bool { return lockmanager.WaitingToRead(l) == 1 })
			release()
			must(t, outcome(t, "a reader that waited", got))
		}
		close(orders)
	})
}

func TestCancellationEndsEveryWaitToRead(t *testing.T) {
	// Some wait in C, the others for the turn to.
	const waiters = lockmanager.ReadersInC + 10
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan error, waiters)
		for i := 0; i < waiters; i++ {
			go func() { got <- l.RLockContext(ctx) }()
		}
		eventually(t, "all wait", func() bool { return lockmanager.WaitingToRead(l) == waiters })
		cancel()
		for i := 0; i < waiters; i++ {
			err := outcome(t, "a wait that was cancelled", got)
			wantError(t, err, context.Canceled)
			wantError(t, err, syscall.ECANCELED)
		}
		l.Unlock()
		if info := infoOf(t, l); info.Held || info.Waiters != 0 || lockmanager.WaitingToRead(l) != 0 {
			t.Errorf("%+v of a lock that nobody holds or waits for", info)
		}
		pass(l)
	})
}

func TestADeadlineEndsAWaitToReadWhereverItIs(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		defer l.Unlock()
		wait := func(where string) {
			elsewhere(t, func() {
				err := l.RLockContext(endingContext(t))
				if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.ETIMEDOUT) {
					t.Errorf("%s: got %v", where, err)
				}
			})
		}
		wait("in C")
		leave := lockmanager.TakeTurnsToRead(l)
		wait("for the turn")
		wantError(t, m.Close(), syscall.EBUSY)
		leave()
	})
}

// A writer that waits in C, and writers that queue in Go behind it, must not keep a reader from being seen to.
func TestReadersDoNotQueueInGoBehindWriters(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		leave := lockmanager.TakeTurn(l)
		defer leave()
		release := heldElsewhere(t, l.LockErr, l.UnlockErr)
		reader := waitsToRead(t, l)
		release()
		must(t, outcome(t, "a reader, while a writer has the turn", reader))
	})
}

// Those who hold a lock are pinned, each to a thread of its own, unless the process owns it.
func TestThousandsOfReadersThatWaitNeedFewThreads(t *testing.T) {
	goroutines, few := crowd()
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t, lockmanager.WithProcessOwnership())
		l := allocated(t, m)
		l.Lock()
		before := threads(t)
		var all sync.WaitGroup
		var read atomic.Int32
		for i := 0; i < goroutines; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				if err := l.RLockErr(); err != nil {
					t.Error(err)
					return
				}
				read.Add(1)
				l.RUnlock()
			}()
		}
		eventually(t, "all wait", func() bool { return lockmanager.WaitingToRead(l) == goroutines })
		eventually(t, "some wait in C", func() bool { return infoOf(t, l).Waiters == lockmanager.ReadersInC })
		if n := threads(t); n >= before+few {
			t.Errorf("%d threads for %d goroutines that wait, after %d", n, goroutines, before)
		}
		l.Unlock()
		within(t, "a crowd", allDone(&all))
		if n := read.Load(); int(n) != goroutines {
			t.Errorf("%d of %d have read", n, goroutines)
		}
		if n := threads(t); n >= before+few {
			t.Errorf("%d threads after %d goroutines have waited, after %d", n, goroutines, before)
		}
	})
}

func TestAGoroutineThatEndsReadingIsToldToNobody(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		elsewhere(t, l.RLock)
		elsewhere(t, func() {
			l.Lock()
			if err := l.Downgrade(); err != nil {
				t.Error(err)
			}
		})
		must(t, l.LockErr())
		l.Unlock()
	})
}

func TestEveryReaderIsToldThatAWriterDiedUntilOneHasTakenTheLock(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		elsewhere(t, l.Lock)
		if err := l.RLockErr(); err != lockmanager.ErrOwnerDied {
			t.Fatalf("the first reader was told %v", err)
		}
		elsewhere(t, func() {
			if taken, err := l.TryRLock(); !taken || err != lockmanager.ErrOwnerDied {
				t.Errorf("the second reader was told %v, %v", taken, err)
				return
			}
			if info, err := l.Info(); err != nil || info.Readers != 2 || !info.OwnerDied {
				t.Errorf("%+v, %v of a lock that two read and whose writer died", info, err)
			}
			l.RUnlock()
		})
		l.RUnlock()
		if err := l.RLockContext(lastingContext(t)); err != lockmanager.ErrOwnerDied {
			t.Fatalf("the third reader was told %v", err)
		}
		l.RUnlock()
		// It swallows the news, and changes nothing.
		pass(l.RLocker())
		if err := l.LockErr(); err != lockmanager.ErrOwnerDied {
			t.Fatalf("the writer was told %v", err)
		}
		// Told once, and it hands on what it has mended.
		must(t, l.Downgrade())
		elsewhere(t, func() {
			if err := l.RLockErr(); err != nil {
				t.Errorf("a reader beside the writer that mended was told %v", err)
				return
			}
			l.RUnlock()
		})
		l.RUnlock()
		must(t, l.RLockErr())
		l.RUnlock()
		must(t, l.LockErr())
		l.Unlock()
	})
}

func TestLocksThatTheProcessReadsCanBeGivenBackByAnyGoroutine(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t, lockmanager.WithProcessOwnership())
		l := allocated(t, m)
		elsewhere(t, func() {
			l.RLock()
			l.RLock() // as the exclusive lock's, a second hold of the process is none of a deadlock
			if pinned() {
				t.Error("pinned, though the process owns the lock")
			}
		})
		if info := infoOf(t, l); info.Readers != 2 || !info.ProcessOwned {
			t.Errorf("%+v of a lock that the process reads twice", info)
		}
		holders, err := l.Holders()
		if err != nil || len(holders) != 2 || !holders[0].ProcessOwned || holders[0].TID != 0 || !holders[1].Shared {
			t.Errorf("%+v, %v", holders, err)
		}
		wantError(t, l.LockContext(endingContext(t)), syscall.ETIMEDOUT)
		must(t, l.RUnlockErr())
		must(t, l.RUnlockErr())
		wantError(t, l.RUnlockErr(), syscall.EPERM)

		elsewhere(t, l.Lock)
		must(t, l.Downgrade())
		elsewhere(t, func() {
			if err := l.RUnlockErr(); err != nil {
				t.Error(err)
			}
		})
		if info := infoOf(t, l); info.Held {
			t.Errorf("%+v of a lock that nobody holds", info)
		}
		if taken, err := l.TryRLock(); !taken || err != nil {
			t.Errorf("TryRLock: %v, %v", taken, err)
		}
		must(t, l.RUnlockErr())
	})
}

func waitToReadHolding(l extended) error {
	err := l.RLockErr()
	if err == nil {
		l.RUnlock()
	}
	return err
}

func TestAReaderThatHoldsALockWaitsInCAndNotInTheQueue(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		wanted, other := allocated(t, m), allocated(t, m)
		defer lockmanager.TakeTurnsToRead(wanted)()
		release := heldElsewhere(t, wanted.LockErr, wanted.UnlockErr)
		got := begun(func() error {
			if err := other.RLockErr(); err != nil {
				return err
			}
			return waitToReadHolding(wanted)
		}, other.RUnlockErr)
		eventually(t, "it waits in C", func() bool { return infoOf(t, wanted).Waiters == 1 })
		if n := lockmanager.WaitingToRead(wanted); n != lockmanager.ReadersInC {
			t.Errorf("%d in the queue, it among them", n)
		}
		release()
		must(t, outcome(t, "a reader that holds another lock", got))
	})
}

// Among the goroutines that read, the runtime moves others about.
func TestAGoroutineIsPinnedFromRLockToRUnlock(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		first, second := allocated(t, m), allocated(t, m)
		elsewhere(t, func() {
			first.RLock()
			second.Lock()
			if err := second.Downgrade(); err != nil {
				t.Error(err)
			}
			first.RUnlock()
			if !pinned() {
				t.Error("not pinned with a lock held shared")
			}
			runtime.Gosched()
			second.RUnlock()
			if pinned() {
				t.Error("pinned with no lock held")
			}
		})
	})
}
