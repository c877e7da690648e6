// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"errors"
	"reflect"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// reading holds the lock shared in a goroutine of its own, until what it returns is called.
func reading(t testing.TB, l extended) func() {
	t.Helper()
	return heldElsewhere(t, l.RLockErr, l.RUnlockErr)
}

func infoOf(t testing.TB, l extended) lockmanager.LockInfo {
	t.Helper()
	info, err := l.Info()
	must(t, err)
	return info
}

// begun makes the call in a goroutine of its own, and gives back what it has taken before it tells what it was told.
func begun(take, giveBack func() error) <-chan error {
	got := make(chan error, 1)
	go func() {
		err := take()
		if err == nil || err == lockmanager.ErrOwnerDied {
			if failed := giveBack(); failed != nil {
				err = failed
			}
		}
		got <- err
	}()
	return got
}

// waitsToRead begins to wait until the lock can be held shared; it is one of those who wait then.
func waitsToRead(t testing.TB, l extended) <-chan error {
	t.Helper()
	before := lockmanager.WaitingToRead(l)
	got := begun(l.RLockErr, l.RUnlockErr)
	eventually(t, "the reader waits", func() bool { return lockmanager.WaitingToRead(l) == before+1 })
	return got
}

// drains begins to wait for the lock exclusively, and is next once the readers have left.
func drains(t testing.TB, l extended) <-chan error {
	t.Helper()
	got := begun(l.LockErr, l.UnlockErr)
	eventually(t, "the writer is next", func() bool { return infoOf(t, l).Draining })
	return got
}

func wantTry(t testing.TB, what string, try func() (bool, error), want bool) {
	t.Helper()
	elsewhere(t, func() {
		if taken, err := try(); taken != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", what, taken, err, want)
		}
	})
}

func wantBusy(t testing.TB, what string, try func() (bool, error)) {
	t.Helper()
	wantTry(t, what, try, false)
}

func TestReadersHoldALockTogetherAndKeepWritersOut(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		first, second := reading(t, l), reading(t, l)
		wantBusy(t, "TryLock beside two readers", l.TryLock)
		info := infoOf(t, l)
		if !info.Held || info.Readers != 2 || info.Draining || info.OwnerDied || info.PID != syscall.Getpid() {
			t.Errorf("%+v of a lock that two goroutines read", info)
		}
		if held, err := m.LocksHeld(); err != nil || !reflect.DeepEqual(held, []uint32{l.ID()}) {
			t.Errorf("held: %v, %v", held, err)
		}
		first()
		wantBusy(t, "TryLock beside a reader", l.TryLock)
		second()
		if info := infoOf(t, l); info.Held || info.Readers != 0 {
			t.Errorf("%+v of a lock that nobody reads any more", info)
		}
		if taken, err := l.TryLock(); !taken || err != nil {
			t.Fatalf("TryLock once the readers have left: %v, %v", taken, err)
		}
		l.Unlock()
	})
}

func TestAWriterKeepsReadersOutUntilItUnlocks(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		wantBusy(t, "TryRLock beside a writer", l.TryRLock)
		if info := infoOf(t, l); !info.Held || info.Readers != 0 {
			t.Errorf("%+v of a lock that is held exclusively", info)
		}
		waiters := []<-chan error{waitsToRead(t, l), waitsToRead(t, l)}
		l.Unlock()
		for _, got := range waiters {
			must(t, outcome(t, "a reader that waited", got))
		}
	})
}

func TestAWriterThatWaitsIsNextAndKeepsLaterReadersOut(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		leave := reading(t, l)
		written := drains(t, l)
		eventually(t, "one waits for the one that reads", func() bool {
			info := infoOf(t, l)
			return info.Readers == 1 && info.Waiters == 1
		})
		wantBusy(t, "TryRLock behind a writer that waits", l.TryRLock)
		later := waitsToRead(t, l)
		leave()
		must(t, outcome(t, "the writer", written))
		must(t, outcome(t, "the later reader", later))
	})
}

func TestAWriterThatGivesUpLetsReadersIn(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		leave := reading(t, l)
		elsewhere(t, func() {
			if err := l.LockContext(endingContext(t)); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("a writer's deadline beside a reader: %v", err)
			}
		})
		if infoOf(t, l).Draining {
			t.Error("a writer is next that has given up")
		}
		reading(t, l)()
		leave()
		pass(l)
	})
}

