// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

func Example() {
	path := fmt.Sprintf("/lm-test-go-example-%d", os.Getpid())
	manager, err := lockmanager.OpenOrNewSHMLockManager(path, 2048)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lockmanager.RemoveSHM(path)
	defer manager.Close()

	lock, err := manager.AllocateLock()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lock.Free()

	// Another process finds the same lock by its number.
	lock.Lock()
	defer lock.Unlock()
	held, err := manager.LocksHeld()
	fmt.Println(held, err)
	// Output: [0] <nil>
}

func ExampleSHMLock_LockErr() {
	path := fmt.Sprintf("/lm-test-go-example-lock-%d", os.Getpid())
	manager, err := lockmanager.NewSHMLockManager(path, 64)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lockmanager.RemoveSHM(path)
	locker, err := manager.AllocateLock()
	if err != nil {
		fmt.Println(err)
		return
	}
	lock := locker.(*lockmanager.SHMLock)

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lock.Lock() // and never unlocked: the thread ends with this goroutine
	}()
	<-ended

	switch err := lock.LockErr(); {
	case errors.Is(err, lockmanager.ErrOwnerDied):
		fmt.Println("held now; what it protects may be half written")
	case err != nil:
		fmt.Println(err)
		return
	}
	lock.Unlock()
	// Output: held now; what it protects may be half written
}

func ExampleSHMLockManager_Grow() {
	path := fmt.Sprintf("/lm-test-go-example-grow-%d", os.Getpid())
	manager, err := lockmanager.OpenOrNewSHMLockManager(path, 64)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lockmanager.RemoveSHM(path)
	// Another process would have it open like this, whatever its number of locks has come to be.
	other, err := lockmanager.OpenOrNewSHMLockManager(path, 0)
	if err != nil {
		fmt.Println(err)
		return
	}

	_, err = other.RetrieveLock(100)
	fmt.Println("before:", errors.Is(err, syscall.EINVAL))
	if err := manager.Grow(128); err != nil {
		fmt.Println(err)
		return
	}
	_, err = other.RetrieveLock(100)
	fmt.Println("after:", err)
	// Output:
	// before: true
	// after: <nil>
}

// Two goroutines that each hold a lock and want the other's: one is told, gives back what it holds, and begins again.
func ExampleSHMLock_LockErr_deadlock() {
	path := fmt.Sprintf("/lm-test-go-example-deadlock-%d", os.Getpid())
	manager, err := lockmanager.OpenOrNewSHMLockManager(path, 64)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lockmanager.RemoveSHM(path)

	var both, done sync.WaitGroup
	var victims atomic.Int32
	both.Add(2)
	takeBoth := func(first, second uint32) {
		defer done.Done()
		a, _ := manager.RetrieveLock(first)
		b, _ := manager.RetrieveLock(second)
		a.Lock()
		both.Done()
		both.Wait()
		if err := b.(*lockmanager.SHMLock).LockErr(); errors.Is(err, syscall.EDEADLK) {
			victims.Add(1)
			a.Unlock()
			b.Lock() // in the other's order now
			a.Lock()
		}
		b.Unlock()
		a.Unlock()
	}
	done.Add(2)
	go takeBoth(0, 1)
	go takeBoth(1, 0)
	done.Wait()
	fmt.Println(victims.Load(), "victim")
	// Output: 1 victim
}

// A writer that hands on what it has written: readers get in beside it, and no other writer.
func ExampleSHMLock_Downgrade() {
	path := fmt.Sprintf("/lm-test-go-example-downgrade-%d", os.Getpid())
	manager, err := lockmanager.OpenOrNewSHMLockManager(path, 64)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lockmanager.RemoveSHM(path)
	locker, err := manager.AllocateLock()
	if err != nil {
		fmt.Println(err)
		return
	}
	lock := locker.(*lockmanager.SHMLock)
	settings := "old"

	lock.Lock()
	settings = "new"
	if err := lock.Downgrade(); err != nil {
		fmt.Println(err)
		return
	}
	var readers sync.WaitGroup
	for i := 0; i < 2; i++ {
		readers.Add(1)
		go func() {
			defer readers.Done()
			lock.RLock()
			defer lock.RUnlock()
			fmt.Println("beside the writer:", settings)
		}()
	}
	readers.Wait()
	lock.RUnlock()
	// Output:
	// beside the writer: new
	// beside the writer: new
}

// A writer ends in the middle of its work. Each reader is told, and one that can mend takes the lock exclusively.
func ExampleSHMLock_RLockErr() {
	path := fmt.Sprintf("/lm-test-go-example-rlock-%d", os.Getpid())
	manager, err := lockmanager.OpenOrNewSHMLockManager(path, 64)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lockmanager.RemoveSHM(path)
	locker, err := manager.AllocateLock()
	if err != nil {
		fmt.Println(err)
		return
	}
	lock := locker.(*lockmanager.SHMLock)

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lock.Lock() // and never unlocked: the thread ends with this goroutine
	}()
	<-ended

	if err := lock.RLockErr(); errors.Is(err, lockmanager.ErrOwnerDied) {
		fmt.Println("a reader is told, and mends nothing")
		lock.RUnlock()
		fmt.Println("a writer is told:", errors.Is(lock.LockErr(), lockmanager.ErrOwnerDied))
		lock.Unlock() // mended
		fmt.Println("the next reader:", lock.RLockErr())
		lock.RUnlock()
	}
	// Output:
	// a reader is told, and mends nothing
	// a writer is told: true
	// the next reader: <nil>
}

// Beside Podman, on a segment that both use, whoever makes it.
func ExampleWithLayout() {
	path := fmt.Sprintf("/lm-test-go-example-podman-%d", os.Getpid())
	manager, err := lockmanager.OpenOrNewSHMLockManager(path, 2048, lockmanager.WithLayout(lockmanager.Libpod))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lockmanager.RemoveSHM(path)
	info, err := manager.Info()
	fmt.Println(info.NumLocks, info.Layout == lockmanager.Libpod, err)
	// Output: 2048 true <nil>
}

func ExampleMutex_LockContext() {
	manager, err := lockmanager.NewInMemoryManager(1, lockmanager.WithProcessOwnership())
	if err != nil {
		fmt.Println(err)
		return
	}
	locker, err := manager.AllocateLock()
	if err != nil {
		fmt.Println(err)
		return
	}
	lock := locker.(*lockmanager.Mutex)
	lock.Lock()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err = lock.LockContext(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT))

	lock.Unlock()
	// Output: true true
}
