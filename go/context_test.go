// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// endedContext is done already.
func endedContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// lastingContext can be done, and will not be while the test may run.
func lastingContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// endingContext will be done in a moment.
func endingContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestLockContextTakesAFreeLock(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		for _, ctx := range []context.Context{context.Background(), lastingContext(t)} {
			must(t, l.LockContext(ctx))
			if info, err := l.Info(); err != nil || !info.Held {
				t.Fatalf("%+v, %v", info, err)
			}
			must(t, l.UnlockErr())
		}
	})
}

func TestAContextThatIsDoneWinsOverAFreeLock(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		err := l.LockContext(endedContext())
		wantError(t, err, context.Canceled)
		wantError(t, err, syscall.ECANCELED)
		if info, err := l.Info(); err != nil || info.Held {
			t.Fatalf("%+v, %v", info, err)
		}
	})
}

func TestCancellationEndsTheWaitInCAndThoseInTheQueue(t *testing.T) {
	const waiters = 20
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan error, waiters)
		for i := 0; i < waiters; i++ {
			go func() { got <- l.LockContext(ctx) }()
		}
		eventually(t, "all wait", func() bool { return lockmanager.Waiting(l) == waiters })
		began := time.Now()
		cancel()
		for i := 0; i < waiters; i++ {
			err := <-got
			wantError(t, err, context.Canceled)
			wantError(t, err, syscall.ECANCELED)
		}
		took := time.Since(began)
		t.Logf("%d waits have ended %v after cancellation", waiters, took)
		if took > time.Second {
			t.Errorf("the waits have ended %v after cancellation", took)
		}
		if n := lockmanager.Waiting(l); n != 0 {
			t.Errorf("%d still wait", n)
		}
		l.Unlock()
		pass(l)
	})
}

func TestCancellationEndsAWaitInTheQueueWhileAnotherHasTheTurn(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		defer l.Unlock()
		leave := lockmanager.TakeTurn(l)
		elsewhere(t, func() {
			if err := l.LockContext(endingContext(t)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		if n := lockmanager.Waiting(l); n != 1 {
			t.Errorf("%d are in the queue, where only the turn is taken", n)
		}
		leave()
	})
}

func TestCloseIsEBUSYBetweenTheQueueAndC(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		leave := lockmanager.TakeTurn(allocated(t, m))
		wantError(t, m.Close(), syscall.EBUSY)
		leave()
		must(t, m.Close())
	})
}

func TestADeadlineThatPassesIsETIMEDOUT(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		defer l.Unlock()
		elsewhere(t, func() {
			err := l.LockContext(endingContext(t))
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("got %v", err)
			}
		})
	})
}

func TestCancellationThatComesWithTheLockLeavesNothingBehind(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		counter := 0
		for i := 0; i < 50; i++ {
			l.Lock()
			ctx, cancel := context.WithCancel(context.Background())
			var all sync.WaitGroup
			for i := 0; i < 4; i++ {
				all.Add(1)
				go func() {
					defer all.Done()
					if l.LockContext(ctx) == nil {
						counter++
						l.Unlock()
					}
				}()
			}
			eventually(t, "all wait", func() bool { return lockmanager.Waiting(l) == 4 })
			go cancel()
			l.Unlock()
			all.Wait()
		}
		pass(l)
		must(t, m.Close())
		t.Logf("%d of 200 have had the lock", counter)
	})
}

func TestCloseIsEBUSYWhileAGoroutineWaits(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		holder := startChild(t, s, place)
		holder.ask(t, "lock %d", l.ID())
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan error, 1)
		go func() { got <- l.LockContext(ctx) }()
		eventually(t, "the goroutine waits", func() bool { return lockmanager.Waiting(l) == 1 })
		wantError(t, m.Close(), syscall.EBUSY)
		cancel()
		wantError(t, <-got, context.Canceled)
		must(t, m.Close())
	})
}
