// SPDX-License-Identifier: MIT OR Apache-2.0

package lockmanager

import "sync"

// waitingRoom limits the goroutines that wait in C, where each costs a thread. Of all goroutines that wait for one lock in one
// way, only a fixed number wait in C at a time; they have a turn.
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
	// turn holds a token for each goroutine that has a turn. The others block in sending, first come, first served.
	turn chan struct{}
	// users counts the goroutines that have a turn or want one.
	users int
}

// enter waits for a turn at this lock, or until done. False: it returned without a turn.
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

// leave passes the turn on to the next goroutine.
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

// empty reports whether nobody waits.
func (r *waitingRoom) empty() bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.queues) == 0
}
