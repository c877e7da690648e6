// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

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
		for i := 0; i < 20; i++ {
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
		got := waitedFor(t, l)
		holder.kill()
		wantOwnerDied(t, got)
	})
}

func waitedFor(t *testing.T, l extended) <-chan error {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		err := l.LockErr()
		l.UnlockErr()
		got <- err
	}()
	eventually(t, "the goroutine waits", func() bool { return lockmanager.Waiting(l) == 1 })
	return got
}

func wantOwnerDied(t *testing.T, got <-chan error) {
	t.Helper()
	select {
	case err := <-got:
		if err != lockmanager.ErrOwnerDied {
			t.Fatalf("got %v, want ErrOwnerDied", err)
		}
	case <-time.After(patience):
		t.Fatalf("a waiter was not told of the holder's end within %v", patience)
	}
}

// skipIfHoldersCannotBeJudged skips a test in which the library has to prove that a thread is gone whose death the kernel has
// missed. In the libpod layout it can do that only where it sees all processes.
func skipIfHoldersCannotBeJudged(t *testing.T, s storage) {
	t.Helper()
	const initial = "pid:[4026531836]"
	if namespace, err := os.Readlink("/proc/self/ns/pid"); s.name == libpod.name && (err != nil || namespace != initial) {
		t.Skip("skipped: needs the initial PID namespace")
	}
}

// Off the main thread the one that calls exec takes over the main thread's number, so that its list of robust mutexes is
// lost to the kernel.
func TestAWaiterIsToldThatTheHolderHasExecutedAnotherProgram(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		skipIfHoldersCannotBeJudged(t, s)
		m, place := s.fresh(t)
		l := allocated(t, m)
		holder := startChild(t, s, place)
		if got := holder.ask(t, "aside %d", l.ID()); got != "ok" {
			t.Fatalf("lock: %s", got)
		}
		got := waitedFor(t, l)
		if answer := holder.ask(t, "exec"); answer != "ok" {
			t.Fatalf("exec: %s", answer)
		}
		wantOwnerDied(t, got)
		if err := holder.command.Process.Signal(syscall.Signal(0)); err != nil {
			t.Fatalf("the new program was to live on: %v", err)
		}
	})
}

func TestAWaiterInAnotherProcessIsToldThatTheHoldersGoroutineHasEnded(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		holder := startChild(t, s, place)
		if got := holder.ask(t, "aside %d", l.ID()); got != "ok" {
			t.Fatalf("lock: %s", got)
		}
		got := waitedFor(t, l)
		holder.tell(t, "end")
		wantOwnerDied(t, got)
		if answer := holder.ask(t, "lock %d", l.ID()); answer != "ok" {
			t.Fatalf("what is left of the holder's process cannot take it: %s", answer)
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

// That the holder was found alive a moment ago must not keep its death from whoever tries next.
func TestWhoTriesALockRightAfterItsHoldersDeathHasIt(t *testing.T) {
	onSharedStorages(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		for i := 0; i < 5; i++ {
			holder := startChild(t, s, place)
			wantOK(t, holder.ask(t, "lock %d", l.ID()))
			if taken, err := l.TryLock(); taken || err != nil {
				t.Fatalf("taken while the child holds it: %v, %v", taken, err)
			}
			holder.kill()
			if taken, err := l.TryLock(); !taken || err != lockmanager.ErrOwnerDied {
				t.Fatalf("TryLock after a death: %v, %v", taken, err)
			}
			l.Unlock()
		}
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
	program := os.Getenv(rustCounter)
	if program == "" {
		t.Skipf("skipped: %s does not name the built examples/counter.rs", rustCounter)
	}
	for _, layout := range []lockmanager.Layout{lockmanager.Libpod, lockmanager.Native} {
		t.Run(fmt.Sprint("layout-", layout), func(t *testing.T) { countInThreeLanguages(t, program, layout) })
	}
}

func countInThreeLanguages(t *testing.T, program string, layout lockmanager.Layout) {
	const rounds, counting = 20_000, 5
	m, path := storage{try: trySHM(layout)}.fresh(t)
	l := allocated(t, m)
	file, counter := newCounter(t)

	// Two threads of its own.
	rust := exec.Command(program, path, fmt.Sprint(l.ID()), fmt.Sprint(rounds), file.Name())
	rust.Stderr = os.Stderr
	must(t, rust.Start())
	thread, err := ctest.StartCounting(path, l.ID(), rounds, counter)
	must(t, err)
	done := make(chan struct{}, 2)
	for i := 0; i < cap(done); i++ {
		go func() {
			for i := 0; i < rounds; i++ {
				l.Lock()
				counter.Increment()
				l.Unlock()
			}
			done <- struct{}{}
		}()
	}
	for i := 0; i < cap(done); i++ {
		within(t, "a counting goroutine", done)
	}
	must(t, thread.Join())
	must(t, rust.Wait())
	if got := counter.Value(); got != counting*rounds {
		t.Fatalf("counted to %d, not %d", got, counting*rounds)
	}
}

func newCounter(t *testing.T) (*os.File, ctest.Counter) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "counter"))
	must(t, err)
	t.Cleanup(func() { file.Close() })
	must(t, file.Truncate(8))
	counter, err := ctest.NewCounter(file)
	must(t, err)
	return file, counter
}
