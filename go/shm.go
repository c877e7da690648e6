// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "github.com/lock-manager/lock-manager/go/internal/clib"

// SHMLockManager is a manager whose locks are in a shared memory segment, named by a POSIX name ("/name": the file of
// that name in /dev/shm) or by the absolute path of a file.
type SHMLockManager struct{ manager }

// SHMLock is one lock of a [SHMLockManager].
type SHMLock struct{ lock }

// NewSHMLockManager creates a segment of at least that many locks: the number is rounded up to what the layout needs. As
// libpod's function of this name it makes the layout [Libpod], a segment as Podman's own; WithLayout([Native]) makes the
// other. The manager is a [*SHMLockManager].
//
// fs.ErrExist: the name is taken. ENOSPC: the file system is full; nothing is left behind. EINVAL: 0 or more than
// 16,777,216 locks, a bad path, or an option that does not fit.
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

// OpenSHMLockManager opens a segment that exists, of either layout, and, as libpod's function of this name, of that number
// of locks: 0 is EINVAL. [OpenOrNewSHMLockManager] takes what is there for 0. The manager is a [*SHMLockManager].
//
// fs.ErrNotExist: there is none. ERANGE: it has another number of locks, and has never had that many. EPROTO: it is none of
// ours, damaged, or made for another libc, architecture or version. EACCES: permissions, a symbolic link, or an owner that
// is neither the caller nor root. EUSERS: more processes use it than there is room for.
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

const noLocks = "0 locks were asked for; give the segment's number (num_locks in containers.conf), or open what is there " +
	"with OpenOrNewSHMLockManager, which takes 0 for that"

// OpenOrNewSHMLockManager opens the segment if it exists, else creates it; of two first users at once, one creates it and
// both succeed. 0 locks opens what is there, whatever its number, and is EINVAL where nothing is. A new segment is in the
// library's own layout, [Native], unless [WithLayout] says otherwise; the options for a new segment count at creation only,
// but for the layout, which must be that of the segment if it is named. The manager is a [*SHMLockManager].
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

// RemoveSHM removes a segment. Who has it open keeps it, can unlock and look, and is told ESTALE: in the native layout by
// every lock call and allocation from then on, and where it waits; in the libpod layout at allocation and in waits, within
// 100 ms.
//
// fs.ErrNotExist: there is none. EPROTO: it carries no magic number of ours; it stays.
func RemoveSHM(path string) error { return errorFor(goProgrammer, opRemove, clib.RemoveSHM(path)) }

func shmManager(op string, who reader, handle clib.Manager, failed *clib.Failure, o options) (ExtendedManager, error) {
	m := new(SHMLockManager)
	m.reader = who
	if err := m.start(op, handle, failed, o.owner, func(m *manager, id uint32) Locker { return &SHMLock{lock{m, id}} }); err != nil {
		return nil, err
	}
	return m, nil
}
