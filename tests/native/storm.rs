// SPDX-License-Identifier: MIT OR Apache-2.0
//! All at once: kills, stops, threads that end raw while they hold, descriptors closed, children cloned behind the
//! libc's back and left alive, while the generations of the entries begin again. No lock has two holders, none is lost,
//! and each death inside is told.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager, ShmManager};

use super::support::alone::{self, alone};
use super::support::made::{leak, pthread, raw_exit, raw_fork};
use super::support::native_layout::{self as layout, GENERATIONS};
use super::support::process::sleep_until_killed;
use super::support::timing::{scaled, storm_goes_on};
use super::support::{Child, Exit, Random, Segment, board, eventually, fork};

/// How many seconds it lasts, if not as many as by default.
const SECONDS: &str = "LOCK_MANAGER_STORM_SECONDS";
const DEFAULT_SECONDS: u64 = 6;

/// Nobody holds a lock for long: one that is waited for like that is lost, or was.
const TOO_LONG: Duration = scaled(Duration::from_secs(2));

const WORKERS: usize = 8;
const THREADS: u32 = 3;
/// How many threads a worker starts in its life.
const LIVES: u32 = 64;
const MOST_WORKERS: u32 = 1 << 14;

/// Few are fought for; of the others some stay a dead holder's for long.
const HOT: u64 = 24;
const LOCKS: u32 = 1024;
/// As many entries are in use from the start.
const ENTRIES: u32 = 64;

#[derive(Clone, Copy)]
enum Count {
    Acquired,
    OwnerDied,
    TimedOut,
    RawExits,
    SelfKills,
    Stop,
    Workers,
}

/// What all share. A thread's life has a number of its own: that of its worker times [`LIVES`], and its place there.
#[derive(Clone, Copy)]
struct Arena {
    /// For each lock, the life that is inside.
    inside: &'static [AtomicU32],
    /// For each worker, whether it is about to be killed, or was.
    doomed: &'static [AtomicU32],
    /// For each life, whether it is about to end, or has.
    ended: &'static [AtomicU32],
    counts: &'static [AtomicU32],
}

impl Arena {
    fn count(self, what: Count) -> &'static AtomicU32 {
        &self.counts[what as usize]
    }

    fn add(self, what: Count) {
        self.count(what).fetch_add(1, Ordering::Relaxed);
    }

    fn get(self, what: Count) -> u32 {
        self.count(what).load(Ordering::Acquire)
    }

    /// Whether enough has happened for the test to have shown something.
    fn has_seen_a_storm(self, segment: &Segment, kills: u32) -> bool {
        self.get(Count::Acquired) > 1000
            && self.get(Count::OwnerDied) > 20
            && self.get(Count::RawExits) > 5
            && kills > 20
            && begun_again(segment) > 5
    }

    fn is_dead(self, life: u32) -> bool {
        self.ended[life as usize].load(Ordering::Acquire) != 0
            || self.doomed[(life / LIVES) as usize].load(Ordering::Acquire) != 0
    }

    fn enter(self, id: u32, life: u32, acquired: Acquired) {
        let before = self.inside[id as usize].swap(life, Ordering::AcqRel);
        match acquired {
            Acquired::Clean => assert_eq!(before, 0, "life {before} is inside of lock {id}, and so is {life}"),
            Acquired::OwnerDied => {
                self.add(Count::OwnerDied);
                assert!(before == 0 || self.is_dead(before), "life {before} was said to have died in {id}, and lives");
            }
        }
        self.add(Count::Acquired);
    }

    fn leave(self, id: u32, life: u32) {
        let after = self.inside[id as usize].swap(0, Ordering::AcqRel);
        assert_eq!(after, life, "somebody else was inside of lock {id}, too");
    }
}

/// What a failed assertion in a thread of the libc's ends the process with.
fn abort_on_failure(body: impl FnOnce() + std::panic::UnwindSafe) {
    if std::panic::catch_unwind(body).is_err() {
        // SAFETY: _exit(2) does not return.
        unsafe { libc::_exit(101) };
    }
}

