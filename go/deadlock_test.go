// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// party is one that takes part in a ring: a goroutine of this process, or a process of its own.
type party struct {
	pid int
	// ask makes a call; the answer comes when the call has returned.
	ask func(call string, id uint32) <-chan string
}

func goroutineParty(t *testing.T, m lockmanager.Manager) party {
	type order struct {
		call   string
		id     uint32
		answer chan<- string
	}
	orders := make(chan order)
	t.Cleanup(func() { close(orders) })
	go func() {
		for o := range orders {
			o.answer <- serveOne(m, o.call, o.id)
		}
	}()
	return party{os.Getpid(), func(call string, id uint32) <-chan string {
		answer := make(chan string, 1)
		orders <- order{call, id, answer}
		return answer
	}}
}

func processParty(t *testing.T, place string) party {
	c := startChild(t, native, place)
	return party{c.command.Process.Pid, func(call string, id uint32) <-chan string {
		answer := make(chan string, 1)
		c.tell(t, "%s %d", call, id)
		go func() {
			// Not answer: it may end the test, which only the test's own goroutine can.
			if c.out.Scan() {
				answer <- c.out.Text()
			}
		}()
		return answer
	}}
}

func answered(t *testing.T, what string, answer <-chan string) string {
	t.Helper()
	select {
	case got := <-answer:
		return got
	case <-time.After(patience):
		t.Fatalf("%s: no answer within %v", what, patience)
		return ""
	}
}

// ringCalls are what each party does: how it holds its own lock, and how it wants its neighbour's.
type ringCalls struct{ take, giveBack, want, giveBackWanted string }

// written is how a ring is closed where nobody reads.
func written(want string) ringCalls { return ringCalls{"lock", "unlock", want, "unlock"} }

// closeRing has each party hold one lock and want its neighbour's, and tells what the one victim was told.
func closeRing(t *testing.T, calls ringCalls, parties []party) string {
	t.Helper()
	for i, p := range parties {
		if got := answered(t, calls.take, p.ask(calls.take, uint32(i))); got != "ok" {
			t.Fatalf("%s of lock %d: %s", calls.take, i, got)
		}
	}
	type outcome struct {
		who  int
		text string
	}
	outcomes := make(chan outcome, len(parties))
	for i, p := range parties {
		answer := p.ask(calls.want, uint32((i+1)%len(parties)))
		go func(who int) { outcomes <- outcome{who, <-answer} }(i)
	}
	next := func() outcome {
		t.Helper()
		select {
		case o := <-outcomes:
			return o
		case <-time.After(patience):
			t.Fatalf("nobody gives way in a ring of %d within %v", len(parties), patience)
			return outcome{}
		}
	}
	victim := next()
	if !strings.HasPrefix(victim.text, failedWith(syscall.EDEADLK)) {
		t.Fatalf("the first to return was told %q", victim.text)
	}
	// The victim still holds its own. With that given back the others come through, one after another.
	free := victim.who
	giveBack := func(who int, call string, id int) {
		t.Helper()
		if got := answered(t, call, parties[who].ask(call, uint32(id))); got != "ok" {
			t.Fatalf("%s of lock %d: %s", call, id, got)
		}
	}
	for i := 0; i < len(parties)-1; i++ {
		giveBack(free, calls.giveBack, free)
		through := next()
		if through.text != "ok" {
			t.Fatalf("one victim is enough, but party %d was told %q", through.who, through.text)
		}
		if (through.who+1)%len(parties) != free {
			t.Fatalf("party %d has come through, though lock %d was free", through.who, free)
		}
		giveBack(through.who, calls.giveBackWanted, free)
		free = through.who
	}
	giveBack(free, calls.giveBack, free)
	return victim.text
}

