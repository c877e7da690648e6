// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

const childVariable = "LOCKMANAGER_TEST_CHILD"

// child is a process of its own, driven by lines.
type child struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
}

// startChild starts a process that has the storage open.
func startChild(t testing.TB, s storage, place string) *child {
	t.Helper()
	return startProcess(t, childVariable+"="+s.name+" "+place)
}

// startProcess starts this program once more, with variables that say what it is to be.
func startProcess(t testing.TB, variables ...string) *child {
	t.Helper()
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), variables...)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := command.StdinPipe()
	must(t, err)
	out, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	c := &child{command, in, bufio.NewScanner(out)}
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	c.command.Process.Kill()
	c.command.Wait()
}

// ask sends a line and returns the answer.
func (c *child) ask(t testing.TB, format string, arguments ...any) string {
	t.Helper()
	c.tell(t, format, arguments...)
	return c.answer(t)
}

func (c *child) tell(t testing.TB, format string, arguments ...any) {
	t.Helper()
	_, err := fmt.Fprintf(c.in, format+"\n", arguments...)
	must(t, err)
}

func (c *child) answer(t testing.TB) string {
	t.Helper()
	watchdog := time.AfterFunc(patience, func() { c.command.Process.Kill() })
	defer watchdog.Stop()
	if !c.out.Scan() {
		t.Fatal("the child has ended, or did not answer in time")
	}
	return c.out.Text()
}

// The main goroutine keeps the main thread, so that no test is given the one thread that never ends.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if place, ok := os.LookupEnv(childVariable); ok {
		serve(place)
		return
	}
	os.Exit(m.Run())
}

// serve is a child's life: a line names a call and a number, the answer is what it returned.
func serve(what string) {
	kind, place, _ := strings.Cut(what, " ")
	if kind == afterExec {
		fmt.Println("ok")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	var m lockmanager.Manager
	err := errors.New("no such storage: " + kind)
	for _, s := range storages {
		if s.name == kind {
			m, err = s.open(place)
		}
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	aside := make(chan string)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var call string
		var number uint32
		fmt.Sscan(lines.Text(), &call, &number)
		switch call {
		case "aside", "readaside":
			answer := make(chan string)
			how := map[string]string{"aside": "lock", "readaside": "rlock"}[call]
			go holdAside(m, how, number, answer, aside)
			fmt.Println(<-answer)
		case "end", "exec":
			aside <- call
		case "remove":
			fmt.Println(answerOf(lockmanager.RemoveSHM(place)))
		default:
			fmt.Println(serveOne(m, call, number))
		}
	}
}

// afterExec is what a child is once it has replaced its program.
const afterExec = "after-exec"

// holdAside takes a lock by that call in a goroutine off the main thread, and ends with it held as it is told: alone, or
// by executing another program.
func holdAside(m lockmanager.Manager, call string, id uint32, answer chan<- string, orders <-chan string) {
	got := serveOne(m, call, id)
	if syscall.Gettid() == syscall.Getpid() {
		got = "on the main thread"
	}
	answer <- got
	if <-orders == "end" {
		return
	}
	os.Setenv(childVariable, afterExec)
	err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	fmt.Println("exec:", err)
}

// serveOne makes one call of a manager, or of its lock of that number.
func serveOne(m lockmanager.Manager, call string, number uint32) string {
	switch call {
	case "grow":
		return answerOf(m.(extendedManager).Grow(number))
	case "allocate":
		l, err := m.AllocateLock()
		if err != nil {
			return answerOf(err)
		}
		return fmt.Sprint(l.ID())
	}
	locker, err := m.RetrieveLock(number)
	if err != nil {
		return answerOf(err)
	}
	l := locker.(extended)
	switch call {
	case "lock":
		err = l.LockErr()
	case "lockcontext":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = l.LockContext(ctx)
	case "lockorpanic":
		err = recovered(l.Lock)
	case "unlock":
		err = l.UnlockErr()
	case "try":
		var taken bool
		if taken, err = l.TryLock(); err == nil && !taken {
			return "busy"
		}
	case "rlock":
		err = l.RLockErr()
	case "runlock":
		err = l.RUnlockErr()
	case "rtry":
		var taken bool
		if taken, err = l.TryRLock(); err == nil && !taken {
			return "busy"
		}
	case "downgrade":
		err = l.Downgrade()
	case "turns":
		err = takeTurns(l, 1, 1)
	case "lockandend":
		// On the main goroutine, which init has pinned to the main thread.
		if err = l.LockErr(); err == nil {
			fmt.Println("ok")
			go func() { io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
			runtime.Goexit()
		}
	case "free":
		err = l.Free()
	default:
		return "no such call: " + call
	}
	return answerOf(err)
}

// takeTurns has that many readers and writers take the lock again and again, and give it back at once.
func takeTurns(l extended, readers, writers int) error {
	const turns = 2000
	got := make(chan error, readers+writers)
	run := func(count int, take, giveBack func() error) {
		for i := 0; i < count; i++ {
			go func() {
				var err error
				for i := 0; i < turns && err == nil; i++ {
					if err = take(); err == nil {
						err = giveBack()
					}
				}
				got <- err
			}()
		}
	}
	run(readers, l.RLockErr, l.RUnlockErr)
	run(writers, l.LockErr, l.UnlockErr)
	for i := 0; i < readers+writers; i++ {
		if err := <-got; err != nil {
			return err
		}
	}
	return nil
}

// recovered is what f panics with, if that is an error.
func recovered(f func()) (err error) {
	defer func() { err, _ = recover().(error) }()
	f()
	return nil
}

// answerOf puts an error into a line. Its number comes first.
func answerOf(err error) string {
	var number syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case err == lockmanager.ErrOwnerDied:
		return "owner died"
	case errors.As(err, &number):
		return failedWith(number) + err.Error()
	}
	return err.Error()
}

// failedWith is how the answer of a call begins that failed with that number.
func failedWith(number syscall.Errno) string { return fmt.Sprintf("%d: ", int(number)) }
