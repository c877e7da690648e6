// SPDX-License-Identifier: MIT OR Apache-2.0

// What Go programs have: this library through its module, sync.Mutex as the ceiling, gofrs/flock, and the calls into C
// that no pair through cgo is below. The first argument says in how many rounds. Prints a line for each figure:
// case,quantity,contender,round,value.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	lockmanager "github.com/lock-manager/lock-manager/go"
)

const (
	locks = 2048
	// A sample's length.
	sample = 400 * time.Microsecond
	// By then a goroutine that waits sleeps.
	settled = 12 * time.Millisecond
	// The cancellations are spread over that.
	spread = 5000
)

// contender is a name, and lock and unlock.
type contender struct {
	name string
	pair func()
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func figure(c, quantity, contender string, round int, value float64) {
	fmt.Printf("%s,%s,%s,%d,%g\n", c, quantity, contender, round, value)
}

// segment makes a segment of that layout, and a lock in it.
func segment(name string, layout lockmanager.Layout) (lockmanager.Locker, *lockmanager.SHMLock, func()) {
	path := fmt.Sprintf("/lock_manager-bench-%d-%s", os.Getpid(), name)
	manager, err := lockmanager.NewSHMLockManager(path, locks, lockmanager.WithLayout(layout))
	must(err)
	lock, err := manager.AllocateLock()
	must(err)
	return lock, lock.(*lockmanager.SHMLock), func() {
		must(manager.(*lockmanager.SHMLockManager).Close())
		must(lockmanager.RemoveSHM(path))
	}
}

func main() {
	rounds, err := strconv.Atoi(os.Args[1])
	must(err)
	directory, err := os.MkdirTemp("/dev/shm", "lock_manager-bench-go-")
	must(err)
	defer os.RemoveAll(directory)
	native, nativeLock, closeNative := segment("native", lockmanager.Native)
	defer closeNative()
	libpod, libpodLock, closeLibpod := segment("libpod", lockmanager.Libpod)
	defer closeLibpod()
	pairs(rounds, directory, native, libpod)
	waits(rounds, "lock_manager", nativeLock)
	waits(rounds, "lock_manager libpod layout", libpodLock)
}

func pairs(rounds int, directory string, native, libpod lockmanager.Locker) {
	var mutex sync.Mutex
	file := flock.New(filepath.Join(directory, "flock"))
	locked := func(l sync.Locker) func() {
		return func() {
			l.Lock()
			//lint:ignore SA2001 the pair alone is measured
			l.Unlock()
		}
	}
	contenders := []contender{
		{"lock_manager", locked(native)},
		{"lock_manager libpod layout", locked(libpod)},
		{"two bare calls", func() {
			nothing()
			nothing()
		}},
		{"sync.Mutex (goroutines)", locked(&mutex)},
		{"gofrs/flock", func() {
			must(file.Lock())
			must(file.Unlock())
		}},
	}
	calls := make([]int, len(contenders))
	for i, c := range contenders {
		// The first calls are dearer than all others.
		timed(100, c.pair)
		calls[i] = int(float64(sample.Nanoseconds())/timed(100, c.pair)) + 1
	}
	for round := 0; round < rounds; round++ {
		for i := range contenders {
			// The order moves on from round to round.
			i = (i + round) % len(contenders)
			figure("nobody waits", "lock + unlock", contenders[i].name, round, timed(calls[i], contenders[i].pair))
		}
	}
}

// timed is how many nanoseconds a call takes, on average of that many.
func timed(calls int, call func()) float64 {
	began := time.Now()
	for i := 0; i < calls; i++ {
		call()
	}
	return float64(time.Since(began).Nanoseconds()) / float64(calls)
}

// waits measures from the cancellation of a context to the return of the LockContext that waits with it.
func waits(rounds int, name string, lock *lockmanager.SHMLock) {
	held := make(chan struct{})
	release := make(chan struct{})
	released := make(chan struct{})
	go func() {
		lock.Lock()
		close(held)
		<-release
		lock.Unlock()
		close(released)
	}()
	<-held
	for round := 0; round < rounds; round++ {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan time.Time, 1)
		go func() {
			if lock.LockContext(ctx) == nil {
				must(fmt.Errorf("a lock that is held was taken"))
			}
			ended <- time.Now()
		}()
		time.Sleep(settled + time.Duration(round*797%spread)*time.Microsecond)
		began := time.Now()
		cancel()
		took := (<-ended).Sub(began)
		figure("a context is cancelled", "cancel to return", name, round, took.Seconds()*1e3)
	}
	close(release)
	<-released
}
