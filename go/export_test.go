// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux && cgo

package lockmanager

// Waiting counts the goroutines that wait for a lock without holding any: in C or for the turn to.
func Waiting(l Locker) int { return waiting(l, &exclusively) + waiting(l, &shared) }

// WaitingToRead counts those of them that want to hold it shared.
func WaitingToRead(l Locker) int { return waiting(l, &shared) }

func waiting(l Locker, w *way) int {
	inner := innerLock(l)
	room := &inner.manager.waiters
	room.mutex.Lock()
	defer room.mutex.Unlock()
	if q := room.queues[place{inner.id, w}]; q != nil {
		return q.users
	}
	return 0
}

// TakeTurn takes the turn to wait in C for that lock, without waiting there; what it returns gives it back.
func TakeTurn(l Locker) func() { return takeTurn(l, &exclusively) }

// TakeTurnsToRead takes all the turns to wait in C until that lock can be held shared.
func TakeTurnsToRead(l Locker) func() {
	var leave []func()
	for i := 0; i < readersInC; i++ {
		leave = append(leave, takeTurn(l, &shared))
	}
	return func() {
		for _, leave := range leave {
			leave()
		}
	}
}

func takeTurn(l Locker, w *way) func() {
	inner := innerLock(l)
	q, _ := inner.manager.waiters.enter(inner.id, w, nil)
	return func() { inner.manager.waiters.leave(q) }
}

// ReadersInC is how many goroutines wait in C at a time until one lock can be held shared.
const ReadersInC = readersInC

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
