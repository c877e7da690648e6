// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "github.com/lock-manager/lock-manager/go/internal/clib"

// FileLockManager is a manager whose locks are files of a directory, one for each allocated lock. There is no maximum.
type FileLockManager struct{ manager }

// FileLock is one lock of a [FileLockManager].
type FileLock struct{ lock }

// NewFileLockManager makes a directory of locks, or of an empty directory that exists one. The manager is a
// [*FileLockManager].
//
// fs.ErrExist: it is a directory of locks already, or something else is there.
func NewFileLockManager(path string, opts ...Option) (Manager, error) {
	return fileManager("create", path, opts, clib.NewFile)
}

// OpenFileLockManager opens a directory of locks. The manager is a [*FileLockManager].
//
// fs.ErrNotExist: there is none. EPROTO: it is something else.
func OpenFileLockManager(path string, opts ...Option) (Manager, error) {
	return fileManager("open", path, opts, clib.OpenFile)
}

// OpenOrNewFileLockManager opens a directory of locks, or creates it; of two first users at once, one creates it and both
// succeed. The manager is a [*FileLockManager].
func OpenOrNewFileLockManager(path string, opts ...Option) (Manager, error) {
	return fileManager("open or create", path, opts, clib.OpenOrNewFile)
}

// RemoveFile removes a directory of locks.
//
// fs.ErrNotExist: there is none. EPROTO: it is something else; it stays.
func RemoveFile(path string) error { return errorOf("remove", clib.RemoveFile(path)) }

func fileManager(op, path string, opts []Option, call func(string) (clib.Manager, *clib.Failure)) (Manager, error) {
	o, err := chosen(op, opts, forOwnership)
	if err != nil {
		return nil, err
	}
	handle, failed := call(path)
	m := new(FileLockManager)
	if err := m.start(op, handle, failed, o.owner, func(m *manager, id uint32) Locker { return &FileLock{lock{m, id}} }); err != nil {
		return nil, err
	}
	return m, nil
}
