// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// The way a caller of libpod's package gets its manager: open, make what is not there, and when the number of locks has
// changed remove the file in /dev/shm and make it anew.
func TestASegmentIsOpenedMadeAndRenumberedAsPodmanDoes(t *testing.T) {
	path := newSHMName(t)
	_, err := lockmanager.OpenSHMLockManager(path, 2048)
	wantError(t, err, fs.ErrNotExist)
	_, err = lockmanager.NewSHMLockManager(path, 2048)
	must(t, err)
	_, err = lockmanager.NewSHMLockManager(path, 2048)
	wantError(t, err, fs.ErrExist)
	_, err = lockmanager.OpenSHMLockManager(path, 4096)
	wantError(t, err, syscall.ERANGE)
	if text := err.Error(); !strings.Contains(text, "2048") || !strings.Contains(text, "4096") {
		t.Errorf("the numbers that disagree are not named: %s", text)
	}
	must(t, os.Remove(filepath.Join("/dev/shm", path)))
	m, err := lockmanager.NewSHMLockManager(path, 4096)
	must(t, err)
	free, err := m.AvailableLocks()
	if err != nil || *free != 4096 {
		t.Fatalf("%v, %v of 4096 are available", free, err)
	}
}

func TestOpenOrNewMakesASegmentOnceAndRemoveSHMTakesItAway(t *testing.T) {
	path := newSHMName(t)
	first, err := lockmanager.OpenOrNewSHMLockManager(path, 64, lockmanager.WithLayout(lockmanager.Libpod), lockmanager.WithMode(0o640))
	must(t, err)
	second, err := lockmanager.OpenOrNewSHMLockManager(path, 0)
	must(t, err)
	if a, b := allocated(t, first).ID(), allocated(t, second).ID(); a == b {
		t.Fatalf("both have got lock %d", a)
	}
	file, err := os.Stat(filepath.Join("/dev/shm", path))
	must(t, err)
	if file.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", file.Mode())
	}
	info, err := first.Info()
	must(t, err)
	if info.Kind != lockmanager.SHM || info.Layout != lockmanager.Libpod || info.NumLocks != 64 {
		t.Errorf("%+v", info)
	}
	must(t, lockmanager.RemoveSHM(path))
	wantError(t, lockmanager.RemoveSHM(path), fs.ErrNotExist)
	eventually(t, "allocation on a removed segment is ESTALE", func() bool {
		_, err := first.AllocateLock()
		return errors.Is(err, syscall.ESTALE)
	})
}

func TestASegmentOpenedReadOnlyCanBeLookedAtOnly(t *testing.T) {
	for _, s := range []storage{libpod, native} {
		t.Run(s.name, func(t *testing.T) { lookOnly(t, s) })
	}
}

func lookOnly(t *testing.T, s storage) {
	m, path := s.fresh(t)
	l := allocated(t, m)
	l.Lock()
	defer l.Unlock()
	looker, err := lockmanager.OpenSHMLockManager(path, 0, lockmanager.WithReadOnly())
	must(t, err)
	if held, err := looker.LocksHeld(); err != nil || len(held) != 1 || held[0] != l.ID() {
		t.Errorf("held: %v, %v", held, err)
	}
	_, err = looker.AllocateLock()
	wantError(t, err, syscall.EACCES)
	wantError(t, looker.(extendedManager).Grow(128), syscall.EACCES)
	wantError(t, retrieved(t, looker, l.ID()).LockErr(), syscall.EACCES)
}

func TestTheNewNameMakesTheNativeLayoutUnlessAnotherIsNamed(t *testing.T) {
	path := newSHMName(t)
	m, err := lockmanager.OpenOrNewSHMLockManager(path, 33, lockmanager.WithMaxLocks(1000))
	must(t, err)
	info, err := m.Info()
	must(t, err)
	if info.Layout != lockmanager.Native || info.NumLocks != 64 || info.MaxLocks != 1024 || info.Attached != 1 {
		t.Errorf("%+v", info)
	}
	_, err = lockmanager.OpenOrNewSHMLockManager(path, 0, lockmanager.WithLayout(lockmanager.Libpod))
	wantError(t, err, syscall.EPROTO)
}

