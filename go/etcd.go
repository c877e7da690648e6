// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import (
	"syscall"
	"time"

	"github.com/lock-manager/lock-manager/go/internal/clib"
)

// EtcdLockManager is a manager whose locks an etcd cluster keeps for several machines.
//
// A lease is no mutex: a holder that is paused for longer than its lease may run on while another has the lock. Only a resource
// that checks the [EtcdLock.FencingToken] of each request is safe. docs/etcd.md of the library has the picture.
type EtcdLockManager struct{ manager }

// EtcdLock is one lock of an [EtcdLockManager].
type EtcdLock struct{ lock }

// ErrLost is the errno of an UnlockErr whose lock may have been another's already: its lease may have ended while it was held.
const ErrLost = syscall.Errno(127)

// WithTTL sets how long a machine that is not heard of keeps its locks in etcd: 2 seconds to 1 hour, in whole seconds. The
// default is 10 seconds.
func WithTTL(ttl time.Duration) Option {
	return func(o *options) { o.etcd.TTLSeconds, o.given = seconds(ttl), o.given|forEtcd }
}

// WithPatience sets how long a call without a deadline of its own waits for etcd to answer. The default is 10 seconds.
func WithPatience(patience time.Duration) Option {
	return func(o *options) { o.etcd.PatienceSeconds, o.given = seconds(patience), o.given|forEtcd }
}

// WithEtcdConfig names a file of settings, with certificates, user and password, as docs/etcd.md describes it.
func WithEtcdConfig(file string) Option {
	return func(o *options) { o.etcd.ConfigFile, o.given = file, o.given|forEtcd }
}

// WithHostName names this machine. Processes with the same name share the first locks. The default is the boot id.
func WithHostName(name string) Option {
	return func(o *options) { o.etcd.Host, o.given = name, o.given|forEtcd }
}

// seconds rounds up, so that no time becomes the default.
func seconds(duration time.Duration) uint32 {
	return uint32((duration + time.Second - 1) / time.Second)
}

// OpenEtcdLockManager opens locks in an etcd cluster, and creates them if there are none and numLocks is not 0. The address is
// "etcd://host:port,host:port/prefix". The manager is an [*EtcdLockManager]. liblock_manager_etcd.so.0 is loaded by this call;
// if it is not there, the error is errors.ErrUnsupported.
//
// fs.ErrNotExist: there are no locks, and numLocks is 0. ERANGE: there is another number of locks. EPROTO: no etcd 3.4 or later
// answers there. ETIMEDOUT, EHOSTUNREACH, ECONNREFUSED: no endpoint answers. EACCES: the user, the password or its role.
func OpenEtcdLockManager(address string, numLocks uint32, opts ...Option) (ExtendedManager, error) {
	o, err := chosen(opOpenOrCreate, opts, forOwnership|forEtcd)
	if err != nil {
		return nil, err
	}
	handle, failed := clib.OpenEtcd(address, numLocks, o.etcd)
	m := new(EtcdLockManager)
	m.reader = goProgrammer
	if err := m.start(opOpenOrCreate, handle, failed, o.owner, func(m *manager, id uint32) Locker { return &EtcdLock{lock{m, id}} }); err != nil {
		return nil, err
	}
	return m, nil
}

// RemoveEtcd removes locks from an etcd cluster. Managers that have them open get ESTALE.
//
// fs.ErrNotExist: there are none.
func RemoveEtcd(address string, opts ...Option) error {
	o, err := chosen(opRemove, opts, forEtcd)
	if err != nil {
		return err
	}
	return errorFor(goProgrammer, opRemove, clib.RemoveEtcd(address, o.etcd))
}

// FencingToken is a number that grows with each machine that takes the lock, for ever. Hand it to what the lock protects with
// each request, and have that refuse a lower token than it has seen. EPERM: the caller does not hold the lock. [ErrLost]: the
// lock may be another's by now.
func (l *EtcdLock) FencingToken() (uint64, error) {
	token, failed := l.manager.c().FencingToken(l.id)
	if failed != nil {
		return 0, l.manager.failed(opLook, failed)
	}
	return token, nil
}

// EtcdParty is one who holds a lock in etcd, or waits for it.
type EtcdParty struct {
	// Holds: it holds the lock, and does not wait.
	Holds bool
	// Here: it is on this machine.
	Here bool
	// Host is the machine's name.
	Host string
	// PID and TID are its process id and thread id, in its own PID namespace.
	PID, TID int
	// Command is the process's command.
	Command string
	// Token is the fencing token of a holder.
	Token uint64
	// Since is for how long it has held the lock or waited, as far as the clocks of the machines agree.
	Since time.Duration
}

// Parties lists who holds the lock and who waits for it, on all machines: the holder first, then the waiters in the order in
// which they get the lock. Of each machine there is one: those that wait for the machine's own first lock are not listed.
func (l *EtcdLock) Parties() ([]EtcdParty, error) {
	found, failed := l.manager.c().EtcdParties(l.id)
	if failed != nil {
		return nil, l.manager.failed(opLook, failed)
	}
	parties := make([]EtcdParty, 0, len(found))
	for _, party := range found {
		parties = append(parties, EtcdParty{
			Holds: party.Holds, Here: party.Here, Host: party.Host, PID: int(party.PID), TID: int(party.TID), Command: party.Command,
			Token: party.Token, Since: time.Duration(party.SinceNS),
		})
	}
	return parties, nil
}

// LostFD is a descriptor that is readable while a lock that this manager holds may be lost. It belongs to the manager: wait for
// it by poll, and do not read from it or close it.
func (m *EtcdLockManager) LostFD() (int, error) {
	descriptor, failed := m.c().LostFD()
	if failed != nil {
		return 0, m.failed(opLook, failed)
	}
	return descriptor, nil
}