/// One thread's life: some locks, and at any of them the end, or something else that is none of the library's doing.
fn live(arena: Arena, manager: &ShmManager, life: u32, random: &mut Random) {
    for _ in 0..80 {
        if arena.get(Count::Stop) != 0 {
            return;
        }
        let id = if random.below(2) == 0 { random.below(HOT) } else { random.below(LOCKS.into()) } as u32;
        let acquired = match manager.timed_lock(id, TOO_LONG) {
            Ok(acquired) => acquired,
            Err(error) => {
                assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
                arena.add(Count::TimedOut);
                continue;
            }
        };
        arena.enter(id, life, acquired);
        if random.below(6) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(300)));
        }
        match random.below(300) {
            0 => {
                arena.add(Count::SelfKills);
                arena.doomed[(life / LIVES) as usize].store(1, Ordering::Release);
                // SAFETY: kill(2) of this process.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            }
            1 | 2 => {
                arena.add(Count::RawExits);
                arena.ended[life as usize].store(1, Ordering::Release);
                raw_exit();
            }
            3 => {
                // SAFETY: close_range(2); nothing here goes on to use a descriptor of its own.
                unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
            }
            4 => leave_a_clone(),
            _ => {}
        }
        arena.leave(id, life);
        manager.unlock(id).unwrap();
    }
}

/// A child that outlives its parent and does nothing.
fn leave_a_clone() {
    // SAFETY: the child makes two system calls and ends.
    unsafe {
        if raw_fork() == 0 {
            let time = libc::timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            libc::syscall(libc::SYS_nanosleep, &raw const time, std::ptr::null_mut::<libc::timespec>());
            libc::syscall(libc::SYS_exit_group, 0);
        }
    }
}

