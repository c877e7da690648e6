// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// pinned tells whether the calling goroutine is locked to its thread: the runtime says so in its traces.
func pinned() bool {
	trace := make([]byte, 256)
	header, _, _ := strings.Cut(string(trace[:runtime.Stack(trace, false)]), "\n")
	return strings.Contains(header, "locked to thread")
}

// waitsIn tells the state of the goroutine that runs that function, as traces call it.
func waitsIn(function string) string {
	all := make([]byte, 1<<20)
	for _, trace := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if strings.Contains(trace, function+"(") {
			_, state, _ := strings.Cut(trace, "[")
			state, _, _ = strings.Cut(state, "]")
			return state
		}
	}
	return "not there"
}

// threads counts this process's. The runtime keeps those that it has no use for any more.
func threads(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/task")
	must(t, err)
	return len(entries)
}

func TestAGoroutineIsPinnedFromLockToUnlock(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		first, second := allocated(t, m), allocated(t, m)
		elsewhere(t, func() {
			first.Lock()
			second.Lock()
			first.Unlock()
			if !pinned() {
				t.Error("not pinned with a lock held")
			}
			second.Unlock()
			if pinned() {
				t.Error("pinned with no lock held")
			}
		})
	})
}

// A table that cannot grow up to the id is an error of the lock call, after which nothing must stay behind.
func TestALockThatFindsNoRoomInTheTableLeavesNothingPinned(t *testing.T) {
	m, _ := files.fresh(t)
	far := retrieved(t, m, 100_000)
	elsewhere(t, func() {
		var limit syscall.Rlimit
		must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
		tight := limit
		tight.Cur = 4096
		must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &tight))
		err := far.LockErr()
		must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
		if !errors.Is(err, syscall.EFBIG) {
			t.Errorf("got %v", err)
		}
		if pinned() {
			t.Error("pinned, though it holds nothing")
		}
		must(t, far.LockErr())
		must(t, far.UnlockErr())
		if pinned() {
			t.Error("pinned with no lock held")
		}
	})
}

func TestAGoroutineIsUnpinnedByEveryFailure(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		closed, _ := s.fresh(t)
		nowhere := allocated(t, closed)
		must(t, closed.Close())
		release, held := make(chan struct{}), make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			l.Lock()
			close(held)
			<-release
			l.Unlock()
		}()
		within(t, "Lock", held)
		elsewhere(t, func() {
			for name, call := range map[string]func() (bool, error){
				"TryLock of a held lock":      l.TryLock,
				"UnlockErr of another's":      func() (bool, error) { return false, l.UnlockErr() },
				"LockContext that has ended":  func() (bool, error) { return false, l.LockContext(endedContext()) },
				"LockContext that ends":       func() (bool, error) { return false, l.LockContext(endingContext(t)) },
				"LockErr of a closed manager": func() (bool, error) { return false, nowhere.LockErr() },
				"TryLock of a closed manager": nowhere.TryLock,
				"LockContext of a closed one": func() (bool, error) { return false, nowhere.LockContext(endingContext(t)) },
				"UnlockErr of a closed one":   func() (bool, error) { return false, nowhere.UnlockErr() },

				"RUnlockErr of another's":      func() (bool, error) { return false, l.RUnlockErr() },
				"RLockContext that has ended":  func() (bool, error) { return false, l.RLockContext(endedContext()) },
				"RLockContext that ends":       func() (bool, error) { return false, l.RLockContext(endingContext(t)) },
				"RLockErr of a closed manager": func() (bool, error) { return false, nowhere.RLockErr() },
				"TryRLock of a closed manager": nowhere.TryRLock,
				"RLockContext of a closed one": func() (bool, error) { return false, nowhere.RLockContext(endingContext(t)) },
				"RUnlockErr of a closed one":   func() (bool, error) { return false, nowhere.RUnlockErr() },
			} {
				taken, err := call()
				if taken || (err == nil && !strings.HasSuffix(name, "of a held lock")) {
					t.Errorf("%s: %v, %v", name, taken, err)
				}
				if pinned() {
					t.Errorf("%s has left the goroutine pinned", name)
					runtime.UnlockOSThread()
				}
			}
		})
		close(release)
		within(t, "the holder", ended)
	})
}

func TestLockingWhatTheGoroutineHoldsIsEDEADLKAndLeavesItHeld(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		elsewhere(t, func() {}) // another goroutine has run: the holder is still on its thread
		wantError(t, l.LockErr(), syscall.EDEADLK)
		wantError(t, l.LockContext(lastingContext(t)), syscall.EDEADLK)
		if taken, err := l.TryLock(); taken || err != nil {
			t.Fatalf("TryLock of one's own: %v, %v", taken, err)
		}
		if !pinned() {
			t.Fatal("a refusal has unpinned the holder")
		}
		must(t, l.UnlockErr())
	})
}

