// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(unsafe_code, reason = "a pointer that a forked child replaces")]
//! What callers ask of a manager. A caller never touches a socket: it leaves the keeper a task, and
//! waits for as long as its own deadline lets it.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::acquiring::Acquiring;
use crate::answers::NoAnswer;
use crate::core::HostLocks;
use crate::deleting::{Deleted, Deletion};
use crate::failure::{Failure, Outcome};
use crate::handing::take_over;
use crate::host::{Record, Records, State};
use crate::http::Cluster;
use crate::keeper::Keeper;
use crate::keys::Keys;
use crate::options::Options;
use crate::owner::Identity;
use crate::shared::{Common, Hold, Job, Loss, PAUSE, Task, Told, Wait};
use crate::slots::Slots;
use crate::storage::{self, Found};
use crate::sys::{self, Alarm, Bell};
use crate::wire::TXN;

/// What a step of a wait came to.
pub(crate) enum Step {
    Acquired(Told),
    SleepUntil(u64),
}

/// Whether somebody of this host waits for a lock that is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Here,
    NotHere,
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

    /// What this process has, or in a forked child that has asked for nothing yet, what its parent had.
    #[inline]
    pub(crate) fn here_or_of_parent(&self) -> &Common {
        // SAFETY: what the pointer leads to is freed when the engine is dropped, or never.
        unsafe { &(*self.live.load(Ordering::Acquire)).common }
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

    pub(crate) fn ask_for<T: Send + 'static>(
        &self,
        patience: Duration,
        mut question: impl FnMut(&mut Keeper) -> Result<T, NoAnswer> + Send + 'static,
    ) -> Outcome<T> {
        let common = self.here()?;
        let ticket = Arc::new((Mutex::new(None), Condvar::new()));
        let (answered, given_up) = (Arc::clone(&ticket), Arc::clone(&ticket));
        let attempt = move |keeper: &mut Keeper| {
            let answer = match question(keeper) {
                Err(NoAnswer::Unreachable(failure, sent)) => return Err(NoAnswer::Unreachable(failure, sent)),
                answer => answer.map_err(NoAnswer::into_failure),
            };
            hand_in(&answered, answer);
            Ok(())
        };
        let give_up = move |failure| hand_in(&given_up, Err(failure));
        let until = sys::monotonic().saturating_add(patience.as_nanos() as u64);
        let pause = PAUSE.as_nanos() as u64;
        let (attempt, give_up) = (Box::new(attempt), Box::new(give_up));
        let job = Job { attempt, give_up, until, not_before: 0, pause, longest_pause: pause };
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
        let is_kept = take_over(common, &wait);
        let wait = Arc::new(wait);
        if is_kept {
            wait.tell(&mut wait.state(), Ok(Told::Clean));
            return Ok(wait);
        }
        let mut acquiring = Box::new(Acquiring::new(Arc::clone(&wait)));
        if !acquiring.at_once(common) {
            common.leave_task(Task::Acquire(acquiring));
        }
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
            let hold = common.forget(&mut common.lock(), wait.id);
            common.records.set_state(wait.id, State::None);
            if let Some(hold) = hold {
                common.leave_task(Task::GiveBack(wait.id, hold));
            }
        } else {
            common.bell.ring();
        }
    }

    /// Gives a lock back.
    pub(crate) fn release(&self, id: u32, wanted: Wanted) -> Outcome<()> {
        let common = self.here()?;
        let Some(hold) = common.lock().holds.get(&id).cloned() else {
            return Err(Failure::lost(id, "this process has forgotten it"));
        };
        if !common.slots.is_held(id) {
            // It was kept, a moment ago.
            return Ok(());
        }
        let good_until = common.lock().good_until_of(&hold);
        let is_lost = sys::boot_time() >= good_until;
        // A waiter of the host may not sleep yet: where one was handed the key, the next is not far.
        let is_wanted_here = (wanted == Wanted::Here || hold.is_shared) && !hold.is_pinned;
        if is_wanted_here && common.may_keep(hold.record.since, good_until) && self.hand_on(id, &hold) {
            return Ok(());
        }
        common.forget(&mut common.lock(), id);
        // First: while the record says that the host has the key, the key is not another host's.
        common.records.set_state(id, State::None);
        if is_lost {
            // What is left of it tells the next holder.
            common.leave_task(Task::GiveBack(id, Hold { told: Told::OwnerDied, ..hold }));
            return Err(Failure::lost(id, hold.why_lost()));
        }
        match self.delete(id, hold.record) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::lost(id, Loss::KeyGone.why())),
            // It was held until now, so this is no loss.
            Err(_) if sys::boot_time() < good_until => {
                common.leave_task(Task::GiveBack(id, Hold { told: Told::Clean, ..hold }));
                Ok(())
            }
            Err(failure) => {
                common.leave_task(Task::GiveBack(id, Hold { told: Told::OwnerDied, ..hold }));
                Err(Failure::lost(id, &format!("its lease ended while it was unlocked ({})", failure.text)))
            }
        }
    }

    /// Deletes a key, in this thread if that is quick. Whether the key was there until now.
    fn delete(&self, id: u32, record: Record) -> Outcome<bool> {
        let common = self.here()?;
        let deletion = Deletion { id, record, is_death: false };
        let mut is_in_doubt = false;
        match common.ask_at_once(TXN, &deletion.question(common), u64::MAX) {
            None => {}
            Some(Ok(answer)) => return Ok(deletion.understood(common, answer) != Deleted::Before),
            Some(Err(no @ NoAnswer::Unreachable(..))) => is_in_doubt = no.is_in_doubt(),
            Some(Err(refused)) => return Err(refused.into_failure()),
        }
        self.ask_for(2 * common.options.request_timeout(), move |keeper| {
            let deleted = keeper.delete_key(&deletion);
            // A key that is gone now was deleted by a question whose answer was lost.
            let is_gone_by_us = is_in_doubt;
            is_in_doubt |= deleted.as_ref().is_err_and(NoAnswer::is_in_doubt);
            deleted.map(|deleted| deleted != Deleted::Before || is_gone_by_us)
        })
    }

    /// The hold on a lock that the caller holds, if it is not lost.
    pub(crate) fn held(&self, id: u32) -> Outcome<Record> {
        let shared = self.here()?.lock();
        let hold = shared.holds.get(&id).ok_or_else(|| Failure::lost(id, "this process has forgotten it"))?;
        if sys::boot_time() >= shared.good_until_of(hold) {
            return Err(Failure::lost(id, hold.why_lost()));
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

fn silence(common: &Common) -> Failure {
    let none = || Failure::new(libc::ETIMEDOUT, "etcd did not answer in time; see `etcdctl endpoint status`");
    common.lock().trouble.clone().unwrap_or_else(none)
}

impl Live {
    fn start(options: &Options, found: &Found, mut cluster: Cluster) -> Outcome<Self> {
        cluster.stay_in(&found.cluster);
        let identity = Identity::new(options.host.as_deref());
        let segment = found.segment(options, &identity);
        let system = |error: std::io::Error| Failure::of_system("making a descriptor", &error);
        let renewal = options.renewal().as_nanos() as u64;
        let common = Arc::new(Common {
            num_locks: found.num_locks,
            epoch: found.epoch,
            records: Records::open(&segment, found.num_locks)?,
            host_locks: HostLocks::open(&segment, found.num_locks)?,
            options: options.clone(),
            keys: Keys::new(&options.prefix),
            identity,
            bell: Bell::new().map_err(system)?,
            alarm: Alarm::new().map_err(system)?,
            slots: Slots::new(found.num_locks)?,
            shared: Mutex::default(),
            cluster: Mutex::new(cluster),
            last_answer: AtomicU64::new(0),
            last_serial: AtomicU64::new(0),
            needed_to_take: renewal / 2,
            needed_to_keep: renewal,
        });
        let keeper = Keeper::new(Arc::clone(&common));
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
