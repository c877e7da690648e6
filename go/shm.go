// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "github.com/lock-manager/lock-manager/go/internal/clib"

// SHMLockManager is a manager whose locks are in a shared memory segment, named by a POSIX name ("/name": the file of
// that name in /dev/shm) or by the absolute path of a file.
type SHMLockManager struct{ manager }

// SHMLock is one lock of a [SHMLockManager].
type SHMLock struct{ lock }

// NewSHMLockManager creates a segment of at least that many locks: the number is rounded up to what the layout needs, a
// multiple of 64 in the native one. The layout is [Native]; where Podman itself is to use the segment, WithLayout(Libpod).
// The manager is a [*SHMLockManager].
//
// fs.ErrExist: the name is taken. ENOSPC: the file system is full; nothing is left behind. EINVAL: 0 or more than
// 16,777,216 locks, a bad path, or an unknown option.
func NewSHMLockManager(path string, numLocks uint32, opts ...Option) (Manager, error) {
	const op = "create"
	o, err := chosen(op, opts, forNewSegments|forOwnership)
	if err != nil {
		return nil, err
	}
	handle, failed := clib.NewSHM(path, numLocks, o.shm)
	return shmManager(op, handle, failed, o)
}

// OpenSHMLockManager opens a segment that exists; 0 locks takes what is there. The manager is a [*SHMLockManager].
//
// fs.ErrNotExist: there is none. ERANGE: it has another number of locks, and has never had that many. EPROTO: it is none of
// ours, damaged, or made for another libc, architecture or version. EACCES: permissions, a symbolic link, or an owner that
// is neither the caller nor root. EUSERS: more processes use it than there is room for.
func OpenSHMLockManager(path string, numLocks uint32, opts ...Option) (Manager, error) {
	const op = "open"
	o, err := chosen(op, opts, forOwnership|forReading)
	if err != nil {
		return nil, err
	}
	if o.readOnly {
		if o.given&forOwnership != 0 || numLocks != 0 {
			return nil, invalid(op, "a segment that is only looked at is opened with 0 locks and without ownership")
		}
		handle, failed := clib.OpenSHMReadOnly(path)
		return shmManager(op, handle, failed, o)
	}
	handle, failed := clib.OpenSHM(path, numLocks)
	return shmManager(op, handle, failed, o)
}

// OpenOrNewSHMLockManager opens the segment if it exists, else creates it; of two first users at once, one creates it and
// both succeed. The options for a new segment count at creation only. The manager is a [*SHMLockManager].
func OpenOrNewSHMLockManager(path string, numLocks uint32, opts ...Option) (Manager, error) {
	const op = "open or create"
	o, err := chosen(op, opts, forNewSegments|forOwnership)
	if err != nil {
		return nil, err
	}
	handle, failed := clib.OpenOrNewSHM(path, numLocks, o.shm)
	return shmManager(op, handle, failed, o)
}

// RemoveSHM removes a segment. Who has it open keeps it, can unlock and look, and is told ESTALE: in the native layout by
// every lock call and allocation from then on, and where it waits; in the libpod layout at allocation and in waits, within
// 100 ms.
//
// fs.ErrNotExist: there is none. EPROTO: it carries no magic number of ours; it stays.
func RemoveSHM(path string) error { return errorOf("remove", clib.RemoveSHM(path)) }

func shmManager(op string, handle clib.Manager, failed *clib.Failure, o options) (Manager, error) {
	m := new(SHMLockManager)
	if err := m.start(op, handle, failed, o.owner, func(m *manager, id uint32) Locker { return &SHMLock{lock{m, id}} }); err != nil {
		return nil, err
	}
	return m, nil
}
