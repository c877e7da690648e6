// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readers and writers, killed and stopped at random: no writer with anybody else, no read of what is half written that was
//! not told, no death untold, nobody stranded.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager, Result, ShmManager};

use super::support::alone::{self, alone};
use super::support::native_layout as layout;
use super::support::timing::storm_goes_on;
use super::support::{Child, Random, Segment, board, fork, note};

/// How many seconds each storm lasts, if not as many as by default.
const SECONDS: &str = "LOCK_MANAGER_STORM_SECONDS";
const DEFAULT_SECONDS: u64 = 3;

const MOST_LIVES: usize = 1 << 16;
const ID: u32 = 7;
const TIMEOUT: Duration = Duration::from_micros(300);
/// A lock that is lost would be waited for in vain.
const LONG: Duration = super::support::timing::scaled(Duration::from_secs(10));

/// How a storm blows.
#[derive(Clone, Copy)]
struct Weather {
    processes: usize,
    /// Of a hundred turns. With [`WRITERS_ALONE`] nobody reads, and no writer becomes a reader.
    writers: u64,
    /// Where the readers' window begins: 0: in the slot.
    level: u64,
}

/// What all share. Each process has a life's number of its own; 0: nobody.
#[derive(Clone, Copy)]
struct Arena {
    writer: &'static AtomicU32,
    /// For each process, its life while it reads.
    readers: &'static [AtomicU32],
    /// For each life, whether it is about to be killed, or was.
    doomed: &'static [AtomicU32],
    /// What the lock protects: equal whenever no writer is inside.
    words: &'static [AtomicU32],
    turns: [&'static AtomicU32; 2],
    told: [&'static AtomicU32; 2],
    timeouts: &'static AtomicU32,
    /// The longest wait, in microseconds.
    longest: &'static AtomicU32,
}

const WRITERS_ALONE: u64 = 100;

const READ: usize = 0;
const WRITE: usize = 1;

impl Arena {
    fn new(processes: usize) -> Self {
        let [one, other] = [board(4), board(4)];
        Self {
            writer: &board(1)[0],
            readers: board(processes),
            doomed: board(MOST_LIVES),
            words: board(2),
            turns: [&one[0], &one[1]],
            told: [&other[0], &other[1]],
            timeouts: &one[2],
            longest: &one[3],
        }
    }

    /// Whether enough has happened for the test to have shown something.
    fn has_seen_a_storm(self, weather: Weather, kills: u32) -> bool {
        let [read, written] = self.turns.map(|turns| turns.load(Ordering::Acquire));
        let has_read = read > 1000 || weather.writers == WRITERS_ALONE;
        has_read && written > 100 && kills > 50 && self.told[WRITE].load(Ordering::Acquire) > 0
    }

    fn assert_no_writer(self, why: &str) {
        let life = self.writer.load(Ordering::Acquire);
        assert!(life == 0 || self.doomed[life as usize].load(Ordering::Acquire) != 0, "writer {life} is inside: {why}");
    }

    fn assert_nobody(self) {
        self.assert_no_writer("a writer came");
        for reader in self.readers {
            let life = reader.load(Ordering::Acquire);
            let is_dead = life == 0 || self.doomed[life as usize].load(Ordering::Acquire) != 0;
            assert!(is_dead, "reader {life} is inside, and a writer came");
        }
    }

    /// What is inside for a moment is seldom killed there by others.
    fn die_at_times(self, life: u32, random: &mut Random) {
        if random.below(2000) == 0 {
            self.doomed[life as usize].store(1, Ordering::Release);
            // SAFETY: kill(2) of this process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }

    fn write(self, life: u32, acquired: Acquired, random: &mut Random) {
        self.assert_nobody();
        let [one, other] = [&self.words[0], &self.words[1]];
        if acquired == Acquired::Clean {
            assert_eq!(self.writer.load(Ordering::Acquire), 0, "the last writer died inside, which was not told");
            assert_eq!(one.load(Ordering::Relaxed), other.load(Ordering::Relaxed), "half written, which was not told");
        } else {
            self.told[WRITE].fetch_add(1, Ordering::Relaxed);
        }
        self.writer.store(life, Ordering::Release);
        let next = one.load(Ordering::Relaxed).wrapping_add(1);
        one.store(next, Ordering::Release);
        linger(random);
        self.die_at_times(life, random);
        other.store(next, Ordering::Release);
        self.writer.store(0, Ordering::Release);
        self.turns[WRITE].fetch_add(1, Ordering::Relaxed);
    }

    fn read(self, place: usize, life: u32, acquired: Acquired, random: &mut Random) {
        self.turns[READ].fetch_add(1, Ordering::Relaxed);
        if acquired == Acquired::OwnerDied {
            self.told[READ].fetch_add(1, Ordering::Relaxed);
            return;
        }
        assert_eq!(self.writer.load(Ordering::Acquire), 0, "a writer is inside, or died there untold");
        self.readers[place].store(life, Ordering::Release);
        let words = || [&self.words[0], &self.words[1]].map(|word| word.load(Ordering::Acquire));
        let before = words();
        assert_eq!(before[0], before[1], "half written, which was not told");
        linger(random);
        self.die_at_times(life, random);
        assert_eq!(words(), before, "written while it was read");
        assert_eq!(self.writer.load(Ordering::Acquire), 0, "a writer came to a reader");
        self.readers[place].store(0, Ordering::Release);
    }
}

fn linger(random: &mut Random) {
    let spins = AtomicU64::new(random.below(512));
    while spins.load(Ordering::Relaxed) > 0 {
        spins.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Acquires, at times with a timeout. `None`: it was over.
fn acquired(arena: Arena, random: &mut Random, acquire: impl Fn(Duration) -> Result<Acquired>) -> Option<Acquired> {
    let start = Instant::now();
    let timeout = if random.below(64) == 0 { TIMEOUT } else { LONG };
    match acquire(timeout) {
        Ok(acquired) => {
            arena.longest.fetch_max(start.elapsed().as_micros() as u32, Ordering::Relaxed);
            Some(acquired)
        }
        Err(error) => {
            assert!(error.errno() == libc::ETIMEDOUT && timeout == TIMEOUT, "{error}");
            arena.timeouts.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// A process's life, which it does not end itself.
fn live(arena: Arena, segment: &Segment, weather: Weather, place: usize, life: u32, mut random: Random) -> ! {
    let manager: ShmManager = segment.open();
    loop {
        if random.below(100) < weather.writers {
            let Some(had) = acquired(arena, &mut random, |timeout| manager.timed_lock(ID, timeout)) else { continue };
            arena.write(life, had, &mut random);
            if weather.writers != WRITERS_ALONE && random.below(8) == 0 {
                manager.downgrade_lock(ID).unwrap();
                arena.assert_no_writer("of a downgrade");
                manager.unlock_shared(ID).unwrap();
            } else {
                manager.unlock(ID).unwrap();
            }
        } else {
            let Some(had) = acquired(arena, &mut random, |timeout| manager.timed_lock_shared(ID, timeout)) else {
                continue;
            };
            arena.read(place, life, had, &mut random);
            manager.unlock_shared(ID).unwrap();
        }
    }
}

fn storm(weather: Weather) {
    let mut random = Random::seeded();
    let recipe = random.recipe();
    let (segment, arena) = (Segment::native(64), Arena::new(weather.processes));
    segment.write_number_at(layout::level(ID), weather.level);
    let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(DEFAULT_SECONDS);
    alone::allow(100 + seconds as u32);
    let mut processes: Vec<Option<(u32, Child)>> = (0..weather.processes).map(|_| None).collect();
    let (mut kills, mut stops, mut life) = (0, 0, 0);
    let start = Instant::now();
    let goes_on = |kills| storm_goes_on(start, Duration::from_secs(seconds), || arena.has_seen_a_storm(weather, kills));
    while goes_on(kills) && (life as usize) + 1 < MOST_LIVES {
        for (place, process) in processes.iter_mut().enumerate() {
            if let Some((life, child)) = process
                && child.has_ended()
            {
                assert_ne!(arena.doomed[*life as usize].load(Ordering::Acquire), 0, "life {life} failed; {recipe}");
                *process = None;
            }
            if process.is_none() {
                life += 1;
                arena.readers[place].store(0, Ordering::Release);
                let seed = Random::from_seed(random.next());
                *process = Some((life, fork(|| live(arena, &segment, weather, place, life, seed))));
            }
        }
        std::thread::sleep(Duration::from_micros(500 + random.below(2000)));
        let victim = random.below(weather.processes as u64) as usize;
        if random.below(6) == 0 {
            let Some((_, child)) = &processes[victim] else { continue };
            child.signal(libc::SIGSTOP);
            std::thread::sleep(Duration::from_millis(3));
            child.signal(libc::SIGCONT);
            stops += 1;
        } else if let Some((life, child)) = processes[victim].take() {
            arena.doomed[life as usize].store(1, Ordering::Release);
            child.kill();
            kills += 1;
        }
    }
    for (life, child) in processes.into_iter().flatten() {
        arena.doomed[life as usize].store(1, Ordering::Release);
        child.kill();
    }
    let manager = segment.open();
    let _ = manager.timed_lock(ID, LONG).unwrap();
    manager.unlock(ID).unwrap();
    assert_eq!(manager.lock_holders(ID).unwrap(), []);
    let counts = [arena.turns[READ], arena.turns[WRITE], arena.told[READ], arena.told[WRITE], arena.timeouts];
    let [read, written, told_readers, told_writers, timeouts] = counts.map(|count| count.load(Ordering::Acquire));
    let longest = arena.longest.load(Ordering::Acquire);
    note(format_args!(
        "{kills} kills, {stops} stops: {read} shared, {written} exclusive; told {told_readers} readers, {told_writers} writers; \
         {timeouts} timeouts; longest wait {longest} us; {recipe}"
    ));
    assert!(arena.has_seen_a_storm(weather, kills), "the storm was none");
}

/// The exclusive lock in the same storm. Its longest wait is the measure of the others'.
#[test]
fn of_writers_alone() {
    alone!({ storm(Weather { processes: 16, writers: WRITERS_ALONE, level: 0 }) });
}

#[test]
fn of_few_readers_and_many_writers() {
    alone!({ storm(Weather { processes: 8, writers: 20, level: 0 }) });
}

#[test]
fn of_many_readers_and_few_writers() {
    alone!({ storm(Weather { processes: 16, writers: 5, level: 0 }) });
}

#[test]
fn in_the_table() {
    alone!({ storm(Weather { processes: 12, writers: 10, level: 3 }) });
}