/// A worker's life: three threads at a time, six times.
fn work(arena: Arena, segment: &Segment, worker: u32, seed: u64) {
    // SAFETY: signal(2): the clones that are left alive are reaped by nobody.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let manager: &'static ShmManager = leak(segment.open());
    for round in 0..6 {
        let threads: Vec<_> = (0..THREADS)
            .map(|place| {
                let life = worker * LIVES + round * THREADS + place;
                let mut random = Random::from_seed(seed ^ u64::from(life) << 32);
                let body = std::panic::AssertUnwindSafe(move || live(arena, manager, life, &mut random));
                pthread(move || abort_on_failure(body))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join());
    }
}

/// A segment of whose entries the generations are about to begin again.
fn segment() -> Segment {
    let segment = Segment::native(LOCKS);
    for index in 1..ENTRIES {
        segment.write_number_at(layout::entry(index), (GENERATIONS - 1 - u64::from(index % 3)) << 1);
    }
    segment
}

/// Of how many entries the generations have begun again.
fn begun_again(segment: &Segment) -> usize {
    let has_begun_again = |&index: &u32| {
        let generation = segment.number_at(layout::entry(index)) >> 1;
        (GENERATIONS..2 * GENERATIONS).contains(&generation)
    };
    (1..ENTRIES).filter(has_begun_again).count()
}

/// Goes on as long as it is to: starts workers, kills some, stops some.
fn rage(arena: Arena, segment: &Segment, random: &mut Random) -> (u32, u32) {
    let mut workers: Vec<Option<(u32, Child)>> = (0..WORKERS).map(|_| None).collect();
    let (mut kills, mut stops) = (0, 0);
    let start = Instant::now();
    let mut started = 0;
    let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(DEFAULT_SECONDS);
    alone::allow(100 + seconds as u32);
    let goes_on = |kills| storm_goes_on(start, Duration::from_secs(seconds), || arena.has_seen_a_storm(segment, kills));
    while goes_on(kills) && started + 1 < MOST_WORKERS {
        for place in &mut workers {
            if let Some((worker, child)) = place {
                if child.has_ended() {
                    let (worker, child) = (*worker, place.take().unwrap().1);
                    let exit = child.wait();
                    let is_fine = exit == Exit::Code(0)
                        || (exit == Exit::Signal(libc::SIGKILL)
                            && arena.doomed[worker as usize].load(Ordering::Acquire) != 0);
                    assert!(is_fine, "worker {worker}: {exit:?}");
                }
            } else {
                started += 1;
                let seed = random.next();
                *place = Some((started, fork(|| work(arena, segment, started, seed))));
            }
        }
        let victim = random.below(WORKERS as u64) as usize;
        if let Some((worker, child)) = &workers[victim] {
            match random.below(20) {
                0..4 => {
                    arena.doomed[*worker as usize].store(1, Ordering::Release);
                    child.signal(libc::SIGKILL);
                    workers[victim] = None;
                    kills += 1;
                }
                4 => {
                    child.signal(libc::SIGSTOP);
                    std::thread::sleep(Duration::from_millis(20));
                    child.signal(libc::SIGCONT);
                    stops += 1;
                }
                _ => {}
            }
        }
        std::thread::sleep(Duration::from_micros(random.below(600)));
    }
    arena.count(Count::Stop).store(1, Ordering::Release);
    for (worker, child) in workers.into_iter().flatten() {
        let exit = child.wait();
        let doomed = arena.doomed[worker as usize].load(Ordering::Acquire) != 0;
        assert!(exit == Exit::Code(0) || doomed, "worker {worker}: {exit:?}");
    }
    arena.count(Count::Workers).store(started, Ordering::Release);
    (kills, stops)
}

#[test]
fn no_lock_has_two_holders_none_is_lost_and_each_death_inside_is_told() {
    alone!({
        let mut random = Random::seeded();
        let recipe = random.recipe();
        let arena = Arena {
            inside: board(LOCKS as usize),
            doomed: board(MOST_WORKERS as usize),
            ended: board((MOST_WORKERS * LIVES) as usize),
            counts: board(8),
        };
        let segment = segment();
        super::support::note(format_args!("{recipe}"));
        let (kills, stops) = rage(arena, &segment, &mut random);
        let [acquired, died, timed_out, raw, own, workers] =
            [Count::Acquired, Count::OwnerDied, Count::TimedOut, Count::RawExits, Count::SelfKills, Count::Workers]
                .map(|what| arena.get(what));
        super::support::note(format_args!(
            "{workers} workers, {kills} kills, {own} by themselves, {stops} stops, {raw} raw ends: {acquired} locks, \
             {died} owner died, {timed_out} waits longer than {TOO_LONG:?}"
        ));
        super::support::note(format_args!("{} entries have begun again", begun_again(&segment)));
        // New tenants of the entries must not bring back what their dead predecessors held.
        let ready = &board(1)[0];
        let crowd: Vec<Child> = (0..ENTRIES / 3)
            .map(|_| {
                fork(|| {
                    std::mem::forget(segment.open());
                    ready.fetch_add(1, Ordering::AcqRel);
                    sleep_until_killed();
                })
            })
            .collect();
        eventually("all are there", || ready.load(Ordering::Acquire) == ENTRIES / 3);
        let manager = segment.open();
        for id in 0..LOCKS {
            let acquired = manager.timed_lock(id, TOO_LONG).unwrap_or_else(|error| panic!("lost: {error}"));
            arena.enter(id, 1, acquired);
            arena.leave(id, 1);
            manager.unlock(id).unwrap();
            assert_eq!(manager.try_lock(id).unwrap(), Acquired::Clean, "{id}");
            manager.unlock(id).unwrap();
        }
        assert_eq!(manager.locks_held().unwrap(), [0; 0]);
        drop(crowd);
        assert_eq!(timed_out, 0, "a wait took longer than {TOO_LONG:?}; {recipe}");
        assert!(arena.has_seen_a_storm(&segment, kills), "the storm was none");
    });
}
