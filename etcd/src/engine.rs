// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What a manager's callers and its keeper thread share. A caller never touches a socket: it leaves the keeper a task, and
//! waits for as long as its own deadline lets it.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::core::HostLocks;
use crate::failure::{Failure, Outcome};
use crate::host::{Record, Records, State, name_of, segment_name};
use crate::http::{Cluster, NoAnswer};
use crate::keeper::Keeper;
use crate::keys::{Config, FORMAT, Keys, json_of};
use crate::options::Options;
use crate::owner::Identity;
use crate::sys::{self, Alarm, Bell};
use crate::wire::{self, TxnResponse, VersionResponse};

const NANOSECONDS: u64 = 1_000_000_000;

/// For how long a host may keep a key that others on it wait for, so that other hosts get their turn.
const LONGEST_KEPT_NS: u64 = 100_000_000;

/// A pause between two rounds of questions that nobody answered.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// A lock that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) record: Record,
    /// Whether its holder was told of a death.
    pub(crate) died: bool,
    pub(crate) is_lost: bool,
}

/// What the keeper is asked to do.
pub(crate) enum Task {
    Acquire(Arc<Wait>),
    /// Gives back what a wait got that is over.
    GiveBack(u32, Hold),
    /// Looks whether a key that was kept found somebody.
    Kept(u32, Record),
    Ask(Job),
}

/// Asks once. Unreachable: to be asked again.
type Attempt = dyn FnMut(&mut Keeper) -> Result<(), NoAnswer> + Send;

/// A question, repeated until there is an answer or its time is over.
pub(crate) struct Job {
    pub(crate) attempt: Box<Attempt>,
    pub(crate) give_up: Box<dyn FnOnce(Failure) + Send>,
    pub(crate) until: u64,
    pub(crate) not_before: u64,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) inbox: Vec<Task>,
    pub(crate) holds: BTreeMap<u32, Hold>,
    /// Until when each lease is good that something here depends on, by the clock of leases.
    pub(crate) leases: HashMap<i64, u64>,
    /// What the last question without an answer met.
    pub(crate) trouble: Option<Failure>,
    pub(crate) is_closing: bool,
    /// Whether another process of the host may rely on this one's lease.
    pub(crate) has_handed_on: bool,
}

/// What all threads of one manager use.
pub(crate) struct Common {
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    pub(crate) identity: Identity,
    pub(crate) num_locks: u32,
    /// The create revision of the storage's first key.
    pub(crate) epoch: i64,
    pub(crate) segment: String,
    pub(crate) records: Records,
    pub(crate) host_locks: HostLocks,
    pub(crate) bell: Bell,
    alarm: Alarm,
    shared: Mutex<Shared>,
    process: u32,
}

impl Common {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn leave_task(&self, task: Task) {
        self.lock().inbox.push(task);
        self.bell.ring();
    }

    /// Sets the alarm to when the first lock that is held may be lost.
    pub(crate) fn set_alarm(&self, shared: &Shared) {
        let good_until = |hold: &Hold| {
            let until = shared.leases.get(&hold.record.lease).copied().unwrap_or(0);
            if hold.is_lost { 0 } else { until }
        };
        self.alarm.set(shared.holds.values().map(good_until).min());
    }

    fn check_process(&self) -> Outcome<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Failure::new(
            libc::EOPNOTSUPP,
            "a forked child has no connection to etcd, and holds nothing of its parent's; open a manager of its own in the child",
        ))
    }
}

/// An acquisition, as its caller and the keeper see it.
pub(crate) struct Wait {
    pub(crate) id: u32,
    pub(crate) tid: i32,
    pub(crate) by_process: bool,
    pub(crate) is_try: bool,
    pub(crate) timeout_ns: u64,
    pub(crate) deadline_ns: u64,
    /// What the host had of the lock when the acquisition began.
    pub(crate) left: Record,
    pub(crate) word: AtomicU32,
    pub(crate) state: Mutex<WaitState>,
}

