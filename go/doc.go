// SPDX-License-Identifier: MIT OR Apache-2.0

// Package lockmanager offers numbered locks that several processes share: the interface of libpod's lock package, by
// the same names, on the C library lock_manager, and what that library can do beyond it.
//
// # Who holds a lock
//
// A lock belongs to the goroutine that took it. From Lock to Unlock that goroutine is pinned to its thread
// ([runtime.LockOSThread]), so it must be the one to unlock; every failure leaves it unpinned. That is what lets
// deadlocks be found: taking a lock twice is EDEADLK, not a hang. With [WithProcessOwnership], where the storage can do
// it, any goroutine may unlock, nothing is pinned, and taking a lock twice waits.
//
// A goroutine that ends while it holds a lock takes its thread with it, and whoever takes the lock next is told
// [ErrOwnerDied]. The one exception is Go's: it never ends a program's main thread but parks it, and any goroutine may
// happen to run there. What one holds that ends on the main thread stays held until the process ends. A program that
// wants none of this keeps its main goroutine there, and so every other away:
//
//	func init() { runtime.LockOSThread() }
//
// The goroutine must not call [runtime.UnlockOSThread] more often than it called LockOSThread itself.
//
// A process that is killed or executes another program ([syscall.Exec], from whichever goroutine) leaves what it held to
// others in the same way.
//
// # Readers
//
// Any number of goroutines and processes may hold one lock shared (RLock, RUnlock), and nobody holds it exclusively beside
// them. A lock is used as a [sync.RWMutex] is, with two differences: a goroutine that holds a lock, either way, is refused
// it again with EDEADLK; and Downgrade makes an exclusive hold a shared one without a gap. RLocker is the [sync.Locker] of
// readers.
//
// A writer that waits keeps later readers out until it has had its turn. Readers that have waited in C for 2 ms get in
// together, before the next writer. A reader's death is told to nobody, since it changed nothing; a writer that waits for it
// gets in. A writer's death is told to every reader ([ErrOwnerDied]) until a writer has taken the lock and was told as well:
// only a writer can mend what is half written. A reader that is stopped keeps its hold, and a writer that waits for it keeps
// the others out: give writers a deadline (LockContext).
//
// Each goroutine that holds a lock is pinned, so a thousand readers at once are a thousand threads. Locks of the process
// cost none.
//
// The libpod layout has no readers (EOPNOTSUPP), nor has a native segment of format version 1.
//
// # Segments
//
// A shared memory segment has one of two layouts. [NewSHMLockManager], which libpod has as well, makes Podman's own
// ([Libpod]), so that every Podman of the machine can use it. [OpenOrNewSHMLockManager] makes the library's ([Native]): it
// grows online ([WithMaxLocks], Grow), its locks can belong to the process, and a process that removes it ([RemoveSHM]) does
// not leave others behind in it: each of their lock calls and allocations is ESTALE from then on, and they open or make a
// new one. [WithLayout] has each make the other. Opening takes either as it is.
//
// # Waiting
//
// A goroutine that waits while it holds a lock waits in C on its own thread, where a cycle of holders and waiters can be
// seen. Among the locks of one storage, but in the libpod layout, it is: of goroutines, threads and processes that wait
// for each other, one is told EDEADLK, with the locks and their holders in the error's text; when it has given back what it
// holds, the others come through. It is a mistake of the program's all the same: locks that are always taken in the order of
// their numbers form no cycle. Of the goroutines that hold nothing, one writer and 16 readers for each lock and manager
// wait in C; the others queue in Go and cost no thread. Several managers opened on one storage queue apart from each other.
//
// # Errors
//
// Every error unwraps to the [syscall.Errno] of the C library, so that errors.Is(err, fs.ErrNotExist) and
// errors.Is(err, syscall.EDEADLK) say what happened; those of LockContext and RLockContext unwrap to the context's error
// as well. [ErrOwnerDied] is no failure: the lock is held. Lock swallows it, as libpod does, and panics on every other
// error; so does RLock. Unlock and RUnlock panic on every error.
//
// # Building
//
// The library is found through pkg-config (lock_manager.pc). Without cgo or off Linux the package compiles, and
// every constructor returns an error that is [errors.ErrUnsupported], and [syscall.ENOSYS] for a Go before 1.21.
package lockmanager