func TestARingOfHoldersAndWaitersHasOneVictimThatIsToldWhoHoldsWhat(t *testing.T) {
	goroutine := func(t *testing.T, m lockmanager.Manager, _ string) party { return goroutineParty(t, m) }
	// It has the segment open once more: what goroutines hold is counted over all managers.
	another := func(t *testing.T, _ lockmanager.Manager, place string) party {
		m, err := native.open(place)
		must(t, err)
		return goroutineParty(t, m)
	}
	process := func(t *testing.T, _ lockmanager.Manager, place string) party { return processParty(t, place) }
	type maker = func(*testing.T, lockmanager.Manager, string) party
	// That the number is found in the answer is errors.As at work: see answerOf.
	for name, makers := range map[string][]maker{
		"two goroutines":                   {goroutine, goroutine},
		"goroutines of two managers":       {goroutine, another},
		"two processes":                    {process, process},
		"two goroutines and two processes": {goroutine, process, goroutine, process},
		"five goroutines":                  {goroutine, goroutine, goroutine, goroutine, goroutine},
		"a goroutine and a process":        {goroutine, process},
	} {
		for way, calls := range map[string]ringCalls{
			"lock": written("lock"), "lockorpanic": written("lockorpanic"), "lockcontext": written("lockcontext"),
			"readers want to write": {"rlock", "runlock", "lock", "unlock"},
			"writers want to read":  {"lock", "unlock", "rlock", "runlock"},
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				m, place := native.fresh(t)
				var parties []party
				for _, make := range makers {
					parties = append(parties, make(t, m, place))
				}
				text := closeRing(t, calls, parties)
				for i, p := range parties {
					if !strings.Contains(text, fmt.Sprintf("lock %d is held by", i)) {
						t.Errorf("lock %d is not named: %s", i, text)
					}
					if !strings.Contains(text, fmt.Sprintf("of process %d,", p.pid)) {
						t.Errorf("process %d is not named: %s", p.pid, text)
					}
				}
				if held, err := m.LocksHeld(); err != nil || len(held) != 0 {
					t.Errorf("still held: %v, %v", held, err)
				}
			})
		}
	}
}

// They queue in Go for the locks of the ring, and one each waits in C: none of them is told of a cycle that it is not in.
func TestGoroutinesThatHoldNothingAreNoPartOfACycle(t *testing.T) {
	const bystanders = 20
	m, _ := native.fresh(t)
	parties := []party{goroutineParty(t, m), goroutineParty(t, m)}
	blocker := goroutineParty(t, m)
	for id := uint32(0); id < 2; id++ {
		if got := answered(t, "lock", blocker.ask("lock", id)); got != "ok" {
			t.Fatal(got)
		}
	}
	var all sync.WaitGroup
	for id := uint32(0); id < 2; id++ {
		l := retrieved(t, m, id)
		for i := 0; i < bystanders; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				if err := l.LockErr(); err != nil {
					t.Errorf("a bystander was told %v", err)
					return
				}
				l.Unlock()
			}()
		}
		eventually(t, "all bystanders wait", func() bool { return lockmanager.Waiting(l) == bystanders })
	}
	for id := uint32(0); id < 2; id++ {
		if got := answered(t, "unlock", blocker.ask("unlock", id)); got != "ok" {
			t.Fatal(got)
		}
	}
	closeRing(t, written("lock"), parties)
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	within(t, "the bystanders", done)
}

// The way forks: the writer waits for every reader, and the one of them that waits for it closes the circle.
func TestAWriterThatWaitsForSeveralReadersIsInACycleWithOneOfThem(t *testing.T) {
	const readByAll, writers = 0, 1
	m, place := native.fresh(t)
	writer := goroutineParty(t, m)
	wantOK(t, answered(t, "lock", writer.ask("lock", writers)))
	readers := []party{goroutineParty(t, m), processParty(t, place), goroutineParty(t, m)}
	for _, p := range readers {
		wantOK(t, answered(t, "rlock", p.ask("rlock", readByAll)))
	}
	drained := writer.ask("lock", readByAll)
	eventually(t, "the writer is next", func() bool { return infoOf(t, retrieved(t, m, readByAll)).Draining })
	last := readers[len(readers)-1]
	wanted := last.ask("lock", writers)

	// Whoever gives way holds what it held; with that given back the other comes through.
	wantVictim := func(told string) {
		t.Helper()
		if !strings.HasPrefix(told, failedWith(syscall.EDEADLK)) {
			t.Fatalf("the first to return was told %q", told)
		}
	}
	readersLeave := func() {
		t.Helper()
		for _, p := range readers {
			wantOK(t, answered(t, "runlock", p.ask("runlock", readByAll)))
		}
	}
	select {
	case told := <-drained:
		wantVictim(told)
		wantOK(t, answered(t, "unlock", writer.ask("unlock", writers)))
		wantOK(t, answered(t, "the reader", wanted))
		wantOK(t, answered(t, "unlock", last.ask("unlock", writers)))
		readersLeave()
	case told := <-wanted:
		wantVictim(told)
		readersLeave()
		wantOK(t, answered(t, "the writer", drained))
		wantOK(t, answered(t, "unlock", writer.ask("unlock", readByAll)))
		wantOK(t, answered(t, "unlock", writer.ask("unlock", writers)))
	case <-time.After(patience):
		t.Fatalf("nobody gives way within %v", patience)
	}
	if held, err := m.LocksHeld(); err != nil || len(held) != 0 {
		t.Errorf("still held: %v, %v", held, err)
	}
}