func TestAnOptionThatAConstructorHasNoUseForIsEINVAL(t *testing.T) {
	path := newSHMName(t)
	for name, make := range map[string]func() (lockmanager.Manager, error){
		"a layout in memory": func() (lockmanager.Manager, error) {
			return lockmanager.NewInMemoryManager(1, lockmanager.WithLayout(lockmanager.Libpod))
		},
		"a mode at opening": func() (lockmanager.Manager, error) {
			return lockmanager.OpenSHMLockManager(path, 64, lockmanager.WithMode(0o600))
		},
		"a mode with the set-user-ID bit": func() (lockmanager.Manager, error) {
			return lockmanager.NewSHMLockManager(path, 64, lockmanager.WithMode(0o600|fs.ModeSetuid))
		},
		"reading what is new": func() (lockmanager.Manager, error) {
			return lockmanager.NewSHMLockManager(path, 64, lockmanager.WithReadOnly())
		},
		"an unknown layout": func() (lockmanager.Manager, error) {
			return lockmanager.NewSHMLockManager(path, 64, lockmanager.WithLayout(77))
		},
		"no locks":        func() (lockmanager.Manager, error) { return lockmanager.NewInMemoryManager(0) },
		"a path with NUL": func() (lockmanager.Manager, error) { return lockmanager.NewSHMLockManager(path+"\x00x", 64) },
	} {
		if m, err := make(); m != nil || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func TestAnErrorUnwrapsToItsErrno(t *testing.T) {
	_, err := lockmanager.OpenSHMLockManager(newSHMName(t), 64)
	var failed *lockmanager.Error
	if !errors.As(err, &failed) || failed.Errno != syscall.ENOENT || errors.Unwrap(err) != error(syscall.ENOENT) {
		t.Fatalf("%#v", err)
	}
}

func TestRetrieveLockAsksCOnlyBeyondTheRangeItKnows(t *testing.T) {
	m, err := lockmanager.NewInMemoryManager(4)
	must(t, err)
	before := runtime.NumCgoCall()
	for id := uint32(0); id < 4; id++ {
		if got := retrieved(t, m, id).ID(); got != id {
			t.Fatalf("lock %d is lock %d", id, got)
		}
	}
	if calls := runtime.NumCgoCall() - before; calls != 0 {
		t.Fatalf("%d foreign calls for locks that are known to be there", calls)
	}
	_, err = m.RetrieveLock(5)
	wantError(t, err, syscall.EINVAL)
	if !lockmanager.GrowElsewhere(m, 10) {
		t.Fatal("it does not grow")
	}
	retrieved(t, m, 5)
	before = runtime.NumCgoCall()
	retrieved(t, m, 9)
	if calls := runtime.NumCgoCall() - before; calls != 0 {
		t.Fatalf("%d foreign calls for a lock that was seen to be there", calls)
	}
}

func TestGrowMakesRoomWhereTheNumberIsNotFixed(t *testing.T) {
	m, err := lockmanager.NewInMemoryManager(1)
	must(t, err)
	allocated(t, m)
	must(t, m.(*lockmanager.InMemoryManager).Grow(2))
	if id := allocated(t, m).ID(); id != 1 {
		t.Fatalf("got lock %d", id)
	}
	fixed, _ := libpod.fresh(t)
	err = fixed.Grow(128)
	wantError(t, err, syscall.EOPNOTSUPP)
}

func TestLocksHeldIsOneForeignCall(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		before := runtime.NumCgoCall()
		_, err := m.LocksHeld()
		must(t, err)
		if calls := runtime.NumCgoCall() - before; calls != 1 {
			t.Fatalf("%d foreign calls", calls)
		}
	})
}

func TestAnUncontendedPairIsTwoForeignCallsAndNoAllocation(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		before := runtime.NumCgoCall()
		allocations := testing.AllocsPerRun(100, func() {
			pass(l)
		})
		if calls := runtime.NumCgoCall() - before; calls != 202 {
			t.Errorf("%d foreign calls for 101 pairs", calls)
		}
		if allocations != 0 {
			t.Errorf("%v allocations a pair", allocations)
		}
	})
}