func TestAGoroutineHasALockOnceEitherWay(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		for way, hold := range map[string]struct{ take, giveBack func() error }{
			"shared":      {l.RLockErr, l.RUnlockErr},
			"exclusively": {l.LockErr, l.UnlockErr},
		} {
			elsewhere(t, func() {
				if err := hold.take(); err != nil {
					t.Errorf("taken %s: %v", way, err)
					return
				}
				for name, call := range map[string]func() error{
					"LockErr":      l.LockErr,
					"Lock":         func() error { return recovered(l.Lock) },
					"LockContext":  func() error { return l.LockContext(lastingContext(t)) },
					"RLockErr":     l.RLockErr,
					"RLock":        func() error { return recovered(l.RLock) },
					"RLockContext": func() error { return l.RLockContext(lastingContext(t)) },
				} {
					if err := call(); !errors.Is(err, syscall.EDEADLK) {
						t.Errorf("%s of a lock held %s: %v", name, way, err)
					}
				}
				for name, try := range map[string]func() (bool, error){"TryLock": l.TryLock, "TryRLock": l.TryRLock} {
					if taken, err := try(); taken || err != nil {
						t.Errorf("%s of a lock held %s: %v, %v", name, way, taken, err)
					}
				}
				if !pinned() {
					t.Errorf("a refusal has unpinned one that holds %s", way)
				}
				if err := hold.giveBack(); err != nil || pinned() {
					t.Errorf("given back what was held %s: %v, pinned: %v", way, err, pinned())
				}
			})
		}
		pass(l)
	})
}

func TestWhatIsNotHeldThatWayIsEPERM(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		elsewhere(t, func() {
			refused := func(when string, calls map[string]func() error) {
				for name, call := range calls {
					if err := call(); !errors.Is(err, syscall.EPERM) {
						t.Errorf("%s of a lock that %s: %v", name, when, err)
					}
				}
			}
			runlock := func() error { return recovered(l.RUnlock) }
			refused("nobody holds", map[string]func() error{"RUnlockErr": l.RUnlockErr, "RUnlock": runlock, "Downgrade": l.Downgrade})
			l.Lock()
			refused("is held exclusively", map[string]func() error{"RUnlockErr": l.RUnlockErr, "RUnlock": runlock})
			if !pinned() {
				t.Error("a refusal has unpinned the writer")
			}
			l.Unlock()
			l.RLock()
			refused("is held shared", map[string]func() error{"UnlockErr": l.UnlockErr, "Downgrade": l.Downgrade})
			if !pinned() {
				t.Error("a refusal has unpinned the reader")
			}
			l.RUnlock()
		})
		leave := reading(t, l)
		wantError(t, l.RUnlockErr(), syscall.EPERM)
		leave()
	})
}

func TestDowngradeLetsReadersInAndNoWriter(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		elsewhere(t, func() {
			l.Lock()
			reader := waitsToRead(t, l)
			if err := l.Downgrade(); err != nil {
				t.Error(err)
			}
			if err := outcome(t, "the reader that waited", reader); err != nil {
				t.Error(err)
			}
			wantBusy(t, "TryLock beside one that downgraded", l.TryLock)
			if info := infoOf(t, l); info.Readers != 1 || info.TID != syscall.Gettid() || !pinned() {
				t.Errorf("%+v of a lock that thread %d reads, pinned: %v", info, syscall.Gettid(), pinned())
			}
			if err := l.RUnlockErr(); err != nil || pinned() {
				t.Errorf("RUnlock after Downgrade: %v, pinned: %v", err, pinned())
			}
		})
		pass(l)
	})
}

func TestCloseIsEBUSYWhileALockIsHeldShared(t *testing.T) {
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.RLock()
		wantError(t, m.Close(), syscall.EBUSY)
		l.RUnlock()
		must(t, m.Close())
		wantError(t, l.RLockErr(), syscall.EINVAL)
		wantError(t, l.RUnlockErr(), syscall.EINVAL)
		wantError(t, l.Downgrade(), syscall.EINVAL)
		_, err := l.TryRLock()
		wantError(t, err, syscall.EINVAL)
		_, err = l.Holders()
		wantError(t, err, syscall.EINVAL)
	})
}
