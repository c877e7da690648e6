// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package clib

/*
#cgo pkg-config: lock_manager
#cgo CFLAGS: -O2

#include "binding.h"
*/
import "C"

import (
	"strings"
	"syscall"
	"unsafe"
)

func failure(result C.lm_result) *Failure {
	if result.code >= 0 {
		return nil
	}
	return failureOf(result)
}

func failureOf(result C.lm_result) *Failure {
	failed := &Failure{Errno: syscall.Errno(-result.code)}
	if result.text != nil {
		failed.Text = C.GoString(result.text)
		C.free(unsafe.Pointer(result.text))
	}
	return failed
}

// withPath hands a path to C, which would take one with a NUL inside for a shorter one.
func withPath(path string, call func(*C.char) C.lm_result) (Manager, *Failure) {
	if strings.ContainsRune(path, 0) {
		return 0, &Failure{Errno: syscall.EINVAL, Text: "the path contains a NUL byte"}
	}
	text := C.CString(path)
	defer C.free(unsafe.Pointer(text))
	result := call(text)
	return Manager(result.made), failure(result)
}

// NewSHM creates a segment.
func NewSHM(path string, numLocks uint32, options SHMOptions) (Manager, *Failure) {
	return withPath(path, func(text *C.char) C.lm_result {
		return C.lm_new_shm(text, C.uint32_t(numLocks), C.uint32_t(options.Layout), C.uint32_t(options.MaxLocks), C.uint32_t(options.Mode))
	})
}

// OpenOrNewSHM opens a segment, or creates it.
func OpenOrNewSHM(path string, numLocks uint32, options SHMOptions) (Manager, *Failure) {
	return withPath(path, func(text *C.char) C.lm_result {
		return C.lm_open_or_new_shm(text, C.uint32_t(numLocks), C.uint32_t(options.Layout), C.uint32_t(options.MaxLocks), C.uint32_t(options.Mode))
	})
}

// OpenSHM opens a segment.
func OpenSHM(path string, numLocks uint32) (Manager, *Failure) {
	return withPath(path, func(text *C.char) C.lm_result { return C.lm_open_shm(text, C.uint32_t(numLocks)) })
}

// OpenSHMReadOnly opens a segment to look at it.
func OpenSHMReadOnly(path string) (Manager, *Failure) {
	return withPath(path, func(text *C.char) C.lm_result { return C.lm_open_shm_read_only(text) })
}

// RemoveSHM removes a segment.
func RemoveSHM(path string) *Failure {
	_, failed := withPath(path, func(text *C.char) C.lm_result { return C.lm_remove_shm(text) })
	return failed
}

// textOrNull is a text of C's, which the caller frees; empty becomes NULL.
func textOrNull(text string) *C.char {
	if text == "" {
		return nil
	}
	return C.CString(text)
}

// withEtcd hands an address and the texts of the options to C.
func withEtcd(address string, options EtcdOptions, call func(address, config, host *C.char) C.lm_result) (Manager, *Failure) {
	if strings.ContainsRune(options.ConfigFile+options.Host, 0) {
		return 0, &Failure{Errno: syscall.EINVAL, Text: "an option contains a NUL byte"}
	}
	config, host := textOrNull(options.ConfigFile), textOrNull(options.Host)
	defer C.free(unsafe.Pointer(config))
	defer C.free(unsafe.Pointer(host))
	return withPath(address, func(text *C.char) C.lm_result { return call(text, config, host) })
}

// OpenEtcd opens locks in etcd.
func OpenEtcd(address string, numLocks uint32, options EtcdOptions) (Manager, *Failure) {
	return withEtcd(address, options, func(text, config, host *C.char) C.lm_result {
		return C.lm_open_etcd(text, C.uint32_t(numLocks), C.uint32_t(options.TTLSeconds), C.uint32_t(options.PatienceSeconds), config, host)
	})
}

// RemoveEtcd removes locks from etcd.
func RemoveEtcd(address string, options EtcdOptions) *Failure {
	_, failed := withEtcd(address, options, func(text, config, host *C.char) C.lm_result {
		return C.lm_remove_etcd(text, config, host)
	})
	return failed
}

