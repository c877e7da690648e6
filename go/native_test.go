// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

func wantOK(t *testing.T, got string) {
	t.Helper()
	if got != "ok" {
		t.Fatalf("got %q, want ok", got)
	}
}

func wantAvailable(t *testing.T, m lockmanager.Manager, want uint32) {
	t.Helper()
	free, err := m.AvailableLocks()
	must(t, err)
	if *free != want {
		t.Fatalf("%d are available, want %d", *free, want)
	}
}

func TestWhatAnotherProcessGrewIsFoundByAskingCOnceMore(t *testing.T) {
	m, place := native.fresh(t)
	first := allocated(t, m)
	other := startChild(t, native, place)
	wantOK(t, other.ask(t, "grow 200"))

	// Rounded up to 256 there, of which this manager has not been told.
	before := runtime.NumCgoCall()
	far := retrieved(t, m, 199)
	if calls := runtime.NumCgoCall() - before; calls == 0 {
		t.Fatal("C was not asked for a lock beyond those that were known")
	}
	before = runtime.NumCgoCall()
	retrieved(t, m, 255)
	if calls := runtime.NumCgoCall() - before; calls != 0 {
		t.Fatalf("%d foreign calls for a lock that is known by now", calls)
	}
	_, err := m.RetrieveLock(256)
	wantError(t, err, syscall.EINVAL)
	wantAvailable(t, m, 255)

	wantOK(t, other.ask(t, "lock 199"))
	if taken, err := far.TryLock(); taken || err != nil {
		t.Fatalf("the other process holds it: %v, %v", taken, err)
	}
	first.Lock()
	if held, err := m.LocksHeld(); err != nil || !reflect.DeepEqual(held, []uint32{first.ID(), 199}) {
		t.Fatalf("held: %v, %v", held, err)
	}
	first.Unlock()
	got := waitedFor(t, far)
	wantOK(t, other.ask(t, "unlock 199"))
	must(t, <-got)
}

func TestAllocationFindsWhatAnotherProcessGrew(t *testing.T) {
	m, place := native.fresh(t)
	for i := 0; i < 64; i++ {
		allocated(t, m)
	}
	_, err := m.AllocateLock()
	wantError(t, err, syscall.ENOLCK)
	other := startChild(t, native, place)
	wantOK(t, other.ask(t, "grow 65"))
	if id := allocated(t, m).ID(); id < 64 || id >= 128 {
		t.Fatalf("got lock %d of the 64 that were added", id)
	}
	wantAvailable(t, m, 63)
	if answer := other.ask(t, "grow 64"); !strings.HasPrefix(answer, failedWith(syscall.EINVAL)) {
		t.Fatalf("shrinking: %s", answer)
	}
}

func TestAManagerThatGrowsServesThoseWhoOpenedBefore(t *testing.T) {
	m, place := native.fresh(t, lockmanager.WithMaxLocks(1024))
	other := startChild(t, native, place)
	must(t, m.Grow(1000))
	wantOK(t, other.ask(t, "lock 1023"))
	l := retrieved(t, m, 1023)
	if info, err := l.Info(); err != nil || !info.Held || info.PID != other.command.Process.Pid {
		t.Fatalf("%+v, %v", info, err)
	}
	wantError(t, m.Grow(1025), syscall.EINVAL)
	wantError(t, m.Grow(960), syscall.EINVAL)
	info, err := m.Info()
	if err != nil || info.NumLocks != 1024 || info.MaxLocks != 1024 || info.Attached != 2 {
		t.Fatalf("%+v, %v", info, err)
	}
}

func TestGrowingDisturbsNobody(t *testing.T) {
	const goroutines, steps = 4, 30
	m, place := native.fresh(t)
	l := allocated(t, m)
	other := startChild(t, native, place)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := 0; i < goroutines; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				select {
				case <-stop:
					return
				default:
					pass(l)
				}
			}
		}()
	}
	for step := uint32(0); step < steps; step++ {
		most := 64 * (step + 2)
		wantOK(t, other.ask(t, "grow %d", most))
		pass(retrieved(t, m, most-1))
	}
	close(stop)
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	within(t, "a goroutine that locks", done)
}

