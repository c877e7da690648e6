// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"errors"
	"syscall"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// ErrOwnerDied means that the caller holds the lock, but the last holder died holding it, so what the lock protects may be
// half written. The next exclusive holder is told once. Until then every reader is told, because only a writer can repair
// what the lock protects. If a reader died, nobody is told.
var ErrOwnerDied = errors.New("the lock is held now, but its last holder died holding it: check what it protects")

// The values of Error.Op.
const (
	opCreate       = "create"
	opOpen         = "open"
	opOpenOrCreate = "open or create"
	opRemove       = "remove"
	opClose        = "close"
	opAllocate     = "allocate"
	opRetrieve     = "retrieve"
	opFree         = "free"
	opFreeAll      = "free all"
	opGrow         = "grow"
	opCount        = "count"
	opList         = "list"
	opLook         = "look"
	opRepair       = "repair"
	opLock         = "lock"
	opTryLock      = "try lock"
	opUnlock       = "unlock"
	opRLock        = "lock shared"
	opTryRLock     = "try lock shared"
	opRUnlock      = "unlock shared"
	opDowngrade    = "downgrade"
)

// Error is a call that failed. It unwraps to its Errno.
type Error struct {
	// Op is the operation that failed, such as "lock" or "open".
	Op string
	// Errno is the number that the C library returned.
	Errno syscall.Errno
	// text is the sentence of the C library. Error rewrites its advice for the reader.
	text   string
	reader reader
}

// Error says what happened to which storage and lock, and what to do about it.
func (e *Error) Error() string {
	if e.text == "" {
		return "lockmanager: " + e.Op + ": " + e.Errno.Error()
	}
	return "lockmanager: " + e.Op + ": " + e.reader.reworded(e.text, occasion{e.Op, e.Errno})
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// cancelledError is the error of a wait that a context ended. It unwraps to the errno. Is and As also ask the error of the
// context, because older versions of Go have no Unwrap for several errors.
type cancelledError struct {
	failed *Error
	cause  error
}

func (e *cancelledError) Error() string        { return e.failed.Error() + ": " + e.cause.Error() }
func (e *cancelledError) Unwrap() error        { return e.failed }
func (e *cancelledError) Is(target error) bool { return errors.Is(e.cause, target) }
func (e *cancelledError) As(target any) bool   { return errors.As(e.cause, target) }

func errorFor(who reader, op string, failed *clib.Failure) error {
	if failed == nil {
		return nil
	}
	return &Error{Op: op, Errno: failed.Errno, text: failed.Text, reader: who}
}

func invalid(op, text string) error {
	return &Error{Op: op, Errno: syscall.EINVAL, text: text}
}
