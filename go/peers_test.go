// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	lockmanager "github.com/lock-manager/lock-manager/go"
	"github.com/lock-manager/lock-manager/go/internal/ctest"
)

// peers are a C process, and a child of it that was cloned behind the libc's back, as Podman and crun clone theirs.
type peers struct {
	c *child
	// clone is the child's number.
	clone   int
	counter ctest.Counter
}

// tellClone hands a line on to the child; its answer is asked for apart.
func (p peers) tellClone(t *testing.T, format string, arguments ...any) {
	t.Helper()
	p.c.tell(t, "child "+format, arguments...)
}

func (p peers) askClone(t *testing.T, format string, arguments ...any) string {
	t.Helper()
	p.tellClone(t, format, arguments...)
	return p.c.ask(t, "answer")
}

func startPeers(t *testing.T, place string) peers {
	t.Helper()
	file, counter := newCounter(t)
	c := startProcess(t, "LOCKMANAGER_TEST_C_PEER="+place, "LOCKMANAGER_TEST_C_COUNTER="+file.Name())
	// The C process is attached, and holds a lock, before it is cloned: its child must not take that for its own.
	wantOK(t, c.ask(t, "lock 63"))
	clone, err := strconv.Atoi(c.ask(t, "clone"))
	must(t, err)
	t.Cleanup(func() { syscall.Kill(clone, syscall.SIGKILL) })
	return peers{c, clone, counter}
}

func TestGoCAndARawCloneExcludeEachOtherOnOneNativeSegment(t *testing.T) {
	const goroutines, rounds = 2, 10_000
	m, place := native.fresh(t)
	p := startPeers(t, place)
	l := retrieved(t, m, 0)

	l.Lock()
	for who, got := range map[string]string{"C": p.c.ask(t, "try 0"), "the clone": p.askClone(t, "try 0")} {
		if got != "busy" {
			t.Errorf("%s, while Go holds it: %s", who, got)
		}
	}
	l.Unlock()
	wantOK(t, p.askClone(t, "lock 0"))
	if taken, err := l.TryLock(); taken || err != nil {
		t.Errorf("Go, while the clone holds it: %v, %v", taken, err)
	}
	if got := p.c.ask(t, "try 0"); got != "busy" {
		t.Errorf("C, while its clone holds it: %s", got)
	}
	if got := p.c.ask(t, "unlock 0"); !strings.HasPrefix(got, failedWith(syscall.EPERM)) {
		t.Errorf("C has unlocked what its clone holds: %s", got)
	}
	if info, err := l.Info(); err != nil || info.PID != p.clone {
		t.Errorf("%+v, %v of a lock that process %d holds", info, err, p.clone)
	}
	wantOK(t, p.askClone(t, "unlock 0"))
	if got := p.askClone(t, "try 63"); got != "busy" {
		t.Errorf("the clone, of what C held when it was made: %s", got)
	}

	p.tellClone(t, "count 0 %d", rounds)
	p.c.tell(t, "count 0 %d", rounds)
	done := make(chan error, goroutines)
	for i := 0; i < goroutines; i++ {
		go func() {
			for i := 0; i < rounds; i++ {
				if err := l.LockErr(); err != nil {
					done <- err
					return
				}
				p.counter.Increment()
				l.Unlock()
			}
			done <- nil
		}()
	}
	for i := 0; i < goroutines; i++ {
		must(t, <-done)
	}
	wantOK(t, p.c.answer(t))
	wantOK(t, p.c.ask(t, "answer"))
	if got, want := p.counter.Value(), uint64((goroutines+2)*rounds); got != want {
		t.Fatalf("counted to %d, not %d", got, want)
	}
	if info, err := m.Info(); err != nil || info.Attached != 3 {
		t.Errorf("%+v, %v with three processes attached", info, err)
	}
}

func TestAGoWaiterIsToldThatARawCloneDiedHolding(t *testing.T) {
	m, place := native.fresh(t)
	p := startPeers(t, place)
	wantOK(t, p.askClone(t, "lock 0"))
	got := waitedFor(t, retrieved(t, m, 0))
	must(t, syscall.Kill(p.clone, syscall.SIGKILL))
	wantOwnerDied(t, got)
	if taken, err := retrieved(t, m, 63).TryLock(); taken || err != nil {
		t.Fatalf("what the clone's parent holds was lost with the clone: %v, %v", taken, err)
	}
	wantOK(t, p.c.ask(t, "unlock 63"))
	pass(retrieved(t, m, 63))
}

// A child that its parent cloned keeps nothing of the parent's alive, though it lives on, and stopped at that.
func TestAGoWaiterIsToldThatACProcessDiedThatHasALivingClone(t *testing.T) {
	m, place := native.fresh(t)
	p := startPeers(t, place)
	wantOK(t, p.askClone(t, "lock 0"))
	must(t, syscall.Kill(p.clone, syscall.SIGSTOP))
	got := waitedFor(t, retrieved(t, m, 63))
	p.c.kill()
	wantOwnerDied(t, got)
	if taken, err := retrieved(t, m, 0).TryLock(); taken || err != nil {
		t.Fatalf("what the stopped clone holds was taken from it: %v, %v", taken, err)
	}
	must(t, syscall.Kill(p.clone, syscall.SIGKILL))
	if err := retrieved(t, m, 0).LockErr(); err != lockmanager.ErrOwnerDied {
		t.Fatalf("got %v, want ErrOwnerDied", err)
	}
	retrieved(t, m, 0).Unlock()
}
