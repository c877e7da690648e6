// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
	"github.com/lock-manager/lock-manager/go/internal/ctest"
)

func TestALockHeldInOneProcessIsBusyInAnother(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		other := startChild(t, s, place)
		l.Lock()
		if got := other.ask(t, "try %d", l.ID()); got != "busy" {
			t.Fatalf("try: %s", got)
		}
		other.tell(t, "lock %d", l.ID())
		l.Unlock()
		if got := other.answer(t); got != "ok" {
			t.Fatalf("lock: %s", got)
		}
		if taken, err := l.TryLock(); taken || err != nil {
			t.Fatalf("taken while the child holds it: %v, %v", taken, err)
		}
		if got := other.ask(t, "unlock %d", l.ID()); got != "ok" {
			t.Fatalf("unlock: %s", got)
		}
	})
}

func TestTwoProcessesNeverGetTheSameNumber(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		other := startChild(t, s, place)
		seen := map[string]bool{}
		for range 20 {
			for _, id := range []string{fmt.Sprint(allocated(t, m).ID()), other.ask(t, "allocate 0")} {
				if seen[id] {
					t.Fatalf("lock %s was handed out twice", id)
				}
				seen[id] = true
			}
		}
	})
}

func TestWhoTakesTheLockOfAKilledProcessIsToldOnce(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		holder := startChild(t, s, place)
		if got := holder.ask(t, "lock %d", l.ID()); got != "ok" {
			t.Fatalf("lock: %s", got)
		}
		holder.kill()
		if err := l.LockErr(); err != lockmanager.ErrOwnerDied {
			t.Fatalf("got %v, want ErrOwnerDied", err)
		}
		if info, err := l.Info(); err != nil || !info.Held {
			t.Fatalf("ErrOwnerDied without the lock: %+v, %v", info, err)
		}
		l.Unlock()
		must(t, l.LockErr())
		l.Unlock()
	})
}

func TestAWaiterIsToldThatTheHolderWasKilled(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		holder := startChild(t, s, place)
		holder.ask(t, "lock %d", l.ID())
		got := make(chan error, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			got <- l.LockErr()
			l.UnlockErr()
		}()
		eventually(t, "the goroutine waits", func() bool { return lockmanager.Waiting(l) == 1 })
		holder.kill()
		within(t, "a wait for a dead holder", done)
		if err := <-got; err != lockmanager.ErrOwnerDied {
			t.Fatalf("got %v, want ErrOwnerDied", err)
		}
	})
}

// The runtime parks the main thread where it would end any other, and what it holds stays held, until the process ends.
func TestWhatAGoroutineHoldsThatEndsOnTheMainThreadIsHeldUntilTheProcessEnds(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		other := startChild(t, s, place)
		if got := other.ask(t, "lockandend %d", l.ID()); got != "ok" {
			t.Fatalf("lock: %s", got)
		}
		if taken, err := l.TryLock(); taken || err != nil {
			t.Errorf("taken, or not merely held: %v, %v", taken, err)
		}
		if info, err := l.Info(); err != nil || !info.Held || info.PID != other.command.Process.Pid {
			t.Errorf("%+v, %v of a lock that process %d holds", info, err, other.command.Process.Pid)
		}
		must(t, other.in.Close())
		must(t, other.command.Wait())
		if err := l.LockErr(); err != lockmanager.ErrOwnerDied {
			t.Fatalf("got %v, want ErrOwnerDied", err)
		}
		l.Unlock()
	})
}

func TestLockSwallowsOwnerDeath(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		holder := startChild(t, s, place)
		holder.ask(t, "lock %d", l.ID())
		holder.kill()
		pass(l)
		holder = startChild(t, s, place)
		holder.ask(t, "lock %d", l.ID())
		holder.kill()
		if taken, err := l.TryLock(); !taken || err != lockmanager.ErrOwnerDied {
			t.Fatalf("TryLock after a death: %v, %v", taken, err)
		}
		l.Unlock()
	})
}

// rustCounter names a program that counts in threads of Rust: examples/counter.rs.
const rustCounter = "LOCK_MANAGER_RUST_COUNTER"

func TestGoroutinesAndThreadsOfCAndRustExcludeEachOther(t *testing.T) {
	const rounds, counting = 20_000, 5
	program := os.Getenv(rustCounter)
	if program == "" {
		t.Skipf("skipped: %s does not name the built examples/counter.rs", rustCounter)
	}
	m, path := freshSHM(lockmanager.Libpod)(t)
	l := allocated(t, m)
	file, err := os.Create(filepath.Join(t.TempDir(), "counter"))
	must(t, err)
	must(t, file.Truncate(8))
	counter, err := ctest.NewCounter(file)
	must(t, err)

	// Two threads of its own.
	rust := exec.Command(program, path, fmt.Sprint(l.ID()), fmt.Sprint(rounds), file.Name())
	rust.Stderr = os.Stderr
	must(t, rust.Start())
	thread, err := ctest.StartCounting(path, l.ID(), rounds, counter)
	must(t, err)
	done := make(chan struct{}, 2)
	for range cap(done) {
		go func() {
			for range rounds {
				l.Lock()
				counter.Increment()
				l.Unlock()
			}
			done <- struct{}{}
		}()
	}
	for range cap(done) {
		within(t, "a counting goroutine", done)
	}
	must(t, thread.Join())
	must(t, rust.Wait())
	if got := counter.Value(); got != counting*rounds {
		t.Fatalf("counted to %d, not %d", got, counting*rounds)
	}
}
