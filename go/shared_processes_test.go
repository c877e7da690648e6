// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"strings"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

func TestReadersOfSeveralProcessesHoldALockTogether(t *testing.T) {
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		other := startChild(t, s, place)
		wantOK(t, other.ask(t, "rlock %d", l.ID()))
		must(t, l.RLockErr())
		holders, err := l.Holders()
		must(t, err)
		seen := map[int]bool{}
		for _, h := range holders {
			seen[h.PID] = h.Shared
		}
		if pid := other.command.Process.Pid; len(holders) != 2 || !seen[pid] || !seen[syscall.Getpid()] {
			t.Errorf("%+v of a lock that processes %d and %d read", holders, pid, syscall.Getpid())
		}
		l.RUnlock()
		if taken, err := l.TryLock(); taken || err != nil {
			t.Errorf("taken while the child reads: %v, %v", taken, err)
		}
		wantOK(t, other.ask(t, "runlock %d", l.ID()))
		l.Lock()
		if got := other.ask(t, "rtry %d", l.ID()); got != "busy" {
			t.Errorf("the child, while this process writes: %s", got)
		}
		must(t, l.Downgrade())
		wantOK(t, other.ask(t, "rtry %d", l.ID()))
		if got := other.ask(t, "unlock %d", l.ID()); !strings.HasPrefix(got, failedWith(syscall.EPERM)) {
			t.Errorf("the child has unlocked what it reads as if it wrote: %s", got)
		}
		wantOK(t, other.ask(t, "runlock %d", l.ID()))
		l.RUnlock()
	})
}

func TestAWriterGetsInWhenTheReadersProcessIsKilledAndIsNotTold(t *testing.T) {
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		killed, other := startChild(t, s, place), startChild(t, s, place)
		wantOK(t, killed.ask(t, "rlock %d", l.ID()))
		wantOK(t, other.ask(t, "rlock %d", l.ID()))
		written := drains(t, l)
		killed.kill()
		// The living one is not robbed with the dead.
		wantBusy(t, "TryRLock behind the writer that waits", l.TryRLock)
		wantOK(t, other.ask(t, "runlock %d", l.ID()))
		must(t, outcome(t, "the writer", written))
	})
}

func TestAWriterInAnotherProcessGetsInWhenTheReadersGoroutineHasEnded(t *testing.T) {
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		for _, end := range []string{"end", "exec"} {
			m, place := s.fresh(t)
			l := allocated(t, m)
			reader := startChild(t, s, place)
			wantOK(t, reader.ask(t, "readaside %d", l.ID()))
			written := drains(t, l)
			reader.tell(t, end)
			must(t, outcome(t, "the writer, after "+end, written))
		}
	})
}

// Of several readers of one process, in whatever order they unlock or end, the last has let go of all that the process had.
func TestAWriterGetsInWhateverTheOrderInWhichTheReadersOfAProcessLeave(t *testing.T) {
	const end, unlock = "end", "runlock %d"
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		for _, order := range [][]string{{end, unlock}, {unlock, end}} {
			m, place := s.fresh(t)
			l := allocated(t, m)
			readers := startChild(t, s, place)
			wantOK(t, readers.ask(t, "readaside %d", l.ID()))
			wantOK(t, readers.ask(t, "rlock %d", l.ID()))
			written := drains(t, l)
			for _, how := range order {
				if how == end {
					readers.tell(t, end)
				} else {
					wantOK(t, readers.ask(t, unlock, l.ID()))
				}
			}
			must(t, outcome(t, "the writer", written))
		}
	})
}

func TestReadersAndWritersOfTwoProcessesTakeTurns(t *testing.T) {
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		// All begin at once.
		release := heldElsewhere(t, l.LockErr, l.UnlockErr)
		other := startChild(t, s, place)
		other.tell(t, "turns %d", l.ID())
		eventually(t, "the other process waits", func() bool { return infoOf(t, l).Waiters == 2 })
		got := make(chan error, 1)
		go func() { got <- takeTurns(l, 2, 0) }()
		eventually(t, "the readers wait", func() bool { return lockmanager.WaitingToRead(l) == 2 })
		release()
		must(t, outcome(t, "two readers", got))
		wantOK(t, other.answer(t))
	})
}

