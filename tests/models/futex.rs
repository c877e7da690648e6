// SPDX-License-Identifier: MIT OR Apache-2.0
//! futex(2) as loom can see it: comparing the word and going to sleep is one step beside every wake-up. Time does not
//! pass here by itself: a slice ends when the model says so.

use loom::sync::{Condvar, Mutex};

use super::atomic::{AtomicU64, Ordering};
use super::word;

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awake {
    Woken,
    /// The word had another value, and nobody slept.
    Changed,
    SliceOver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Elsewhere,
    Asleep,
    Woken,
    SliceOver,
}

struct State {
    places: Vec<Place>,
    /// Those who sleep, in the order in which they came.
    queue: Vec<usize>,
    /// Whose slice, the present one or the next, is at its end.
    over: Vec<bool>,
}

/// The kernel's side of one word.
pub struct Futex {
    state: Mutex<State>,
    bells: Vec<Condvar>,
}

impl Futex {
    pub fn of(threads: usize) -> Self {
        let state = State { places: vec![Place::Elsewhere; threads], queue: Vec::new(), over: vec![false; threads] };
        Self { state: Mutex::new(state), bells: (0..threads).map(|_| Condvar::new()).collect() }
    }

    pub fn sleep(&self, thread: usize, word: &AtomicU64, expected: u64) -> Awake {
        let mut state = self.state.lock().unwrap();
        if word::futex(word.load(Ordering::Relaxed)) != word::futex(expected) {
            return Awake::Changed;
        }
        if std::mem::take(&mut state.over[thread]) {
            return Awake::SliceOver;
        }
        state.places[thread] = Place::Asleep;
        state.queue.push(thread);
        while state.places[thread] == Place::Asleep {
            state = self.bells[thread].wait(state).unwrap();
        }
        match std::mem::replace(&mut state.places[thread], Place::Elsewhere) {
            Place::Woken => Awake::Woken,
            _ => Awake::SliceOver,
        }
    }

    /// Wakes who has slept longest; false: nobody sleeps.
    pub fn wake_one(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        if state.queue.is_empty() {
            return false;
        }
        let thread = state.queue.remove(0);
        state.places[thread] = Place::Woken;
        self.bells[thread].notify_one();
        true
    }

    /// Time passes: the slice of each of these threads ends, now if it sleeps, else when it wants to.
    pub fn end_slices_of(&self, threads: &[usize]) {
        let mut state = self.state.lock().unwrap();
        for &thread in threads {
            if state.places[thread] == Place::Asleep {
                state.queue.retain(|&other| other != thread);
                state.places[thread] = Place::SliceOver;
                self.bells[thread].notify_one();
            } else {
                state.over[thread] = true;
            }
        }
    }
}