#[derive(Debug, Default)]
pub(crate) struct WaitState {
    pub(crate) outcome: Option<Outcome<bool>>,
    is_taken: bool,
    pub(crate) is_abandoned: bool,
    /// Who is in the way, for people.
    pub(crate) in_the_way: Option<String>,
}

impl Wait {
    pub(crate) fn state(&self) -> MutexGuard<'_, WaitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the caller. The state is the caller's, so that nothing comes between.
    pub(crate) fn tell(&self, state: &mut WaitState, outcome: Outcome<bool>) {
        state.outcome = Some(outcome);
        self.word.store(1, Ordering::Release);
        sys::wake_all(&self.word);
    }
}

/// What a step of a wait came to.
pub(crate) enum Step {
    /// Whether a death is to be told.
    Acquired(bool),
    SleepUntil(u64),
}

/// A manager's side in this process.
pub(crate) struct Engine {
    pub(crate) common: Arc<Common>,
    keeper: Option<JoinHandle<()>>,
}

impl Engine {
    /// Opens the locks, and makes them if they are missing and `num_locks` is not 0.
    pub(crate) fn open(options: Options, num_locks: u32) -> Outcome<Self> {
        let mut cluster = Cluster::new(&options)?;
        let keys = Keys::new(&options.prefix);
        let found = find_or_make(&mut cluster, &options, &keys, num_locks)?;
        let identity = Identity::new(options.host.as_deref());
        let segment =
            segment_name(&format!("{} {} {} {}", found.cluster, options.prefix, found.epoch, identity.host_id()));
        let system = |error: std::io::Error| Failure::of_system("making a descriptor", &error);
        let common = Arc::new(Common {
            num_locks: found.num_locks,
            epoch: found.epoch,
            records: Records::open(&segment)?,
            host_locks: HostLocks::open(&segment, found.num_locks)?,
            segment,
            options,
            keys,
            identity,
            bell: Bell::new().map_err(system)?,
            alarm: Alarm::new().map_err(system)?,
            shared: Mutex::default(),
            process: std::process::id(),
        });
        let keeper = Keeper::new(Arc::clone(&common), cluster);
        let spawn = || std::thread::Builder::new().name("lock_manager".to_owned()).spawn(move || keeper.run());
        let keeper =
            sys::with_signals_blocked(spawn).map_err(|error| Failure::of_system("starting a thread", &error))?;
        Ok(Self { common, keeper: Some(keeper) })
    }

