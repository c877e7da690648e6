// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"io/fs"
	"reflect"
	"sync"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

func TestALoneAllocatorCountsUpFromZero(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		for want := uint32(0); want < 5; want++ {
			if id := allocated(t, m).ID(); id != want {
				t.Fatalf("got lock %d, want %d", id, want)
			}
		}
	})
}

// What is asked for and is there is there; what is not is refused.
func wantIf(t *testing.T, there bool, err error) {
	t.Helper()
	if there {
		must(t, err)
	} else {
		wantError(t, err, syscall.EOPNOTSUPP)
	}
}

func TestAStorageHasWhatItsLineSaysAndNothingElse(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		free, err := m.AvailableLocks()
		must(t, err)
		if (free != nil) != s.limited {
			t.Errorf("limited is %v, and %v are available", s.limited, free)
		}
		wantIf(t, s.grows, m.Grow(128))
		l := allocated(t, m)
		wantIf(t, s.readers, l.RLockErr())
		if s.readers {
			must(t, l.RUnlockErr())
		}
		owned, _, err := s.try(t, lockmanager.WithProcessOwnership())
		wantIf(t, s.processOwned, err)
		if err == nil {
			must(t, owned.(extendedManager).Close())
		}
		if (place != "") != (s.open != nil) {
			t.Errorf("place %q can be opened: %v", place, s.open != nil)
		}
	})
}

func TestAllocationFailsWithENOLCKOnceAllAreAllocated(t *testing.T) {
	onLimitedStorages(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		free, err := m.AvailableLocks()
		must(t, err)
		if *free != 64 {
			t.Fatalf("%d of 64 are available", *free)
		}
		for i := 0; i < 64; i++ {
			allocated(t, m)
		}
		_, err = m.AllocateLock()
		wantError(t, err, syscall.ENOLCK)
		if free, err = m.AvailableLocks(); err != nil || *free != 0 {
			t.Fatalf("%v, %v are available when all are allocated", free, err)
		}
	})
}

func TestAFreedNumberCanBeAllocatedAgainAndOnlyThen(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l, err := m.AllocateAndRetrieveLock(7)
		must(t, err)
		if l.ID() != 7 {
			t.Fatalf("lock 7 is lock %d", l.ID())
		}
		_, err = m.AllocateAndRetrieveLock(7)
		wantError(t, err, fs.ErrExist)
		must(t, l.Free())
		wantError(t, l.Free(), fs.ErrNotExist)
		_, err = m.AllocateAndRetrieveLock(7)
		must(t, err)
	})
}

func TestFreeAllLocksStartsAllocationAnew(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		for i := 0; i < 3; i++ {
			allocated(t, m)
		}
		must(t, m.FreeAllLocks())
		if id := allocated(t, m).ID(); id != 0 {
			t.Fatalf("got lock %d", id)
		}
	})
}

func TestALockBeyondTheRangeIsEINVAL(t *testing.T) {
	onLimitedStorages(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		_, err := m.RetrieveLock(64)
		wantError(t, err, syscall.EINVAL)
		_, err = m.AllocateAndRetrieveLock(64)
		wantError(t, err, syscall.EINVAL)
		if l, err := m.RetrieveLock(63); err != nil || l.ID() != 63 {
			t.Fatalf("lock 63 of 64: %v, %v", l, err)
		}
	})
}

func TestALockNeedNotBeAllocatedToBeHeldAndStaysHeldWhenFreed(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		must(t, l.Free())
		elsewhere(t, func() {
			if taken, err := l.TryLock(); taken || err != nil {
				t.Errorf("freeing has let somebody in: %v, %v", taken, err)
			}
		})
		l.Unlock()
		pass(l)
	})
}

func TestEveryHandleOfANumberIsTheSameLock(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		counter := 0
		var all sync.WaitGroup
		for i := 0; i < 4; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				same, err := m.RetrieveLock(l.ID())
				if err != nil {
					t.Error(err)
					return
				}
				for i := 0; i < 500; i++ {
					same.Lock()
					counter++
					same.Unlock()
				}
			}()
		}
		all.Wait()
		if counter != 2000 {
			t.Fatalf("4 goroutines have counted to %d, not 2000", counter)
		}
	})
}

func TestLocksHeldNamesWhatIsHeldAndOnlyThat(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		var all, want []uint32
		for i := 0; i < 64; i++ {
			l := allocated(t, m)
			if all = append(all, l.ID()); l.ID()%2 == 1 {
				l.Lock()
				defer l.Unlock()
				want = append(want, l.ID())
			}
		}
		held, err := m.LocksHeld()
		if err != nil || !reflect.DeepEqual(held, want) {
			t.Fatalf("of %v these are held: %v, %v; want %v", all, held, err, want)
		}
	})
}

func TestLocksHeldHasRoomForMoreThanItFoundBefore(t *testing.T) {
	m, err := lockmanager.NewInMemoryManager(500)
	must(t, err)
	for want := 0; want < 3; want++ {
		for id := uint32(0); id < uint32(want*200); id++ {
			l := retrieved(t, m, id)
			if taken, err := l.TryLock(); err != nil {
				t.Fatal(err)
			} else if taken {
				defer l.Unlock()
			}
		}
		held, err := m.LocksHeld()
		if err != nil || len(held) != want*200 {
			t.Fatalf("%d are held, %v; want %d", len(held), err, want*200)
		}
	}
}

func TestUnlockOfWhatIsNotHeldIsEPERMAndPanics(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		wantError(t, l.UnlockErr(), syscall.EPERM)
		defer func() {
			if err, ok := recover().(error); !ok {
				t.Error("Unlock of what is not held has not panicked with an error")
			} else {
				wantError(t, err, syscall.EPERM)
			}
		}()
		l.Unlock()
	})
}

func TestInfoNamesTheHolder(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		defer l.Unlock()
		info, err := l.Info()
		must(t, err)
		if info.ID != l.ID() || !info.Held || !info.Allocated || info.OwnerDied || info.PID != syscall.Getpid() {
			t.Fatalf("%+v of a lock that process %d holds", info, syscall.Getpid())
		}
	})
}

func TestRepairLeavesALivingHolderAlone(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		must(t, l.Repair())
		l.Lock()
		defer l.Unlock()
		wantError(t, l.Repair(), syscall.EBUSY)
	})
}

func TestCloseIsEBUSYWhileALockIsHeldAndNilTwice(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		wantError(t, m.Close(), syscall.EBUSY)
		l.Unlock()
		must(t, m.Close())
		must(t, m.Close())
		wantError(t, l.LockErr(), syscall.EINVAL)
		_, err := m.RetrieveLock(0)
		wantError(t, err, syscall.EINVAL)
	})
}

func TestTwoManagersOnOneStorageMeanTheSameLock(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		other, err := s.open(place)
		must(t, err)
		l := allocated(t, m)
		if id := allocated(t, other).ID(); id == l.ID() {
			t.Fatalf("both have got lock %d", id)
		}
		l.Lock()
		defer l.Unlock()
		elsewhere(t, func() {
			if taken, err := retrieved(t, other, l.ID()).TryLock(); taken || err != nil {
				t.Errorf("lock held through the one, free through the other: %v, %v", taken, err)
			}
		})
	})
}
