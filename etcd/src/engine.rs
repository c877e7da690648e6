// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "a pointer that a forked child replaces")]
//! What callers ask of a manager. A caller never touches a socket: it leaves the keeper a task, and
//! waits for as long as its own deadline lets it.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::core::HostLocks;
use crate::failure::{Failure, Outcome};
use crate::host::{Record, Records, State};
use crate::http::{Cluster, NoAnswer};
use crate::keeper::{Deleted, Keeper};
use crate::keys::Keys;
use crate::options::Options;
use crate::owner::Identity;
use crate::shared::{Common, Hold, Job, Task, Wait};
use crate::storage::{self, Found};
use crate::sys::{self, Alarm, Bell};

const NANOSECONDS: u64 = 1_000_000_000;

/// For how long a host may keep a key that others on it wait for, so that other hosts get their turn.
const LONGEST_KEPT_NS: u64 = 100_000_000;

/// What a step of a wait came to.
pub(crate) enum Step {
    /// Whether a death is to be told.
    Acquired(bool),
    SleepUntil(u64),
}

/// What one process has of a manager.
struct Live {
    common: Arc<Common>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    process: u32,
}

/// A manager. A forked child finds what its parent had, of which it uses nothing that changes, and makes its own.
pub(crate) struct Engine {
    options: Options,
    found: Found,
    live: AtomicPtr<Live>,
}

impl Engine {
    /// Opens the locks, and makes them if they are missing and `num_locks` is not 0.
    pub(crate) fn open(options: Options, num_locks: u32) -> Outcome<Self> {
        let mut cluster = Cluster::new(&options)?;
        let found = storage::find_or_make(&mut cluster, &options, &Keys::new(&options.prefix), num_locks)?;
        let live = Live::start(&options, &found, cluster)?;
        Ok(Self { options, found, live: AtomicPtr::new(Box::into_raw(Box::new(live))) })
    }

    pub(crate) fn num_locks(&self) -> u32 {
        self.found.num_locks
    }

    /// The name of the native segment of this host.
    pub(crate) fn segment(&self) -> String {
        self.found.segment(&self.options, &Identity::new(self.options.host.as_deref()))
    }

    /// What this process has.
    pub(crate) fn here(&self) -> Outcome<&Common> {
        let seen = self.live.load(Ordering::Acquire);
        // SAFETY: what the pointer leads to is freed when the engine is dropped, or never.
        let live = unsafe { &*seen };
        if live.process == std::process::id() {
            return Ok(&live.common);
        }
        let own = Live::start(&self.options, &self.found, Cluster::new(&self.options)?)?;
        let own = Box::into_raw(Box::new(own));
        // The parent's is never freed here: its locks may be locked for ever.
        match self.live.compare_exchange(seen, own, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: as above.
            Ok(_) => Ok(unsafe { &(*own).common }),
            Err(winner) => {
                // SAFETY: nobody else has seen it.
                unsafe { Box::from_raw(own) }.end();
                // SAFETY: as above.
                Ok(unsafe { &(*winner).common })
            }
        }
    }