    /// Has the keeper ask something, and waits for the answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnMut(&mut Keeper) -> Result<T, NoAnswer> + Send + 'static,
    ) -> Outcome<T> {
        self.common.check_process()?;
        self.ask_for(self.common.options.patience, question)
    }

    fn ask_for<T: Send + 'static>(
        &self,
        patience: Duration,
        mut question: impl FnMut(&mut Keeper) -> Result<T, NoAnswer> + Send + 'static,
    ) -> Outcome<T> {
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
        self.common.leave_task(Task::Ask(job));
        let deadline = Instant::now() + patience + self.common.options.request_timeout();
        let (place, signal) = &*ticket;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = place.take() {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.silence());
            }
            place = signal.wait_timeout(place, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn silence(&self) -> Failure {
        let none = || Failure::new(libc::ETIMEDOUT, "etcd did not answer in time; see `etcdctl endpoint status`");
        self.common.lock().trouble.clone().unwrap_or_else(none)
    }

    /// Begins an acquisition. The caller has the native lock.
    pub(crate) fn begin(&self, wait: Wait) -> Outcome<Arc<Wait>> {
        self.common.check_process()?;
        let mut wait = wait;
        wait.left = self.common.records.read(wait.id);
        if let Some(hold) = self.kept_hold(&wait) {
            let mut shared = self.common.lock();
            let is_known = shared.leases.contains_key(&hold.record.lease);
            shared.leases.entry(hold.record.lease).or_insert(hold.record.good_until);
            shared.holds.insert(wait.id, hold);
            self.common.set_alarm(&shared);
            drop(shared);
            if !is_known {
                self.common.bell.ring();
            }
            let wait = Arc::new(wait);
            wait.tell(&mut wait.state(), Ok(false));
            return Ok(wait);
        }
        let wait = Arc::new(wait);
        self.common.leave_task(Task::Acquire(Arc::clone(&wait)));
        Ok(wait)
    }

    /// The hold on a key that the host has kept, if its lease is good for long enough.
    fn kept_hold(&self, wait: &Wait) -> Option<Hold> {
        let Record { state, good_until, .. } = wait.left;
        let needed = self.common.options.renewal().as_nanos() as u64;
        if state != State::Kept || good_until < sys::boot_time().saturating_add(needed) {
            return None;
        }
        let record = Record { state: State::Held, ..wait.left };
        self.common.records.write(wait.id, &record).then_some(Hold { record, died: false, is_lost: false })
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
        let why = match (self.common.lock().trouble.clone(), in_the_way) {
            (Some(trouble), _) => trouble.text,
            (None, Some(holder)) => format!("it is held by {holder}; wait longer, or ask there"),
            (None, None) => "etcd has not answered yet; wait longer".to_owned(),
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
        if got_it {
            let hold = self.common.lock().holds.remove(&wait.id);
            self.common.records.write(wait.id, &Record::NONE);
            if let Some(hold) = hold {
                self.common.leave_task(Task::GiveBack(wait.id, hold));
            }
        } else {
            self.common.bell.ring();
        }
    }

    /// Gives a lock back.
    pub(crate) fn release(&self, id: u32, is_wanted_here: bool) -> Outcome<()> {
        let common = &self.common;
        common.check_process()?;
        let mut shared = common.lock();
        let Some(hold) = shared.holds.remove(&id) else {
            return Err(Failure::lost(id, "this process has forgotten it"));
        };
        let good_until = shared.leases.get(&hold.record.lease).copied().unwrap_or(0);
        common.set_alarm(&shared);
        let now = sys::boot_time();
        let is_lost = hold.is_lost || now >= good_until;
        let needed = 2 * common.options.renewal().as_nanos() as u64;
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
            released.map(|was_there| was_there || is_gone_by_us)
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
        self.common.check_process()?;
        let shared = self.common.lock();
        let hold = shared.holds.get(&id).ok_or_else(|| Failure::lost(id, "this process has forgotten it"))?;
        let good_until = shared.leases.get(&hold.record.lease).copied().unwrap_or(0);
        if hold.is_lost || sys::boot_time() >= good_until {
            return Err(Failure::lost(id, "its lease was not renewed in time"));
        }
        Ok(hold.record)
    }

    pub(crate) fn alarm(&self) -> RawFd {
        self.common.alarm.as_raw_fd()
    }
}

fn hand_in<T>(ticket: &(Mutex<Option<Outcome<T>>>, Condvar), answer: Outcome<T>) {
    *ticket.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    ticket.1.notify_all();
}

impl Drop for Engine {
    fn drop(&mut self) {
        // In a forked child there is no keeper to wait for.
        if self.common.check_process().is_err() {
            return;
        }
        self.common.lock().is_closing = true;
        self.common.bell.ring();
        if let Some(keeper) = self.keeper.take() {
            let _ended_anyway = keeper.join();
        }
    }
}

/// A storage as it was found.
pub(crate) struct Found {
    cluster: String,
    num_locks: u32,
    epoch: i64,
}

/// Asks the endpoints in turn, for as long as the options say.
pub(crate) fn ask_all<T>(
    cluster: &mut Cluster,
    options: &Options,
    mut question: impl FnMut(&mut Cluster, Duration) -> Result<T, NoAnswer>,
) -> Outcome<T> {
    let until = Instant::now() + options.patience;
    loop {
        for _ in 0..cluster.num_endpoints() {
            match question(cluster, options.request_timeout().min(until.saturating_duration_since(Instant::now()))) {
                Err(NoAnswer::Unreachable(failure)) if Instant::now() >= until => return Err(failure),
                Err(NoAnswer::Unreachable(_)) => {}
                answer => return answer.map_err(NoAnswer::into_failure),
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn find_or_make(cluster: &mut Cluster, options: &Options, keys: &Keys, num_locks: u32) -> Outcome<Found> {
    let version: VersionResponse = ask_all(cluster, options, |cluster, timeout| cluster.read("/version", timeout))?;
    check_version(&version.etcdserver, cluster.endpoint())?;
    let key = keys.config();
    let value = json_of(&Config { format: FORMAT, locks: num_locks });
    let make = if num_locks == 0 { Vec::new() } else { vec![wire::put(&key, &value, 0)] };
    let question = wire::txn(&[wire::if_created(&key, 0)], &make, &[]);
    let _made: TxnResponse =
        ask_all(cluster, options, |cluster, timeout| cluster.ask("/v3/kv/txn", &question, timeout))?;
    let question = wire::txn(&[], &[wire::get(&key)], &[]);
    let answer: TxnResponse =
        ask_all(cluster, options, |cluster, timeout| cluster.ask("/v3/kv/txn", &question, timeout))?;
    let identity = answer.header.cluster_id.clone();
    let there = answer.into_ranges().next().and_then(|range| range.kvs.into_iter().next());
    let Some(there) = there else {
        return Err(Failure::new(libc::ENOENT, "there are no locks; open them with a number of locks to make them"));
    };
    let config: Config =
        serde_json::from_str(&there.value).ok().filter(|config: &Config| config.format == FORMAT).ok_or_else(|| {
            Failure::new(libc::EPROTO, format!("the key {key} is not of this version's; choose another prefix"))
        })?;
    if num_locks != 0 && config.locks != num_locks {
        let text =
            format!("holds {} locks, {num_locks} were asked for; open with 0 to take what is there", config.locks);
        return Err(Failure::new(libc::ERANGE, text));
    }
    Ok(Found { cluster: identity, num_locks: config.locks, epoch: there.create_revision })
}

fn check_version(version: &str, endpoint: &str) -> Outcome<()> {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    match (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) {
        (3, 4..) | (4.., _) => Ok(()),
        _ => {
            let text = format!("{endpoint} is etcd {version:?}, but 3.4 or later is needed; update it");
            Err(Failure::new(libc::EPROTO, text))
        }
    }
}

/// Removes the locks of an address, and what this host has beside them. Their users are told.
pub(crate) fn remove(options: &Options) -> Outcome<()> {
    let mut cluster = Cluster::new(options)?;
    let keys = Keys::new(&options.prefix);
    let found = find_or_make(&mut cluster, options, &keys, 0)?;
    let identity = Identity::new(options.host.as_deref());
    let question = wire::txn(&[], &[wire::delete_all(&keys.all())], &[]);
    let _removed: TxnResponse =
        ask_all(&mut cluster, options, |cluster, timeout| cluster.ask("/v3/kv/txn", &question, timeout))?;
    let segment = segment_name(&format!("{} {} {} {}", found.cluster, options.prefix, found.epoch, identity.host_id()));
    crate::core::remove_host_locks(&segment);
    let _was_not_there = std::fs::remove_file(Records::path(&segment));
    Ok(())
}

/// The last part of the key of a record's.
pub(crate) fn key_of(keys: &Keys, id: u32, record: &Record) -> String {
    keys.queued(id, &name_of(record.lease, record.serial))
}

const _: () = assert!(LONGEST_KEPT_NS < NANOSECONDS);
