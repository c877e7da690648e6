// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"regexp"
	"strings"
	"syscall"
)

// The C library's sentences end with a way out in the words of a C programmer: names of C functions. Here it is put into
// the words of those who read it.

// reader is who reads the errors of a manager.
type reader int

const (
	// goProgrammer has called this package's own names.
	goProgrammer reader = iota
	// libpodUser runs a program that calls libpod's names, and knows containers.conf and the podman command.
	libpodUser
)

// occasion is what was tried, and how it failed.
type occasion struct {
	op    string
	errno syscall.Errno
}

// anyOp is whatever was tried.
const anyOp = ""

const (
	makeItAnew    = "make it anew (podman system renumber)"
	lockOfTwo     = "unlock it first; where two objects have one lock (podman system locks tells), give each its own (podman system renumber)"
	wasMadeAnew   = "open it again: podman system renumber makes the locks anew, so run the command again and restart a podman service"
	wasLargerOnce = "num_locks in containers.conf may have been larger once; podman system renumber gives numbers that exist"
)

// waysOut stand in the place of the C library's, which is what follows the last semicolon.
var waysOut = map[reader]map[occasion]string{
	goProgrammer: {
		{opOpenOrCreate, syscall.ERANGE}: "ask for 0 to take what is there",
	},
	libpodUser: {
		{opOpen, syscall.ERANGE}:     "ask for as many as it holds (num_locks in containers.conf), or " + makeItAnew,
		{opAllocate, syscall.ENOLCK}: "free some (containers, pods and volumes have one each), or ask for more (num_locks in containers.conf) and " + makeItAnew,
		{anyOp, syscall.ESTALE}:      wasMadeAnew,
		{anyOp, syscall.EDEADLK}:     lockOfTwo,
	},
}

// addedWaysOut follow what the C library says.
var addedWaysOut = map[reader]map[occasion]string{
	libpodUser: {
		{opRetrieve, syscall.EINVAL}: wasLargerOnce,
		{opAllocate, syscall.EINVAL}: wasLargerOnce,
		{opOpen, syscall.EPROTO}:     "if it is to be Podman's, remove it while no podman runs, and " + makeItAnew,
	},
}

// goNames are what the C library's functions are called here, without the prefix that its sentences leave out. Those whose
// names are words of English as well (lock, grow) need none.
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
	"repair_lock":                "Repair",
	"last_error":                 "the error",
}

var cName = regexp.MustCompile(`\b(?:lock_manager_)?([a-z]+(?:_[a-z]+)+)\b`)

// beforeWayOut parts what happened from the way out, in every sentence of the C library's that has one.
const beforeWayOut = "; "

// reworded puts the way out at the end of a sentence into the words of the reader.
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