    /// Has the keeper ask something, and waits for the answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnMut(&mut Keeper) -> Result<T, NoAnswer> + Send + 'static,
    ) -> Outcome<T> {
        self.ask_for(self.options.patience, question)
    }

    fn ask_for<T: Send + 'static>(
        &self,
        patience: Duration,
        mut question: impl FnMut(&mut Keeper) -> Result<T, NoAnswer> + Send + 'static,
    ) -> Outcome<T> {
        let common = self.here()?;
        let ticket = Arc::new((Mutex::new(None), Condvar::new()));
        let (answered, given_up) = (Arc::clone(&ticket), Arc::clone(&ticket));
        let attempt = move |keeper: &mut Keeper| {
            let answer = match question(keeper) {
                Err(NoAnswer::Unreachable(failure)) => return Err(NoAnswer::Unreachable(failure)),
                answer => answer.map_err(NoAnswer::into_failure),
            };
            hand_in(&answered, answer);
            Ok(())
        };
        let give_up = move |failure| hand_in(&given_up, Err(failure));
        let until = sys::monotonic().saturating_add(patience.as_nanos() as u64);
        let job = Job { attempt: Box::new(attempt), give_up: Box::new(give_up), until, not_before: 0 };
        common.leave_task(Task::Ask(job));
        let deadline = Instant::now() + patience + self.options.request_timeout();
        let (place, signal) = &*ticket;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = place.take() {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(silence(common));
            }
            place = signal.wait_timeout(place, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Begins an acquisition. The caller has the native lock.
    pub(crate) fn begin(&self, wait: Wait) -> Outcome<Arc<Wait>> {
        let common = self.here()?;
        let mut wait = wait;
        wait.left = common.records.read(wait.id);
        if let Some(hold) = kept_hold(common, &wait) {
            let mut shared = common.lock();
            let is_known = shared.leases.contains_key(&hold.record.lease);
            shared.leases.entry(hold.record.lease).or_insert(hold.record.good_until);
            shared.holds.insert(wait.id, hold);
            common.set_alarm(&shared);
            drop(shared);
            if !is_known {
                common.bell.ring();
            }
            let wait = Arc::new(wait);
            wait.tell(&mut wait.state(), Ok(false));
            return Ok(wait);
        }
        let wait = Arc::new(wait);
        common.leave_task(Task::Acquire(Arc::clone(&wait)));
        Ok(wait)
    }

    /// Goes on with an acquisition.
    pub(crate) fn step(&self, wait: &Wait) -> Outcome<Step> {
        let mut state = wait.state();
        if let Some(outcome) = state.outcome.clone() {
            state.is_taken = outcome.is_ok();
            return outcome.map(Step::Acquired);
        }
        let until = if wait.is_try { u64::MAX } else { wait.deadline_ns };
        if sys::monotonic() < until {
            return Ok(Step::SleepUntil(until));
        }
        let in_the_way = state.in_the_way.clone();
        drop(state);
        let timeout = Duration::from_nanos(wait.timeout_ns);
        let why = match (self.here()?.lock().trouble.clone(), in_the_way) {
            (Some(trouble), _) => trouble.text,
            (None, Some(holder)) => format!("it is held by {holder}; wait longer, or ask there"),
            (None, None) => {
                let endpoints = self.options.endpoints.join(", ");
                format!("etcd at {endpoints} has not answered yet; wait longer, or see `etcdctl endpoint status`")
            }
        };
        let id = wait.id;
        Err(Failure::new(libc::ETIMEDOUT, format!("lock {id} did not become free within {timeout:?}: {why}")))
    }

    /// Ends an acquisition. The caller still has the native lock.
    pub(crate) fn leave(&self, wait: &Arc<Wait>) {
        let mut state = wait.state();
        if state.is_taken {
            return;
        }
        state.is_abandoned = true;
        let got_it = matches!(state.outcome, Some(Ok(_)));
        drop(state);
        let Ok(common) = self.here() else { return };
        if got_it {
            let hold = common.lock().holds.remove(&wait.id);
            common.records.write(wait.id, &Record::NONE);
            if let Some(hold) = hold {
                common.leave_task(Task::GiveBack(wait.id, hold));
            }
        } else {
            common.bell.ring();
        }
    }

    /// Gives a lock back.
    pub(crate) fn release(&self, id: u32, is_wanted_here: bool) -> Outcome<()> {
        let common = self.here()?;
        let mut shared = common.lock();
        let Some(hold) = shared.holds.remove(&id) else {
            return Err(Failure::lost(id, "this process has forgotten it"));
        };
        let good_until = shared.leases.get(&hold.record.lease).copied().unwrap_or(0);
        common.set_alarm(&shared);
        let now = sys::boot_time();
        let is_lost = hold.is_lost || now >= good_until;
        let needed = common.options.renewal().as_nanos() as u64;
        // A waiter of the host may not sleep yet: where one was handed the key, the next is not far.
        let is_wanted_here = is_wanted_here || hold.is_handed_on;
        let may_keep =
            now.saturating_sub(hold.record.since) < LONGEST_KEPT_NS && good_until.saturating_sub(now) > needed;
        if is_wanted_here && may_keep && !is_lost && !shared.is_closing {
            let record = Record { state: State::Kept, good_until, ..hold.record };
            if common.records.write(id, &record) {
                shared.has_handed_on = true;
                drop(shared);
                common.leave_task(Task::Kept(id, record));
                return Ok(());
            }
        }
        drop(shared);
        // First: while the record says that the host has the key, the key is not another host's.
        common.records.write(id, &Record::NONE);
        if is_lost {
            // What is left of it tells the next holder.
            common.leave_task(Task::GiveBack(id, Hold { died: true, ..hold }));
            let why =
                "its lease was not renewed in time, because this process was paused, or no endpoint of etcd answered";
            return Err(Failure::lost(id, why));
        }
        let record = hold.record;
        let mut is_repeated = false;
        let released = self.ask_for(2 * common.options.request_timeout(), move |keeper| {
            let released = keeper.delete_key(id, &record, false);
            // A key that is gone now was deleted by the first question.
            let is_gone_by_us = std::mem::replace(&mut is_repeated, true);
            released.map(|deleted| deleted != Deleted::Before || is_gone_by_us)
        });
        match released {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::lost(id, "its key is gone, because somebody deleted it or revoked its lease")),
            // It was held until now, so this is no loss.
            Err(_) if sys::boot_time() < good_until => {
                common.leave_task(Task::GiveBack(id, Hold { died: false, ..hold }));
                Ok(())
            }
            Err(failure) => {
                common.leave_task(Task::GiveBack(id, Hold { died: true, ..hold }));
                Err(Failure::lost(id, &format!("its lease ended while it was unlocked ({})", failure.text)))
            }
        }
    }

    /// The hold on a lock that the caller holds, if it is not lost.
    pub(crate) fn held(&self, id: u32) -> Outcome<Record> {
        let shared = self.here()?.lock();
        let hold = shared.holds.get(&id).ok_or_else(|| Failure::lost(id, "this process has forgotten it"))?;
        let good_until = shared.leases.get(&hold.record.lease).copied().unwrap_or(0);
        if hold.is_lost || sys::boot_time() >= good_until {
            return Err(Failure::lost(id, "its lease was not renewed in time"));
        }
        Ok(hold.record)
    }

    pub(crate) fn alarm(&self) -> Outcome<RawFd> {
        Ok(self.here()?.alarm.as_raw_fd())
    }
}