// EtcdParties lists who holds a lock in etcd and who waits for it.
func (m Manager) EtcdParties(id uint32) ([]EtcdParty, *Failure) {
	const few = 16
	for capacity := few; ; {
		found := make([]C.lm_etcd_party, capacity)
		var count C.size_t
		if failed := failure(C.lm_etcd_parties(C.uintptr_t(m), C.uint32_t(id), &found[0], C.size_t(capacity), &count)); failed != nil {
			return nil, failed
		}
		if int(count) > capacity {
			capacity = int(count)
			continue
		}
		parties := make([]EtcdParty, 0, count)
		for i := range found[:count] {
			party := &found[i]
			parties = append(parties, EtcdParty{
				Holds: party.holds != 0, Here: party.here != 0, PID: int32(party.pid), TID: int32(party.tid), Token: uint64(party.token),
				SinceNS: uint64(party.since_ns), Host: C.GoString(&party.host[0]), Command: C.GoString(&party.command[0]),
			})
		}
		return parties, nil
	}
}

// FencingToken reads the token of a lock that the caller holds.
func (m Manager) FencingToken(id uint32) (uint64, *Failure) {
	var token C.uint64_t
	result := C.lm_fencing_token(C.uintptr_t(m), C.uint32_t(id), &token)
	return uint64(token), failure(result)
}

// LostFD is the descriptor that is readable while a lock may be lost.
func (m Manager) LostFD() (int, *Failure) {
	var descriptor C.int32_t
	result := C.lm_lost_fd(C.uintptr_t(m), &descriptor)
	return int(descriptor), failure(result)
}

// NewFile creates a lock directory.
func NewFile(directory string) (Manager, *Failure) {
	return withPath(directory, func(text *C.char) C.lm_result { return C.lm_new_file(text) })
}

// OpenFile opens a lock directory.
func OpenFile(directory string) (Manager, *Failure) {
	return withPath(directory, func(text *C.char) C.lm_result { return C.lm_open_file(text) })
}

// OpenOrNewFile opens a lock directory, or creates it.
func OpenOrNewFile(directory string) (Manager, *Failure) {
	return withPath(directory, func(text *C.char) C.lm_result { return C.lm_open_or_new_file(text) })
}

// RemoveFile removes a lock directory.
func RemoveFile(directory string) *Failure {
	_, failed := withPath(directory, func(text *C.char) C.lm_result { return C.lm_remove_file(text) })
	return failed
}

// NewInMemory makes a pool of this process.
func NewInMemory(numLocks uint32) (Manager, *Failure) {
	result := C.lm_new_in_memory(C.uint32_t(numLocks))
	return Manager(result.made), failure(result)
}

// OwnByProcess gives the manager's locks to the process, not to threads.
func (m Manager) OwnByProcess() *Failure { return failure(C.lm_own_by_process(C.uintptr_t(m))) }

// Close closes the manager.
func (m Manager) Close() *Failure { return failure(C.lm_close(C.uintptr_t(m))) }

// AllocateLock allocates any lock.
func (m Manager) AllocateLock() (uint32, *Failure) {
	result := C.lm_allocate_lock(C.uintptr_t(m))
	return uint32(result.value), failure(result)
}

// RetrieveLock checks that an id is in range.
func (m Manager) RetrieveLock(id uint32) *Failure {
	return failure(C.lm_retrieve_lock(C.uintptr_t(m), C.uint32_t(id)))
}

// AllocateAndRetrieveLock allocates that lock.
func (m Manager) AllocateAndRetrieveLock(id uint32) *Failure {
	return failure(C.lm_allocate_and_retrieve_lock(C.uintptr_t(m), C.uint32_t(id)))
}

// FreeLock gives an id back.
func (m Manager) FreeLock(id uint32) *Failure {
	return failure(C.lm_free_lock(C.uintptr_t(m), C.uint32_t(id)))
}

