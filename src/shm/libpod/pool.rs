// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "only here is known that a mutex stays mapped while it is held")]
//! A segment as this process has it mapped: once, however many managers are open on it, because a thread's robust list
//! has addresses.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::mutex::{self, Attempt, MutexLayout, RobustMutex};
use crate::sys::process::Process;
use crate::sys::process::registry::{Registry, Shared};
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::mapping::{Mapping, WipedOnFork};
use crate::{Reason, Result};

use super::super::Outcome;
use super::super::name::SegmentName;
use super::super::segment::{self, Blueprint, Segment};
use super::format::{self, Geometry, offset};

/// How long an answer about removal is believed: less than a slice, so a waiter asks at the end of each.
pub(super) const REMOVAL_LOOK_INTERVAL_NS: u64 = 25_000_000;

static POOLS: Registry<Pool> = Registry::new();

/// A mapped segment, and what this process records about it.
pub(super) struct Pool {
    pub(super) segment: Segment,
    pub(super) geometry: Geometry,
    pub(super) mutex_layout: MutexLayout,
    /// For each lock that a thread of this process holds: the manager's number and the thread's local id.
    holders: WipedOnFork,
    /// The group with which allocation begins.
    pub(super) next_group: AtomicU32,
}

impl Pool {
    /// The pool of a segment that was just mapped, or the pool that this process already has of it.
    pub(super) fn of(
        process: &'static Process,
        name: &SegmentName,
        segment: Segment,
        geometry: Geometry,
    ) -> Result<Shared<Self>> {
        let mutex_layout = mutex_layout().map_err(|reason| name.error(reason))?;
        check_mutexes(&segment.map, geometry, mutex_layout).map_err(|reason| name.error(reason))?;
        let key = [segment.metadata.device, segment.metadata.inode, segment.access as u64];
        let alone = process.exclude_other_threads();
        POOLS.get_or_make(
            &alone,
            key,
            |pool| {
                let (found, expected) = (geometry.num_locks().into(), pool.geometry.num_locks().into());
                let same = geometry == pool.geometry;
                let reason =
                    Reason::Damaged { what: "the number of locks, which changed while in use,", found, expected };
                if same { Ok(()) } else { Err(name.error(reason)) }
            },
            || {
                let holders = WipedOnFork::new(geometry.num_locks() as usize);
                let holders = holders.map_err(name.failed("reserving memory"))?;
                Ok(Self { segment, geometry, mutex_layout: *mutex_layout, holders, next_group: AtomicU32::new(0) })
            },
        )
    }

    /// The addresses of lock 0's mutex, which the others follow as the geometry says, of the mutex that guards the
    /// bitmaps, and of the table of holders.
    pub(super) fn addresses(&self) -> (*mut u8, *mut u8, *const AtomicU64) {
        let map = &self.segment.map;
        let rest = self.geometry.size() - offset::FIRST_MUTEX;
        let guard = map.address(offset::GUARD, mutex::SIZE, mutex::ALIGN);
        (map.address(offset::FIRST_MUTEX, rest, mutex::ALIGN), guard, self.holders.words().as_ptr())
    }

    /// The mutex of a lock.
    #[inline(always)]
    pub(super) fn mutex(&self, id: u32) -> RobustMutex<'_> {
        RobustMutex::at(&self.segment.map, Geometry::mutex_offset(id), &self.mutex_layout)
    }

    /// The mutex that guards the bitmaps.
    pub(super) fn guard(&self) -> RobustMutex<'_> {
        RobustMutex::at(&self.segment.map, offset::GUARD, &self.mutex_layout)
    }

    /// Takes a mutex of this pool if it is free. The caller has entered as a thread of this process.
    #[inline(always)]
    pub(super) fn try_mutex(&self, mutex: RobustMutex<'_>) -> Attempt {
        // SAFETY: managers that change anything map for writing. The mapping outlives every mutex that is held: a
        // manager with a lock held cannot be closed, is kept when it is dropped, and the guard is never held across
        // calls. Thread::enter() has ruled out a child cloned behind the libc's back.
        mutex.conclude(unsafe { mutex.try_lock() })
    }

    /// Waits for a mutex of this pool until `deadline`; what came of it is still to be settled. The caller has entered as a
    /// thread of this process.
    #[inline(always)]
    pub(super) fn wait_mutex(&self, mutex: RobustMutex<'_>, deadline: Instant) -> Option<i32> {
        // SAFETY: as for try_mutex.
        unsafe { mutex.wait_until(deadline) }
    }

    /// Which thread of this process holds a lock; 0: none.
    #[inline(always)]
    pub(super) fn holder(&self, id: u32) -> &AtomicU64 {
        &self.holders.words()[id as usize]
    }
}

/// Creates a segment and maps it.
pub(super) fn create(name: &SegmentName, geometry: Geometry, mode: u32) -> Result<Segment> {
    let mutex_layout = mutex_layout().map_err(|reason| name.error(reason))?;
    let reserved = [(0, geometry.size() as u64)];
    let blueprint = Blueprint { mode, reserved: &reserved, look_interval_ns: REMOVAL_LOOK_INTERVAL_NS };
    segment::create(name, &blueprint, |map, _, _, _| write(map, geometry, mutex_layout))
}

fn mutex_layout() -> Outcome<&'static MutexLayout> {
    MutexLayout::of_this_libc().ok_or(Reason::Unsupported(
        "this library does not know the form of this libc's robust mutexes, so it could not tell who holds one; use the native \
         layout",
    ))
}

/// Writes a segment with nothing allocated.
fn write(map: &Mapping, geometry: Geometry, mutex_layout: &MutexLayout) -> Outcome<()> {
    let initialise = |offset| {
        // SAFETY: nobody else knows the memory before the file has a name, and a draft is mapped for writing.
        let made = unsafe { RobustMutex::at(map, offset, mutex_layout).initialise() };
        made.map_err(|errno| Reason::System { doing: "initialising a robust mutex", errno })
    };
    initialise(offset::GUARD)?;
    for id in 0..geometry.num_locks() {
        initialise(Geometry::mutex_offset(id))?;
    }
    map.u32_at(offset::NUM_BITMAPS).store(geometry.groups, Ordering::Relaxed);
    map.u32_at(offset::NUM_LOCKS).store(geometry.num_locks(), Ordering::Relaxed);
    // Write the magic last. Nobody sees the file before it is linked, and linkat(2) orders all of this before.
    map.u16_at(offset::MAGIC).store(format::MAGIC, Ordering::Release);
    Ok(())
}

/// Refuses mutexes that this libc would not lock as its own. [`format::check_libc`] has refused those of another libc; here a
/// mutex is damaged, or was made with other attributes.
fn check_mutexes(map: &Mapping, geometry: Geometry, mutex_layout: &MutexLayout) -> Outcome<()> {
    let check = |id: Option<u32>| {
        let offset = id.map_or(offset::GUARD, Geometry::mutex_offset);
        match RobustMutex::at(map, offset, mutex_layout).foreign_kind() {
            None => Ok(()),
            Some((found, expected)) => Err(Reason::ForeignMutex { id, found, expected }),
        }
    };
    check(None)?;
    (0..geometry.num_locks()).try_for_each(|id| check(Some(id)))
}
