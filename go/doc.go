// SPDX-License-Identifier: MIT OR Apache-2.0

// Package lockmanager provides numbered locks that several processes share. It has the interface of libpod's lock package,
// by the same names, on top of the C library lock_manager, and adds what that library can do beyond it.
//
// # Who holds a lock
//
// A lock belongs to the goroutine that took it. From Lock to Unlock that goroutine is pinned to its thread
// ([runtime.LockOSThread]), so the same goroutine must unlock. Every failure leaves it unpinned. This is how deadlocks are
// found: taking a lock twice returns EDEADLK and does not hang. With [WithProcessOwnership], which the libpod layout does not
// support, any goroutine may unlock, nothing is pinned, and a goroutine that takes a lock twice waits.
//
// If a goroutine ends while it holds a lock, its thread ends with it, and the next holder is told [ErrOwnerDied]. There is
// one exception, which is Go's: it never ends the main thread of a program but parks it, and any goroutine may happen to run
// there. If a goroutine ends on the main thread, its locks stay held until the process ends. To prevent this, keep the main
// goroutine on the main thread, and so every other goroutine away from it:
//
//	func init() { runtime.LockOSThread() }
//
// A goroutine that holds a lock must not call [runtime.UnlockOSThread] more often than it called LockOSThread itself.
//
// If a process is killed, or executes another program ([syscall.Exec], from any goroutine), the next holders of its locks are
// told in the same way.
//
// # Readers
//
// Any number of goroutines and processes may hold one lock shared (RLock, RUnlock) at the same time, and nobody holds it
// exclusively meanwhile. A lock is used like a [sync.RWMutex], with two differences. If a goroutine already holds a lock,
// shared or exclusively, and asks for it again, it gets EDEADLK. And Downgrade turns an exclusive hold into a shared one
// without a gap. RLocker returns the [sync.Locker] of readers.
//
// A waiting writer keeps later readers out until it has had its turn. Readers that have waited in C for 2 ms get in together,
// before the next writer. If a reader dies, nobody is told, because it changed nothing; a writer that waits for it gets in.
// If a writer dies, every reader is told ([ErrOwnerDied]) until a writer has taken the lock and was told as well, because only
// a writer can repair what is half written. A stopped reader keeps its hold, and a writer that waits for it keeps other
// readers out, so give writers a deadline (LockContext).
//
// Each goroutine that holds a lock is pinned, so a thousand readers at once are a thousand threads. Locks that the process
// owns cost no threads.
//
// The libpod layout has no shared locks (EOPNOTSUPP), and neither has a native segment of format version 1.
//
// # Segments
//
// A shared memory segment has one of two layouts. [NewSHMLockManager], whose name is libpod's, creates Podman's own layout
// ([Libpod]), which every Podman on the machine can use. [OpenOrNewSHMLockManager] creates the library's own layout
// ([Native]). A native segment can grow while it is in use ([WithMaxLocks], Grow), and its locks can belong to the process.
// If a process removes it ([RemoveSHM]), every lock call and allocation of the others returns ESTALE from then on, so they
// know that they have to open or create a new one. [WithLayout] makes either function create the other layout. Opening accepts
// both.
//
// # Waiting
//
// A goroutine that waits while it holds a lock waits in C, on its own thread, where cycles of holders and waiters can be
// detected. They are detected among the locks of one storage, except in the libpod layout: if goroutines, threads and
// processes wait for each other, one of them gets EDEADLK, and the text of the error names the locks and their holders. When
// that one has unlocked what it holds, the others continue. Such a cycle is still a mistake in the program; locks that are
// always taken in the order of their ids form no cycle. Of the goroutines that hold no lock, one writer and 16 readers for
// each lock and manager wait in C. The others queue in Go and cost no thread. Several managers on one storage have separate
// queues.
//
// # Errors
//
// Every error unwraps to the [syscall.Errno] of the C library, so errors.Is(err, fs.ErrNotExist) and
// errors.Is(err, syscall.EDEADLK) tell what happened. The errors of LockContext and RLockContext also unwrap to the error of
// the context. [ErrOwnerDied] is not a failure: the lock is held. Lock and RLock ignore it, as libpod does, and panic on every
// other error. Unlock and RUnlock panic on every error.
//
// # Building
//
// pkg-config must find the C library (lock_manager.pc). Without cgo, or on systems other than Linux, the package compiles, and
// every constructor returns an error that is [errors.ErrUnsupported] (before Go 1.21, [syscall.ENOSYS]).
package lockmanager