// FreeAllLocks gives every id back.
func (m Manager) FreeAllLocks() *Failure { return failure(C.lm_free_all_locks(C.uintptr_t(m))) }

// AvailableLocks counts the locks that can be allocated, or is Unlimited.
func (m Manager) AvailableLocks() (uint32, *Failure) {
	result := C.lm_available_locks(C.uintptr_t(m))
	return uint32(result.value), failure(result)
}

// NumLocks counts the locks, or is Unlimited.
func (m Manager) NumLocks() (uint32, *Failure) {
	result := C.lm_num_locks(C.uintptr_t(m))
	return uint32(result.value), failure(result)
}

// Grow makes room for that many locks.
func (m Manager) Grow(numLocks uint32) *Failure {
	return failure(C.lm_grow(C.uintptr_t(m), C.uint32_t(numLocks)))
}

// An Answer is what a call has brought that is made often: nothing where all is well. What else it is has to be asked
// for, once.
type Answer struct{ more *C.lm_result }

// IsClean tells that all is well.
func (a Answer) IsClean() bool { return a.more == nil }

// Taken is what became of a TryLock or TryLockShared.
func (a Answer) Taken() (Taken, *Failure) {
	if a.more == nil {
		return Clean, nil
	}
	result := unpacked(a.more)
	switch {
	case result.code > 0:
		return acquired(result), nil
	case syscall.Errno(-result.code) != syscall.EBUSY:
		return 0, failureOf(result)
	case result.value > 0:
		return BusyForHolder, nil
	default:
		return Busy, nil
	}
}

// Failure is what became of an Unlock or UnlockShared.
func (a Answer) Failure() *Failure {
	if a.more == nil {
		return nil
	}
	result := unpacked(a.more)
	failed := failureOf(result)
	failed.Freed = result.value != 0
	return failed
}

func unpacked(more *C.lm_result) C.lm_result {
	result := *more
	C.free(unsafe.Pointer(more))
	return result
}

// TryLock takes a lock if it is free.
func (m Manager) TryLock(id uint32, owner Owner) Answer {
	return Answer{C.lm_try_lock(C.uintptr_t(m), C.uint32_t(id), C.uint32_t(owner))}
}

func acquired(result C.lm_result) Taken {
	if result.code == C.LOCK_MANAGER_OWNER_DIED {
		return OwnerDied
	}
	return Clean
}

// Lock waits for a lock without end.
func (m Manager) Lock(id uint32, owner Owner) (Taken, *Failure) {
	result := C.lm_lock(C.uintptr_t(m), C.uint32_t(id), C.uint32_t(owner))
	return acquired(result), failure(result)
}

// CancellableLock waits for a lock until cancel is triggered.
func (m Manager) CancellableLock(id uint32, owner Owner, cancel Cancel) (Taken, *Failure) {
	result := C.lm_cancellable_lock(C.uintptr_t(m), C.uint32_t(id), C.uint32_t(owner), C.uintptr_t(cancel))
	return acquired(result), failure(result)
}

// Unlock gives a lock back.
func (m Manager) Unlock(id uint32, owner Owner) Answer {
	return Answer{C.lm_unlock(C.uintptr_t(m), C.uint32_t(id), C.uint32_t(owner))}
}

// TryLockShared takes a lock shared if no writer has it or is next.
func (m Manager) TryLockShared(id uint32, owner Owner) Answer {
	return Answer{C.lm_try_lock_shared(C.uintptr_t(m), C.uint32_t(id), C.uint32_t(owner))}
}

// LockShared waits without end until a lock can be held shared.
func (m Manager) LockShared(id uint32, owner Owner) (Taken, *Failure) {
	result := C.lm_lock_shared(C.uintptr_t(m), C.uint32_t(id), C.uint32_t(owner))
	return acquired(result), failure(result)
}

// CancellableLockShared waits until a lock can be held shared, or cancel is triggered.
func (m Manager) CancellableLockShared(id uint32, owner Owner, cancel Cancel) (Taken, *Failure) {
	result := C.lm_cancellable_lock_shared(C.uintptr_t(m), C.uint32_t(id), C.uint32_t(owner), C.uintptr_t(cancel))
	return acquired(result), failure(result)
}

