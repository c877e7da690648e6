// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// Were there a gap, another writer would change the number in it.
func TestDowngradeHasNoGap(t *testing.T) {
	const writers, rounds = 4, 500
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		number, gaps := 0, new(atomic.Int32)
		var all sync.WaitGroup
		for i := 0; i < writers; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				for i := 0; i < rounds; i++ {
					l.Lock()
					number++
					mine := number
					if err := l.Downgrade(); err != nil {
						t.Error(err)
						l.Unlock()
						return
					}
					runtime.Gosched()
					if number != mine {
						gaps.Add(1)
					}
					l.RUnlock()
				}
			}()
		}
		within(t, "the writers", allDone(&all))
		if number != writers*rounds || gaps.Load() != 0 {
			t.Errorf("counted to %d of %d, and others wrote between %d times", number, writers*rounds, gaps.Load())
		}
	})
}

func allDone(all *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	return done
}

func TestReadersSeeNoHalfOfWhatAWriterDoes(t *testing.T) {
	const readers, writers, rounds = 6, 2, 500
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		left, right, torn := 0, 0, new(atomic.Int32)
		var all sync.WaitGroup
		run := func(count int, locker sync.Locker, inside func()) {
			for i := 0; i < count; i++ {
				all.Add(1)
				go func() {
					defer all.Done()
					for i := 0; i < rounds; i++ {
						locker.Lock()
						inside()
						locker.Unlock()
					}
				}()
			}
		}
		run(readers, l.RLocker(), func() {
			before := left
			runtime.Gosched()
			if before != right {
				torn.Add(1)
			}
		})
		run(writers, l, func() {
			left++
			runtime.Gosched()
			right++
		})
		within(t, "readers and writers", allDone(&all))
		if torn.Load() != 0 || left != writers*rounds || right != left {
			t.Errorf("%d readers saw a half; written %d and %d of %d", torn.Load(), left, right, writers*rounds)
		}
	})
}

func TestMoreReadersThanThereIsRoomForAreEAGAIN(t *testing.T) {
	const most = 4 + 8192
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t, lockmanager.WithProcessOwnership())
		crowded, other := allocated(t, m), allocated(t, m)
		for i := 0; i < most; i++ {
			must(t, crowded.RLockErr())
		}
		wantError(t, crowded.RLockErr(), syscall.EAGAIN)
		wantError(t, recovered(crowded.RLock), syscall.EAGAIN)
		wantError(t, errorOf(crowded.TryRLock()), syscall.EAGAIN)
		wantError(t, crowded.RLockContext(lastingContext(t)), syscall.EAGAIN)
		if info, holders := infoOf(t, crowded), errorOf(crowded.Holders()); info.Readers != most || holders != nil {
			t.Errorf("%+v, %v of a lock that is read %d times", info, holders, most)
		}
		// Each lock has places of its own.
		reading(t, other)()
		must(t, crowded.RUnlockErr())
		reading(t, crowded)()
		for i := 1; i < most; i++ {
			must(t, crowded.RUnlockErr())
		}
		wantError(t, crowded.RUnlockErr(), syscall.EPERM)
		pass(crowded)
	})
}

// Readers that take turns leave no moment without one, and so do writers.
func TestNeitherReadersNorWritersStarve(t *testing.T) {
	const crowd, turns = 4, 50
	onStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		for name, side := range map[string]struct{ many, one sync.Locker }{
			"a writer among readers": {l.RLocker(), l},
			"a reader among writers": {l, l.RLocker()},
		} {
			var all sync.WaitGroup
			stop := make(chan struct{})
			for i := 0; i < crowd; i++ {
				all.Add(1)
				go func() {
					defer all.Done()
					for {
						select {
						case <-stop:
							return
						default:
							side.many.Lock()
							runtime.Gosched()
							side.many.Unlock()
						}
					}
				}()
			}
			elsewhere(t, func() {
				for i := 0; i < turns; i++ {
					side.one.Lock()
					//lint:ignore SA2001 a turn is all that is wanted
					side.one.Unlock()
				}
			})
			close(stop)
			within(t, name, allDone(&all))
		}
	})
}
