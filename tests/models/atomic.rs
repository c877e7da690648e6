// SPDX-License-Identifier: MIT OR Apache-2.0
//! The atomics that the bitmap's source is compiled with here: loom's, of which a thread can die at any.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

pub use loom::sync::atomic::Ordering;
use loom::sync::atomic::{AtomicPtr as LoomPtr, AtomicU32 as Loom32, AtomicU64 as Loom64};

/// What of the machine is broken, so that the models can be seen to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// A compare-and-swap is a load and a store.
    Swaps,
    /// What is added to a counter is lost.
    Counters,
}

thread_local! {
    /// Of the test: loom runs all threads of a model in the thread of its test.
    static BROKEN: Cell<Broken> = const { Cell::new(Broken::Nothing) };
    static LOADS: Cell<Loads> = const { Cell::new(Loads::Allowed) };
    static SEQUENCE: Cell<Sequence> = const { Cell::new(Sequence::Kept) };
}

/// What a load gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loads {
    /// Each value that its ordering allows.
    Allowed,
    /// The newest. Of the accesses to a word loom remembers the last alone, so that of two threads that load before one
    /// of them swaps it may miss an order; made as a change that changes nothing, no load is missed. Not for words that
    /// are stored to: loom does not know whether such a change comes before or after a store beside it.
    Newest,
}

/// How loads are for the rest of the test.
pub fn set_loads(loads: Loads) {
    LOADS.set(loads);
}

/// Whether accesses are in the one order of all that is sequentially consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    Kept,
    /// As if they only acquired and released.
    Broken,
}

/// How sequentially consistent accesses are for the rest of the test.
pub fn set_sequence(sequence: Sequence) {
    SEQUENCE.set(sequence);
}

/// loom takes sequentially consistent accesses for such as acquire and release. A fence it knows.
pub fn in_sequence() {
    if SEQUENCE.get() == Sequence::Kept {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Breaks the machine for the rest of the test.
pub fn break_machine(broken: Broken) {
    BROKEN.set(broken);
}

loom::thread_local! {
    /// How many steps the thread of the model has left. `None`: it does not die.
    static LEFT: Cell<Option<u32>> = Cell::new(None);
}

/// What a thread unwinds with that dies.
struct Death;

/// Runs `body`, which dies after that many atomic operations. Whether it came to its end.
pub fn dying_after(steps: u32, body: impl FnOnce()) -> bool {
    LEFT.with(|left| left.set(Some(steps)));
    let ended = catch_unwind(AssertUnwindSafe(body));
    LEFT.with(|left| left.set(None));
    match ended {
        Ok(()) => true,
        Err(cause) if cause.is::<Death>() => false,
        Err(cause) => resume_unwind(cause),
    }
}

fn step() {
    let left = LEFT.with(Cell::get);
    match left {
        None => {}
        Some(0) => resume_unwind(Box::new(Death)),
        Some(left) => LEFT.with(|place| place.set(Some(left - 1))),
    }
}

/// The compare-and-swap of numbers and of addresses.
macro_rules! compare_exchange {
    ($value:ty) => {
        pub fn compare_exchange(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            step();
            if BROKEN.get() == Broken::Swaps {
                let found = self.0.load(Ordering::Acquire);
                if found != current {
                    return Err(found);
                }
                self.0.store(new, Ordering::Release);
                return Ok(found);
            }
            self.0.compare_exchange(current, new, success, failure)
        }
    };
}

macro_rules! atomic {
    ($name:ident, $loom:ident, $number:ty) => {
        #[derive(Debug)]
        pub struct $name($loom);

        #[allow(dead_code, reason = "each width is used in its own ways")]
        impl $name {
            pub fn new(value: $number) -> Self {
                Self($loom::new(value))
            }

            pub fn load(&self, order: Ordering) -> $number {
                step();
                match LOADS.get() {
                    Loads::Allowed => self.0.load(order),
                    Loads::Newest => self.0.fetch_or(0, order),
                }
            }

            pub fn store(&self, value: $number, order: Ordering) {
                step();
                self.0.store(value, order);
            }

            pub fn swap(&self, value: $number, order: Ordering) -> $number {
                step();
                self.0.swap(value, order)
            }

            compare_exchange!($number);

            pub fn fetch_or(&self, bits: $number, order: Ordering) -> $number {
                step();
                self.0.fetch_or(bits, order)
            }

            pub fn fetch_and(&self, bits: $number, order: Ordering) -> $number {
                step();
                self.0.fetch_and(bits, order)
            }

            pub fn fetch_max(&self, least: $number, order: Ordering) -> $number {
                step();
                self.0.fetch_max(least, order)
            }

            pub fn fetch_add(&self, more: $number, order: Ordering) -> $number {
                step();
                if BROKEN.get() == Broken::Counters {
                    return self.0.load(order_of_load(order));
                }
                self.0.fetch_add(more, order)
            }
        }
    };
}

fn order_of_load(order: Ordering) -> Ordering {
    if order == Ordering::AcqRel { Ordering::Acquire } else { order }
}

/// An address, of the accesses that those of a number have.
#[derive(Debug)]
pub struct AtomicPtr<T>(LoomPtr<T>);

impl<T> AtomicPtr<T> {
    pub fn new(value: *mut T) -> Self {
        Self(LoomPtr::new(value))
    }

    pub fn load(&self, order: Ordering) -> *mut T {
        step();
        match LOADS.get() {
            Loads::Allowed => self.0.load(order),
            Loads::Newest => {
                let null = std::ptr::null_mut();
                self.0.compare_exchange(null, null, order, order).unwrap_or_else(|found| found)
            }
        }
    }

    compare_exchange!(*mut T);
}

atomic!(AtomicU32, Loom32, u32);
atomic!(AtomicU64, Loom64, u64);
