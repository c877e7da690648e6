// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "sync"

// waitingRoom keeps goroutines that wait for a busy lock out of C, where each would cost a thread: of all that wait for
// one lock in one way, only so many at a time have the turn to wait there.
type waitingRoom struct {
	mutex  sync.Mutex
	queues map[place]*queue
}

// place is where a goroutine queues. Readers queue apart from writers: no reader waits for a writer's turn in Go.
type place struct {
	id  uint32
	way *way
}

type queue struct {
	place place
	// turn holds a token for each that has the turn; those who want it block in sending, first come, first served.
	turn chan struct{}
	// users counts who has the turn or wants it.
	users int
}

// enter waits for the turn at that lock, or until done. False: it has ended without the turn.
func (r *waitingRoom) enter(id uint32, w *way, done <-chan struct{}) (*queue, bool) {
	here := place{id, w}
	r.mutex.Lock()
	q := r.queues[here]
	if q == nil {
		if r.queues == nil {
			r.queues = make(map[place]*queue)
		}
		q = &queue{place: here, turn: make(chan struct{}, w.turns)}
		r.queues[here] = q
	}
	q.users++
	r.mutex.Unlock()

	select {
	case q.turn <- struct{}{}:
		return q, true
	case <-done:
		r.forget(q)
		return nil, false
	}
}

// leave gives the turn to the next.
func (r *waitingRoom) leave(q *queue) {
	<-q.turn
	r.forget(q)
}

func (r *waitingRoom) forget(q *queue) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if q.users--; q.users == 0 {
		delete(r.queues, q.place)
	}
}

// empty tells that nobody waits.
func (r *waitingRoom) empty() bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.queues) == 0
}
