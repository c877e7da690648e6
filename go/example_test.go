// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	lockmanager "github.com/lock-manager/lock-manager/go"
)

func Example() {
	path := fmt.Sprintf("/lm-test-go-example-%d", os.Getpid())
	manager, err := lockmanager.OpenOrNewSHMLockManager(path, 2048, lockmanager.WithLayout(lockmanager.Libpod))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lockmanager.RemoveSHM(path)

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
	manager, err := lockmanager.NewSHMLockManager(path, 32, lockmanager.WithLayout(lockmanager.Libpod))
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
