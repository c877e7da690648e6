// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager

// Waiting counts the goroutines that wait for a lock without holding any: in C or for the turn to.
func Waiting(l Locker) int {
	inner := innerLock(l)
	room := &inner.manager.waiters
	room.mutex.Lock()
	defer room.mutex.Unlock()
	if q := room.queues[inner.id]; q != nil {
		return q.users
	}
	return 0
}

// TakeTurn takes the turn to wait in C for that lock, without waiting there; what it returns gives it back.
func TakeTurn(l Locker) func() {
	inner := innerLock(l)
	q, _ := inner.manager.waiters.enter(inner.id, nil)
	return func() { inner.manager.waiters.leave(inner.id, q) }
}

// GrowElsewhere grows the storage as another process would: this manager is not told.
func GrowElsewhere(m Manager, numLocks uint32) bool {
	return m.(*InMemoryManager).c().Grow(numLocks) == nil
}

func innerLock(l Locker) *lock {
	switch l := l.(type) {
	case *SHMLock:
		return &l.lock
	case *FileLock:
		return &l.lock
	default:
		return &l.(*Mutex).lock
	}
}

// HasGoName tells that a function of the C library is named in Go's words where a sentence of the library names it.
func HasGoName(function string) bool {
	_, ok := goNames[function]
	return ok
}
