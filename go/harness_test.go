// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

// timeFactor says in the environment how much slower than usual this machine is; it is empty on a usual one.
const timeFactor = "LOCK_MANAGER_TEST_TIME_FACTOR"

// patience is how long anything may take that is not to hang. Generous: the machine may be busy.
const patience = 30 * time.Second

// extended is what the concrete types offer beyond libpod's Locker.
type extended interface {
	lockmanager.Locker
	LockErr() error
	UnlockErr() error
	TryLock() (bool, error)
	LockContext(ctx context.Context) error
	RLock()
	RUnlock()
	RLocker() sync.Locker
	RLockErr() error
	RUnlockErr() error
	TryRLock() (bool, error)
	RLockContext(ctx context.Context) error
	Downgrade() error
	Holders() ([]lockmanager.LockHolder, error)
	Info() (lockmanager.LockInfo, error)
	Repair() error
}

type extendedManager = lockmanager.ExtendedManager

// storage is one kind of manager under test. A line in storages runs every test of the contract on it: those of what it
// has, and of what it lacks TestAStorageHasWhatItsLineSaysAndNothingElse.
type storage struct {
	name string
	// try makes a manager of 64 locks on storage of its own.
	try func(t testing.TB, opts ...lockmanager.Option) (lockmanager.Manager, string, error)
	// open opens the same storage once more; nil: it is this manager's own.
	open func(place string) (lockmanager.Manager, error)
	// limited: it has 64 locks and no more.
	limited bool
	// grows: there can come to be more.
	grows bool
	// processOwned: its locks can belong to the process.
	processOwned bool
	// readers: its locks can be held shared.
	readers bool
}

// Podman's format is an array of POSIX mutexes: its length is fixed, and a mutex belongs to one thread. A directory has room
// for every id, so that there is nothing to grow. The locks in memory are of one process.
var storages = []storage{
	{name: "shm-libpod", try: trySHM(lockmanager.Libpod), open: openSHM, limited: true},
	{name: "shm-native", try: trySHM(lockmanager.Native), open: openSHM, limited: true, grows: true, processOwned: true, readers: true},
	{name: "file", try: tryFile, open: openFile, processOwned: true, readers: true},
	{name: "in-memory", try: tryInMemory, limited: true, grows: true, processOwned: true, readers: true},
}

// fresh is what try makes, which has to go well.
func (s storage) fresh(t testing.TB, opts ...lockmanager.Option) (extendedManager, string) {
	t.Helper()
	m, place, err := s.try(t, opts...)
	must(t, err)
	return m.(extendedManager), place
}

var libpod, native, files, memory = storages[0], storages[1], storages[2], storages[3]

var names atomic.Uint32

func trySHM(layout lockmanager.Layout) func(testing.TB, ...lockmanager.Option) (lockmanager.Manager, string, error) {
	return func(t testing.TB, opts ...lockmanager.Option) (lockmanager.Manager, string, error) {
		path := newSHMName(t)
		m, err := lockmanager.NewSHMLockManager(path, 64, append(opts, lockmanager.WithLayout(layout))...)
		return m, path, err
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

func tryFile(t testing.TB, opts ...lockmanager.Option) (lockmanager.Manager, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "locks")
	m, err := lockmanager.NewFileLockManager(path, opts...)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("skipped: files cannot be locked there: ", err)
	}
	return m, path, err
}

func openFile(place string) (lockmanager.Manager, error) {
	return lockmanager.OpenFileLockManager(place)
}

func tryInMemory(_ testing.TB, opts ...lockmanager.Option) (lockmanager.Manager, string, error) {
	m, err := lockmanager.NewInMemoryManager(64, opts...)
	return m, "", err
}

func onEveryStorage(t *testing.T, test func(t *testing.T, s storage)) {
	onStorages(t, func(storage) bool { return true }, test)
}

// onSharedStorages is for tests that open the storage twice.
func onSharedStorages(t *testing.T, test func(t *testing.T, s storage)) {
	onStorages(t, func(s storage) bool { return s.open != nil }, test)
}

// onLimitedStorages is for tests of a number of locks.
func onLimitedStorages(t *testing.T, test func(t *testing.T, s storage)) {
	onStorages(t, func(s storage) bool { return s.limited }, test)
}

// onProcessOwnedStorages is for tests of locks that belong to the process.
func onProcessOwnedStorages(t *testing.T, test func(t *testing.T, s storage)) {
	onStorages(t, func(s storage) bool { return s.processOwned }, test)
}

// onStoragesWithReaders is for tests of locks that are held shared.
func onStoragesWithReaders(t *testing.T, test func(t *testing.T, s storage)) {
	onStorages(t, func(s storage) bool { return s.readers }, test)
}

// onSharedStoragesWithReaders is for those of them that open the storage twice.
func onSharedStoragesWithReaders(t *testing.T, test func(t *testing.T, s storage)) {
	onStorages(t, func(s storage) bool { return s.readers && s.open != nil }, test)
}

func onStorages(t *testing.T, fit func(storage) bool, test func(t *testing.T, s storage)) {
	for _, s := range storages {
		if fit(s) {
			t.Run(s.name, func(t *testing.T) { test(t, s) })
		}
	}
}

// pass takes the lock once.
func pass(l sync.Locker) {
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

// outcome is what the call in a goroutine has returned.
func outcome(t testing.TB, what string, got <-chan error) error {
	t.Helper()
	select {
	case err := <-got:
		return err
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v", what, patience)
		return nil
	}
}

// heldElsewhere takes a lock in a goroutine of its own; what it returns has that goroutine give the lock back.
func heldElsewhere(t testing.TB, take, giveBack func() error) func() {
	t.Helper()
	taken, given, release := make(chan error, 1), make(chan error, 1), make(chan struct{})
	go func() {
		taken <- take()
		<-release
		given <- giveBack()
	}()
	must(t, outcome(t, "taking a lock", taken))
	return func() {
		t.Helper()
		close(release)
		must(t, outcome(t, "giving it back", given))
	}
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