func TestOnlyTheGoroutineThatLockedMayUnlock(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		defer l.Unlock()
		elsewhere(t, func() {
			if err := l.UnlockErr(); !errors.Is(err, syscall.EPERM) {
				t.Errorf("got %v", err)
			}
		})
	})
}

// crowd is how many goroutines a test has wait for one lock, and how many more threads are too many for them.
func crowd() (goroutines, few int) {
	if factor, err := strconv.Atoi(os.Getenv(timeFactor)); err == nil && factor > 1 {
		// Go starts a thread for the others where a goroutine is long in C, as in the try before it queues: here each may be,
		// and 32 bits have no room for thousands of stacks.
		const others = 64
		goroutines = 200
		return goroutines, goroutines + others
	}
	// Go starts some where a goroutine is long in C, on a busy machine more. A wait in C would cost each its own.
	goroutines = 5000
	return goroutines, goroutines / 4
}

func TestThousandsOfWaitersNeedFewThreads(t *testing.T) {
	goroutines, few := crowd()
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		l.Lock()
		counter, before := 0, threads(t)
		var all sync.WaitGroup
		for i := 0; i < goroutines; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				if err := l.LockErr(); err != nil {
					t.Error(err)
					return
				}
				counter++
				l.Unlock()
			}()
		}
		eventually(t, "all wait", func() bool { return lockmanager.Waiting(l) == goroutines })
		if n := threads(t); n >= before+few {
			t.Errorf("%d threads for %d goroutines that wait, after %d", n, goroutines, before)
		}
		l.Unlock()
		done := make(chan struct{})
		go func() { all.Wait(); close(done) }()
		within(t, "a crowd", done)
		if counter != goroutines {
			t.Errorf("%d of %d have had the lock", counter, goroutines)
		}
		if n := threads(t); n >= before+few {
			t.Errorf("%d threads after %d goroutines have waited, after %d", n, goroutines, before)
		}
	})
}

func waitHolding(l extended) { pass(l) }

func TestAWaiterThatHoldsALockWaitsInCAndNotInTheQueue(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		wanted, other := allocated(t, m), allocated(t, m)
		wanted.Lock()
		var all sync.WaitGroup
		all.Add(2)
		go func() {
			defer all.Done()
			pass(wanted)
		}()
		eventually(t, "the first waits", func() bool { return lockmanager.Waiting(wanted) == 1 })
		go func() {
			defer all.Done()
			other.Lock()
			waitHolding(wanted)
			other.Unlock()
		}()
		eventually(t, "the holder waits in C", func() bool {
			return strings.HasPrefix(waitsIn("waitHolding"), "syscall")
		})
		if n := lockmanager.Waiting(wanted); n != 1 {
			t.Errorf("%d goroutines queue, the holder among them", n)
		}
		wanted.Unlock()
		all.Wait()
	})
}

func TestAGoroutineThatEndsWithTheLockHeldIsAnOwnerThatDied(t *testing.T) {
	onEveryStorage(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t)
		l := allocated(t, m)
		elsewhere(t, func() {
			l.Lock()
		})
		if err := l.LockErr(); err != lockmanager.ErrOwnerDied {
			t.Fatalf("got %v, want ErrOwnerDied", err)
		}
		must(t, l.UnlockErr())
		must(t, l.LockErr())
		must(t, l.UnlockErr())
	})
}

func TestLocksOfTheProcessCanBeHandedOver(t *testing.T) {
	onProcessOwnedStorages(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t, lockmanager.WithProcessOwnership())
		l := allocated(t, m)
		elsewhere(t, func() {
			l.Lock()
			if pinned() {
				t.Error("pinned, though the process owns the lock")
			}
		})
		if info, err := l.Info(); err != nil || !info.Held || !info.ProcessOwned {
			t.Fatalf("%+v, %v", info, err)
		}
		wantError(t, l.LockContext(endingContext(t)), syscall.ETIMEDOUT)
		must(t, l.UnlockErr())
		if taken, err := l.TryLock(); !taken || err != nil {
			t.Fatalf("free, but not taken: %v, %v", taken, err)
		}
		must(t, l.UnlockErr())
		wantError(t, l.UnlockErr(), syscall.EPERM)
	})
}

func TestALockOfTheProcessDoesNotMakeItsThreadAHolder(t *testing.T) {
	onProcessOwnedStorages(t, func(t *testing.T, s storage) {
		m, _ := s.fresh(t, lockmanager.WithProcessOwnership())
		l := allocated(t, m)
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			l.Lock()
			pass(l)
		}()
		eventually(t, "the goroutine waits like one that holds nothing", func() bool { return lockmanager.Waiting(l) == 1 })
		must(t, l.UnlockErr())
		within(t, "a goroutine", done)
	})
}
