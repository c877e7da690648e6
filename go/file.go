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

// FileLockManager is a manager whose locks are in a lock directory, with one file for each allocated lock. Ids go up to
// 16,777,215, and there is no other limit.
type FileLockManager struct{ manager }

// FileLock is one lock of a [FileLockManager].
type FileLock struct{ lock }

// NewFileLockManager creates a lock directory and, like libpod's function of this name, its missing parent directories. The
// manager is a [*FileLockManager].
//
// fs.ErrExist: the path exists, even if it is an empty directory.
func NewFileLockManager(path string, opts ...Option) (Manager, error) {
	return fileManager(opCreate, libpodUser, path, opts, newFile)
}

// OpenFileLockManager opens an existing lock directory. The manager is a [*FileLockManager].
//
// fs.ErrNotExist: there is no such directory. EPROTO: it is not a lock directory.
func OpenFileLockManager(path string, opts ...Option) (Manager, error) {
	return fileManager(opOpen, libpodUser, path, opts, clib.OpenFile)
}

// OpenOrNewFileLockManager opens a lock directory if it exists, and creates it otherwise, but not its parent directories. If
// two processes call it at once, one creates the directory and both succeed. The manager is a [*FileLockManager].
func OpenOrNewFileLockManager(path string, opts ...Option) (ExtendedManager, error) {
	return fileManager(opOpenOrCreate, goProgrammer, path, opts, clib.OpenOrNewFile)
}

// RemoveFile removes a lock directory.
//
// fs.ErrNotExist: there is no such directory. EPROTO: it is not a lock directory, and it stays.
func RemoveFile(path string) error { return errorFor(goProgrammer, opRemove, clib.RemoveFile(path)) }

// parentMode is the mode that libpod gives the directories that it creates; the umask applies.
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

// onOneLine escapes everything that would break an error over several lines.
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
