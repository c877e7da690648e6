// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"regexp"
	"strings"
	"syscall"
)

// The sentences of the C library end with advice for a C programmer, with the names of C functions. This file rewrites the
// advice for the reader of the error.

// reader says who reads the errors of a manager.
type reader int

const (
	// goProgrammer calls the functions that only this package has.
	goProgrammer reader = iota
	// libpodUser runs a program that calls functions with libpod's names, and knows containers.conf and the podman command.
	libpodUser
)

// occasion is an operation and the errno with which it failed.
type occasion struct {
	op    string
	errno syscall.Errno
}

// anyOp stands for every operation.
const anyOp = ""

const (
	makeItAnew    = "create it anew (podman system renumber)"
	lockOfTwo     = "unlock it first; if two objects share a lock (podman system locks shows that), give each its own (podman system renumber)"
	wasMadeAnew   = "open it again: podman system renumber creates the locks anew, so run the command again and restart any podman service"
	wasLargerOnce = "num_locks in containers.conf may have been larger once; podman system renumber assigns numbers that exist"
)

// waysOut replace the advice of the C library, which is the text after the last semicolon.
var waysOut = map[reader]map[occasion]string{
	goProgrammer: {
		{opOpenOrCreate, syscall.ERANGE}: "ask for 0 to accept any number",
	},
	libpodUser: {
		{opOpen, syscall.ERANGE}:     "ask for as many as it holds (num_locks in containers.conf), or " + makeItAnew,
		{opAllocate, syscall.ENOLCK}: "free some (each container, pod and volume has one), or ask for more (num_locks in containers.conf) and " + makeItAnew,
		{anyOp, syscall.ESTALE}:      wasMadeAnew,
		{anyOp, syscall.EDEADLK}:     lockOfTwo,
	},
}

// addedWaysOut are appended to the sentence of the C library.
var addedWaysOut = map[reader]map[occasion]string{
	libpodUser: {
		{opRetrieve, syscall.EINVAL}: wasLargerOnce,
		{opAllocate, syscall.EINVAL}: wasLargerOnce,
		{opOpen, syscall.EPROTO}:     "if Podman is to use it, remove it while no podman runs, and " + makeItAnew,
	},
}

// goNames has the Go name for each function of the C library, without the prefix lock_manager_, which the sentences omit.
// Functions whose names are also English words (lock, grow) need no entry.
var goNames = map[string]string{
	"new_shm":                    "NewSHMLockManager",
	"open_shm":                   "OpenSHMLockManager",
	"open_or_new_shm":            "OpenOrNewSHMLockManager",
	"open_shm_read_only":         "WithReadOnly",
	"remove_shm":                 "RemoveSHM",
	"new_file":                   "NewFileLockManager",
	"open_file":                  "OpenFileLockManager",
	"open_or_new_file":           "OpenOrNewFileLockManager",
	"open_or_new":                "OpenOrNewSHMLockManager or OpenOrNewFileLockManager",
	"remove_file":                "RemoveFile",
	"new_in_memory":              "NewInMemoryManager",
	"allocate_lock":              "AllocateLock",
	"retrieve_lock":              "RetrieveLock",
	"allocate_and_retrieve_lock": "AllocateAndRetrieveLock",
	"free_lock":                  "Free",
	"free_all_locks":             "FreeAllLocks",
	"available_locks":            "AvailableLocks",
	"set_ownership":              "WithProcessOwnership",
	"try_lock":                   "TryLock",
	"lock_shared":                "RLock",
	"try_lock_shared":            "TryRLock",
	"timed_lock_shared":          "RLockContext",
	"cancellable_lock_shared":    "RLockContext",
	"unlock_shared":              "RUnlock",
	"downgrade_lock":             "Downgrade",
	"timed_lock":                 "LockContext",
	"cancellable_lock":           "LockContext",
	"cancel_new":                 "LockContext",
	"cancel_trigger":             "the context",
	"cancel_free":                "the context",
	"locks_held":                 "LocksHeld",
	"lock_info":                  "Info",
	"lock_holders":               "Holders",
	"fencing_token":              "FencingToken",
	"lost_fd":                    "LostFD",
	"repair_lock":                "Repair",
	"last_error":                 "the error",
}

var cName = regexp.MustCompile(`\b(?:lock_manager_)?([a-z]+(?:_[a-z]+)+)\b`)

// beforeWayOut separates what happened from the advice, in every sentence of the C library that has advice.
const beforeWayOut = "; "

// reworded rewrites the advice at the end of a sentence for the reader.
func (r reader) reworded(text string, when occasion) string {
	if added, ok := addedWaysOut[r][when]; ok {
		return text + beforeWayOut + added
	}
	end := strings.LastIndex(text, beforeWayOut)
	if end < 0 {
		return text
	}
	end += len(beforeWayOut)
	for _, when := range []occasion{when, {anyOp, when.errno}} {
		if own, ok := waysOut[r][when]; ok {
			return text[:end] + own
		}
	}
	return text[:end] + cName.ReplaceAllStringFunc(text[end:], func(name string) string {
		if ours, ok := goNames[strings.TrimPrefix(name, "lock_manager_")]; ok {
			return ours
		}
		return name
	})
}