fn hand_in<T>(ticket: &(Mutex<Option<Outcome<T>>>, Condvar), answer: Outcome<T>) {
    *ticket.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    ticket.1.notify_all();
}

/// The hold on a key that the host has kept, if its lease is good for long enough.
fn kept_hold(common: &Common, wait: &Wait) -> Option<Hold> {
    let Record { state, good_until, .. } = wait.left;
    let needed = common.options.renewal().as_nanos() as u64 / 2;
    if state != State::Kept || good_until < sys::boot_time().saturating_add(needed) {
        return None;
    }
    let record = Record { state: State::Held, ..wait.left };
    common.records.write(wait.id, &record).then_some(Hold { is_handed_on: true, ..Hold::of(record, false) })
}

fn silence(common: &Common) -> Failure {
    let none = || Failure::new(libc::ETIMEDOUT, "etcd did not answer in time; see `etcdctl endpoint status`");
    common.lock().trouble.clone().unwrap_or_else(none)
}

impl Live {
    fn start(options: &Options, found: &Found, cluster: Cluster) -> Outcome<Self> {
        let identity = Identity::new(options.host.as_deref());
        let segment = found.segment(options, &identity);
        let system = |error: std::io::Error| Failure::of_system("making a descriptor", &error);
        let common = Arc::new(Common {
            num_locks: found.num_locks,
            epoch: found.epoch,
            records: Records::open(&segment)?,
            host_locks: HostLocks::open(&segment, found.num_locks)?,
            segment,
            options: options.clone(),
            keys: Keys::new(&options.prefix),
            identity,
            bell: Bell::new().map_err(system)?,
            alarm: Alarm::new().map_err(system)?,
            shared: Mutex::default(),
        });
        let keeper = Keeper::new(Arc::clone(&common), cluster);
        let spawn = || std::thread::Builder::new().name("lock_manager".to_owned()).spawn(move || keeper.run());
        let keeper =
            sys::with_signals_blocked(spawn).map_err(|error| Failure::of_system("starting a thread", &error))?;
        Ok(Self { common, keeper: Mutex::new(Some(keeper)), process: std::process::id() })
    }

    /// Has the keeper give back what is kept, and end.
    fn end(self) {
        self.common.lock().is_closing = true;
        self.common.bell.ring();
        if let Some(keeper) = self.keeper.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let _ended_anyway = keeper.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let live = self.live.load(Ordering::Acquire);
        // SAFETY: as in here(); nobody uses the engine any more. A forked child leaves its parent's alone.
        if unsafe { (*live).process } == std::process::id() {
            // SAFETY: as above.
            unsafe { Box::from_raw(live) }.end();
        }
    }
}

const _: () = assert!(LONGEST_KEPT_NS < NANOSECONDS);