// UnlockShared gives back a lock that is held shared.
func (m Manager) UnlockShared(id uint32, owner Owner) Answer {
	return Answer{C.lm_unlock_shared(C.uintptr_t(m), C.uint32_t(id), C.uint32_t(owner))}
}

// Downgrade makes a hold shared that was exclusive.
func (m Manager) Downgrade(id uint32) *Failure {
	return failure(C.lm_downgrade_lock(C.uintptr_t(m), C.uint32_t(id)))
}

// NewCancel makes a cancel object.
func NewCancel() (Cancel, *Failure) {
	result := C.lm_cancel_new()
	return Cancel(result.made), failure(result)
}

// Trigger ends the waits.
func (c Cancel) Trigger() *Failure { return failure(C.lm_cancel_trigger(C.uintptr_t(c))) }

// Free frees the cancel object.
func (c Cancel) Free() *Failure { return failure(C.lm_cancel_free(C.uintptr_t(c))) }

// LocksHeld writes the first of the held locks to ids, which has room for one at least, and says how many there are.
func (m Manager) LocksHeld(ids []uint32) (int, *Failure) {
	result := C.lm_locks_held(C.uintptr_t(m), (*C.uint32_t)(&ids[0]), C.size_t(len(ids)))
	return int(result.value), failure(result)
}

// LockInfo looks at a lock.
func (m Manager) LockInfo(id uint32) (LockInfo, *Failure) {
	var info C.lock_manager_lock_info_t
	if failed := failure(C.lm_lock_info(C.uintptr_t(m), C.uint32_t(id), &info)); failed != nil {
		return LockInfo{}, failed
	}
	return LockInfo{
		ID: uint32(info.id), Allocated: info.allocated != 0, Held: info.held != 0, OwnerDied: info.owner_died != 0,
		PID: int32(info.pid), TID: int32(info.tid), Waiters: uint32(info.waiters),
		ByProcess:    info.ownership == C.LOCK_MANAGER_OWNED_BY_PROCESS,
		Acquisitions: uint64(info.acquisitions), PIDNamespace: uint64(info.pid_namespace), WaitedNS: uint64(info.waited_ns),
		Readers: uint32(info.readers), Draining: info.draining != 0,
	}, nil
}

// LockHolders returns the first holders of a lock, as many as there is room for, which is one at least, and says how many
// there are.
func (m Manager) LockHolders(id uint32, room int) ([]Holder, int, *Failure) {
	found := make([]C.lock_manager_holder_t, room)
	result := C.lm_lock_holders(C.uintptr_t(m), C.uint32_t(id), &found[0], C.size_t(room))
	if failed := failure(result); failed != nil {
		return nil, 0, failed
	}
	count := int(result.value)
	if count < room {
		found = found[:count]
	}
	holders := make([]Holder, len(found))
	for i, holder := range found {
		holders[i] = Holder{
			PID: int32(holder.pid), TID: int32(holder.tid), Shared: holder.shared != 0,
			ByProcess: holder.ownership == C.LOCK_MANAGER_OWNED_BY_PROCESS, PIDNamespace: uint64(holder.pid_namespace),
		}
	}
	return holders, count, nil
}

// Info looks at the storage.
func (m Manager) Info() (Info, *Failure) {
	var info C.lock_manager_info_t
	if failed := failure(C.lm_info(C.uintptr_t(m), &info)); failed != nil {
		return Info{}, failed
	}
	return Info{
		Kind: uint32(info.kind), Layout: uint32(info.layout), NumLocks: uint32(info.num_locks),
		MaxLocks: uint32(info.max_locks), Attached: uint32(info.attached), Retired: info.retired != 0,
	}, nil
}

// RepairLock marks a lock whose holder is dead.
func (m Manager) RepairLock(id uint32) *Failure {
	return failure(C.lm_repair_lock(C.uintptr_t(m), C.uint32_t(id)))
}

// Version is that of the library that runs.
func Version() string { return C.GoString(C.lock_manager_version()) }