// What is removed is told by the very first call after it, and to everybody who waits.
func TestAfterRemoveSHMElsewhereEveryCallIsESTALE(t *testing.T) {
	const waiters = 5
	m, place := native.fresh(t)
	mine, theirs, read, unused := allocated(t, m), allocated(t, m), allocated(t, m), allocated(t, m)
	other := startChild(t, native, place)
	wantOK(t, other.ask(t, "lock %d", theirs.ID()))
	wantOK(t, other.ask(t, "rlock %d", read.ID()))
	got := make(chan error, 2*waiters)
	elsewhere(t, func() {
		mine.Lock()
		for i := 0; i < waiters; i++ {
			go func() { got <- mine.LockErr() }()
			go func() { got <- mine.RLockErr() }()
		}
		eventually(t, "all wait", func() bool { return lockmanager.Waiting(mine) == 2*waiters })
		remover := startChild(t, native, place)
		wantOK(t, remover.ask(t, "remove"))

		for name, call := range map[string]func() error{
			"LockErr of a free lock":          unused.LockErr,
			"Lock of a free lock":             func() error { return recovered(unused.Lock) },
			"LockContext of a free lock":      func() error { return unused.LockContext(context.Background()) },
			"TryLock of a free lock":          func() error { _, err := unused.TryLock(); return err },
			"LockErr of a held lock":          theirs.LockErr,
			"Lock of a held lock":             func() error { return recovered(theirs.Lock) },
			"LockContext of a held lock":      func() error { return theirs.LockContext(context.Background()) },
			"TryLock of a held lock":          func() error { _, err := theirs.TryLock(); return err },
			"RLockErr of a free lock":         unused.RLockErr,
			"RLockContext of a free lock":     func() error { return unused.RLockContext(context.Background()) },
			"TryRLock of a free lock":         func() error { _, err := unused.TryRLock(); return err },
			"RLockErr of a lock that is read": read.RLockErr,
			"LockErr of a lock that is read":  read.LockErr,
			"TryLock of a lock that is read":  func() error { _, err := read.TryLock(); return err },
			"RLockErr of a held lock":         theirs.RLockErr,
			"AllocateLock":                    func() error { _, err := m.AllocateLock(); return err },
			"AllocateAndRetrieveLock":         func() error { _, err := m.AllocateAndRetrieveLock(9); return err },
			"Free":                            unused.Free,
			"FreeAllLocks":                    m.FreeAllLocks,
			"Grow":                            func() error { return m.Grow(128) },
			"LockErr of one's own":            mine.LockErr,
			"LockErr where nothing is known":  retrieved(t, m, 63).LockErr,
		} {
			wantError(t, call(), syscall.ESTALE)
			if !pinned() {
				t.Errorf("%s has unpinned the holder of another lock", name)
			}
		}
		for i := 0; i < 2*waiters; i++ {
			wantError(t, <-got, syscall.ESTALE)
		}
		elsewhere(t, func() {
			wantError(t, unused.LockErr(), syscall.ESTALE)
			if pinned() {
				t.Error("pinned with no lock held")
			}
		})
		info, err := m.Info()
		if err != nil || !info.Retired || info.NumLocks != 64 {
			t.Errorf("%+v, %v", info, err)
		}
		if held, err := m.LocksHeld(); err != nil || !reflect.DeepEqual(held, []uint32{mine.ID(), theirs.ID(), read.ID()}) {
			t.Errorf("held: %v, %v", held, err)
		}
		must(t, mine.UnlockErr())
		if pinned() {
			t.Error("pinned with no lock held")
		}
	})
	wantOK(t, other.ask(t, "downgrade %d", theirs.ID()))
	wantOK(t, other.ask(t, "runlock %d", theirs.ID()))
	wantOK(t, other.ask(t, "runlock %d", read.ID()))
	if answer := other.ask(t, "allocate"); !strings.HasPrefix(answer, failedWith(syscall.ESTALE)) {
		t.Errorf("allocating in the other process: %s", answer)
	}
	must(t, m.Close())
}

func TestAWaiterIsToldThatTheNameIsGone(t *testing.T) {
	m, place := native.fresh(t)
	l := allocated(t, m)
	holder := startChild(t, native, place)
	wantOK(t, holder.ask(t, "lock %d", l.ID()))
	got := waitedFor(t, l)
	must(t, os.Remove(filepath.Join("/dev/shm", place)))
	wantError(t, <-got, syscall.ESTALE)
	eventually(t, "allocation is told, too", func() bool {
		return strings.HasPrefix(holder.ask(t, "allocate"), failedWith(syscall.ESTALE))
	})
}