func TestReadersThatWaitAreEachToldThatTheWriterWasKilled(t *testing.T) {
	const waiters = 5
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		writer, bystander := startChild(t, s, place), startChild(t, s, place)
		wantOK(t, writer.ask(t, "lock %d", l.ID()))
		var readers []<-chan error
		for i := 0; i < waiters; i++ {
			readers = append(readers, waitsToRead(t, l))
		}
		bystander.tell(t, "rlock %d", l.ID())
		writer.kill()
		for _, got := range readers {
			wantOwnerDied(t, got)
		}
		if got := bystander.answer(t); got != "owner died" {
			t.Errorf("the reader of another process was told %q", got)
		}
		wantOK(t, bystander.ask(t, "runlock %d", l.ID()))
		if err := l.LockErr(); err != lockmanager.ErrOwnerDied {
			t.Fatalf("the next writer was told %v", err)
		}
		l.Unlock()
		wantOK(t, bystander.ask(t, "rlock %d", l.ID()))
	})
}

func TestAWriterThatIsKilledBeforeItHeldTheLockIsToldToNobody(t *testing.T) {
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		leave := reading(t, l)
		writer := startChild(t, s, place)
		writer.tell(t, "lock %d", l.ID())
		eventually(t, "the writer is next", func() bool { return infoOf(t, l).Draining })
		later := waitsToRead(t, l)
		writer.kill()
		must(t, outcome(t, "a reader behind the writer that was killed", later))
		leave()
		must(t, l.LockErr())
		l.Unlock()
	})
}

func TestAProcessThatIsKilledAfterDowngradeIsToldToNobody(t *testing.T) {
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		holder := startChild(t, s, place)
		wantOK(t, holder.ask(t, "lock %d", l.ID()))
		reader := waitsToRead(t, l)
		wantOK(t, holder.ask(t, "downgrade %d", l.ID()))
		must(t, outcome(t, "the reader that waited", reader))
		written := drains(t, l)
		holder.kill()
		must(t, outcome(t, "the writer", written))
	})
}

// A stopped reader holds what it holds: the writer's deadline is the way out.
func TestAStoppedReaderIsNotRobbed(t *testing.T) {
	onSharedStoragesWithReaders(t, func(t *testing.T, s storage) {
		m, place := s.fresh(t)
		l := allocated(t, m)
		reader := startChild(t, s, place)
		wantOK(t, reader.ask(t, "rlock %d", l.ID()))
		must(t, reader.command.Process.Signal(syscall.SIGSTOP))
		wantError(t, l.LockContext(endingContext(t)), syscall.ETIMEDOUT)
		reading(t, l)()
		written := drains(t, l)
		must(t, reader.command.Process.Signal(syscall.SIGCONT))
		wantOK(t, reader.ask(t, "runlock %d", l.ID()))
		must(t, outcome(t, "the writer", written))
	})
}

func TestGoCAndARawCloneReadTogether(t *testing.T) {
	m, place := native.fresh(t)
	p := startPeers(t, place)
	l := retrieved(t, m, 0)
	wantOK(t, p.c.ask(t, "rlock 0"))
	wantOK(t, p.askClone(t, "rlock 0"))
	must(t, l.RLockErr())
	if info := infoOf(t, l); info.Readers != 3 {
		t.Errorf("%+v of a lock that Go, C and a clone read", info)
	}
	l.RUnlock()
	written := drains(t, l)
	wantOK(t, p.c.ask(t, "runlock 0"))
	must(t, syscall.Kill(p.clone, syscall.SIGKILL))
	must(t, outcome(t, "the writer", written))
	if got := p.c.ask(t, "runlock 0"); !strings.HasPrefix(got, failedWith(syscall.EPERM)) {
		t.Errorf("C has given back what it does not read: %s", got)
	}
}
