// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// FileLockManager is a manager whose locks are files of a directory, one for each allocated lock, numbered up to
// 16,777,215. How many are allocated is not limited otherwise.
type FileLockManager struct{ manager }

// FileLock is one lock of a [FileLockManager].
type FileLock struct{ lock }

// NewFileLockManager makes a directory of locks and, as libpod's function of this name, the directories above it that are
// missing. The manager is a [*FileLockManager].
//
// fs.ErrExist: something of that name is there, be it an empty directory.
func NewFileLockManager(path string, opts ...Option) (Manager, error) {
	return fileManager(opCreate, libpodUser, path, opts, newFile)
}

// OpenFileLockManager opens a directory of locks. The manager is a [*FileLockManager].
//
// fs.ErrNotExist: there is none. EPROTO: it is something else.
func OpenFileLockManager(path string, opts ...Option) (Manager, error) {
	return fileManager(opOpen, libpodUser, path, opts, clib.OpenFile)
}

// OpenOrNewFileLockManager opens a directory of locks, or creates it, but none of those above it; of two first users at
// once, one creates it and both succeed. The manager is a [*FileLockManager].
func OpenOrNewFileLockManager(path string, opts ...Option) (ExtendedManager, error) {
	return fileManager(opOpenOrCreate, goProgrammer, path, opts, clib.OpenOrNewFile)
}

// RemoveFile removes a directory of locks.
//
// fs.ErrNotExist: there is none. EPROTO: it is something else; it stays.
func RemoveFile(path string) error { return errorFor(goProgrammer, opRemove, clib.RemoveFile(path)) }

// parentMode is what libpod gives the directories that it makes; the umask applies.
const parentMode fs.FileMode = 0o711

func newFile(path string) (clib.Manager, *clib.Failure) {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return 0, &clib.Failure{Errno: syscall.EEXIST, Text: onOneLine(path) + ": already exists; open it, or remove it first if nobody uses it any more"}
	case !errors.Is(err, fs.ErrNotExist):
		return clib.NewFile(path)
	}
	parent := filepath.Dir(filepath.Clean(path))
	if err := os.MkdirAll(parent, parentMode); err != nil {
		failed := &clib.Failure{Errno: syscall.EIO, Text: onOneLine(parent) + ": creating the parent directories of the locks: " + err.Error()}
		errors.As(err, &failed.Errno)
		return 0, failed
	}
	return clib.NewFile(path)
}

// onOneLine escapes what would break the line of an error.
func onOneLine(path string) string { return strings.Trim(strconv.Quote(path), `"`) }

func fileManager(op string, who reader, path string, opts []Option, call func(string) (clib.Manager, *clib.Failure)) (ExtendedManager, error) {
	o, err := chosen(op, opts, forOwnership)
	if err != nil {
		return nil, err
	}
	handle, failed := call(path)
	m := new(FileLockManager)
	m.reader = who
	if err := m.start(op, handle, failed, o.owner, func(m *manager, id uint32) Locker { return &FileLock{lock{m, id}} }); err != nil {
		return nil, err
	}
	return m, nil
}
