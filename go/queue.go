// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "sync"

// waitingRoom keeps goroutines that wait for a busy lock out of C, where each would cost a thread: of all that wait for
// one lock, one at a time has the turn to wait there.
type waitingRoom struct {
	mutex  sync.Mutex
	queues map[uint32]*queue
}

type queue struct {
	// turn holds a token while somebody has the turn; those who want it block in sending, first come, first served.
	turn chan struct{}
	// users counts who has the turn or wants it.
	users int
}

// enter waits for the turn at that lock, or until done. False: it has ended without the turn.
func (w *waitingRoom) enter(id uint32, done <-chan struct{}) (*queue, bool) {
	w.mutex.Lock()
	q := w.queues[id]
	if q == nil {
		if w.queues == nil {
			w.queues = make(map[uint32]*queue)
		}
		q = &queue{turn: make(chan struct{}, 1)}
		w.queues[id] = q
	}
	q.users++
	w.mutex.Unlock()

	select {
	case q.turn <- struct{}{}:
		return q, true
	case <-done:
		w.forget(id, q)
		return nil, false
	}
}

// leave gives the turn to the next.
func (w *waitingRoom) leave(id uint32, q *queue) {
	<-q.turn
	w.forget(id, q)
}

func (w *waitingRoom) forget(id uint32, q *queue) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if q.users--; q.users == 0 {
		delete(w.queues, id)
	}
}

// empty tells that nobody waits.
func (w *waitingRoom) empty() bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return len(w.queues) == 0
}
