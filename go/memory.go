// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "github.com/lock-manager/lock-manager/go/internal/clib"

// InMemoryManager is a manager whose locks belong to this process and this manager alone. It is for tests.
type InMemoryManager struct{ manager }

// Mutex is one lock of an [InMemoryManager].
type Mutex struct{ lock }

// NewInMemoryManager creates a manager of exactly this many locks; Grow adds more. The manager is an [*InMemoryManager].
//
// EINVAL: 0 or more than 16,777,216 locks.
func NewInMemoryManager(numLocks uint32, opts ...Option) (Manager, error) {
	o, err := chosen(opCreate, opts, forOwnership)
	if err != nil {
		return nil, err
	}
	handle, failed := clib.NewInMemory(numLocks)
	m := new(InMemoryManager)
	if err := m.start(opCreate, handle, failed, o.owner, func(m *manager, id uint32) Locker { return &Mutex{lock{m, id}} }); err != nil {
		return nil, err
	}
	return m, nil
}
