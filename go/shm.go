// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "github.com/lock-manager/lock-manager/go/internal/clib"

// SHMLockManager is a manager whose locks are in a shared memory segment. A POSIX name ("/name": the file of that name in
// /dev/shm) or the absolute path of a file names the segment.
type SHMLockManager struct{ manager }

// SHMLock is one lock of a [SHMLockManager].
type SHMLock struct{ lock }

// NewSHMLockManager creates a segment of this many locks, rounded up as the layout needs. Like libpod's function of this name,
// it creates the layout [Libpod], which Podman uses; WithLayout([Native]) creates the other. The manager is a
// [*SHMLockManager].
//
// fs.ErrExist: the name is taken. ENOSPC: the file system is full; nothing is left behind. EINVAL: 0 or more than 16,777,216
// locks, an invalid path, or an option that does not fit.
func NewSHMLockManager(path string, numLocks uint32, opts ...Option) (Manager, error) {
	o, err := chosen(opCreate, opts, forNewSegments|forOwnership)
	if err != nil {
		return nil, err
	}
	if o.shm.Layout == uint32(DefaultLayout) {
		o.shm.Layout = uint32(Libpod)
	}
	if err := o.fitLayout(opCreate); err != nil {
		return nil, err
	}
	handle, failed := clib.NewSHM(path, numLocks, o.shm)
	return shmManager(opCreate, libpodUser, handle, failed, o)
}

// OpenSHMLockManager opens an existing segment of either layout. Like libpod's function of this name, it needs the number of
// locks, and 0 is EINVAL; [OpenOrNewSHMLockManager] accepts 0 for any number. The manager is a [*SHMLockManager].
//
// fs.ErrNotExist: there is no such segment. ERANGE: it has another number of locks, and never had this many. EPROTO: it is not
// a segment of the library, is damaged, or was made for another libc, architecture or format version. EACCES: permissions, a
// symbolic link, or an owner that is neither the caller nor root. EUSERS: too many processes already use it.
func OpenSHMLockManager(path string, numLocks uint32, opts ...Option) (Manager, error) {
	o, err := chosen(opOpen, opts, forOwnership|forReading)
	if err != nil {
		return nil, err
	}
	if o.readOnly {
		if o.given&forOwnership != 0 || numLocks != 0 {
			return nil, invalid(opOpen, "a segment is opened read only with 0 locks and without an ownership")
		}
		handle, failed := clib.OpenSHMReadOnly(path)
		return shmManager(opOpen, libpodUser, handle, failed, o)
	}
	if numLocks == 0 {
		return nil, invalid(opOpen, noLocks)
	}
	handle, failed := clib.OpenSHM(path, numLocks)
	return shmManager(opOpen, libpodUser, handle, failed, o)
}

const noLocks = "0 locks were asked for; give the number of locks in the segment (num_locks in containers.conf), or open it " +
	"with OpenOrNewSHMLockManager, which accepts 0 for any number"

// OpenOrNewSHMLockManager opens the segment if it exists, and creates it otherwise. If two processes call it at once, one
// creates the segment and both succeed. With 0 locks it opens an existing segment of any number of locks, and returns EINVAL if
// there is none. A new segment has the library's own layout, [Native], unless [WithLayout] says otherwise. The options for a
// new segment count at creation only, except that an existing segment must have the layout that WithLayout names. The manager
// is a [*SHMLockManager].
func OpenOrNewSHMLockManager(path string, numLocks uint32, opts ...Option) (ExtendedManager, error) {
	o, err := chosen(opOpenOrCreate, opts, forNewSegments|forOwnership)
	if err != nil {
		return nil, err
	}
	if err := o.fitLayout(opOpenOrCreate); err != nil {
		return nil, err
	}
	handle, failed := clib.OpenOrNewSHM(path, numLocks, o.shm)
	return shmManager(opOpenOrCreate, goProgrammer, handle, failed, o)
}

// RemoveSHM removes a segment. Processes that have it open keep it, can still unlock and read information, and get ESTALE: in
// the native layout from every lock call, wait and allocation at once, in the libpod layout from allocation and waits within
// 100 ms.
//
// fs.ErrNotExist: there is no such segment. EPROTO: it does not carry the library's magic number, and it stays.
func RemoveSHM(path string) error { return errorFor(goProgrammer, opRemove, clib.RemoveSHM(path)) }

func shmManager(op string, who reader, handle clib.Manager, failed *clib.Failure, o options) (ExtendedManager, error) {
	m := new(SHMLockManager)
	m.reader = who
	if err := m.start(op, handle, failed, o.owner, func(m *manager, id uint32) Locker { return &SHMLock{lock{m, id}} }); err != nil {
		return nil, err
	}
	return m, nil
}
