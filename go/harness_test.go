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
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// patience is how long anything may take that is not to hang. Generous: the machine may be busy.
const patience = 30 * time.Second

// extended is what the concrete types offer beyond libpod's Locker.
type extended interface {
	lockmanager.Locker
	LockErr() error
	UnlockErr() error
	TryLock() (bool, error)
	LockContext(ctx context.Context) error
	Info() (lockmanager.LockInfo, error)
	Repair() error
}

type extendedManager = lockmanager.ExtendedManager

// storage is one kind of manager under test. A line in storages runs every test of the contract on it.
type storage struct {
	name string
	// fresh makes a manager of 64 locks on storage of its own.
	fresh func(t testing.TB, opts ...lockmanager.Option) (extendedManager, string)
	// open opens the same storage once more; nil: it is this manager's own.
	open func(place string) (lockmanager.Manager, error)
	// limited: it has 64 locks and no more.
	limited bool
	// processOwned: its locks can belong to the process.
	processOwned bool
}

var storages = []storage{
	{name: "shm-libpod", fresh: freshSHM(lockmanager.Libpod), open: openSHM, limited: true},
	{name: "shm-native", fresh: freshSHM(lockmanager.Native), open: openSHM, limited: true, processOwned: true},
	{name: "file", fresh: freshFile, open: openFile, processOwned: true},
	{name: "in-memory", fresh: freshInMemory, limited: true, processOwned: true},
}

var libpod, native = storages[0], storages[1]

var names atomic.Uint32

func freshSHM(layout lockmanager.Layout) func(testing.TB, ...lockmanager.Option) (extendedManager, string) {
	return func(t testing.TB, opts ...lockmanager.Option) (extendedManager, string) {
		t.Helper()
		path := newSHMName(t)
		m, err := lockmanager.NewSHMLockManager(path, 64, append(opts, lockmanager.WithLayout(layout))...)
		must(t, err)
		return m.(extendedManager), path
	}
}

// newSHMName is a name that nobody else has, whose segment goes with the test.
func newSHMName(t testing.TB) string {
	path := fmt.Sprintf("/lm-test-go-%d-%d", os.Getpid(), names.Add(1))
	t.Cleanup(func() { os.Remove(filepath.Join("/dev/shm", path)) })
	return path
}

func openSHM(place string) (lockmanager.Manager, error) {
	return lockmanager.OpenOrNewSHMLockManager(place, 0)
}

func freshFile(t testing.TB, opts ...lockmanager.Option) (extendedManager, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "locks")
	m, err := lockmanager.NewFileLockManager(path, opts...)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("skipped: files cannot be locked there: ", err)
	}
	must(t, err)
	return m.(extendedManager), path
}

func openFile(place string) (lockmanager.Manager, error) {
	return lockmanager.OpenFileLockManager(place)
}

func freshInMemory(t testing.TB, opts ...lockmanager.Option) (extendedManager, string) {
	t.Helper()
	m, err := lockmanager.NewInMemoryManager(64, opts...)
	must(t, err)
	return m.(extendedManager), ""
}

func onEveryStorage(t *testing.T, test func(t *testing.T, s storage)) {
	for _, s := range storages {
		t.Run(s.name, func(t *testing.T) { test(t, s) })
	}
}

// onSharedStorages is for tests that open the storage twice.
func onSharedStorages(t *testing.T, test func(t *testing.T, s storage)) {
	for _, s := range storages {
		if s.open != nil {
			t.Run(s.name, func(t *testing.T) { test(t, s) })
		}
	}
}

// pass takes the lock once.
func pass(l lockmanager.Locker) {
	l.Lock()
	defer l.Unlock()
}

func allocated(t testing.TB, m lockmanager.Manager) extended {
	t.Helper()
	l, err := m.AllocateLock()
	must(t, err)
	return l.(extended)
}

func retrieved(t testing.TB, m lockmanager.Manager, id uint32) extended {
	t.Helper()
	l, err := m.RetrieveLock(id)
	must(t, err)
	return l.(extended)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// within fails the test if what runs in the goroutine does not end.
func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v", what, patience)
	}
}

// elsewhere runs f in a goroutine of its own, and waits for it.
func elsewhere(t testing.TB, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	within(t, "a goroutine", done)
}

// eventually asks again until it is true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

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
		case "aside":
			answer := make(chan string)
			go holdAside(m, number, answer, aside)
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

// holdAside takes a lock in a goroutine off the main thread, and ends with it held as it is told: alone, or by executing
// another program.
func holdAside(m lockmanager.Manager, id uint32, answer chan<- string, orders <-chan string) {
	got := serveOne(m, "lock", id)
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
