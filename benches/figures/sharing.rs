// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many readers or one writer: beside an exclusive lock, and beside the libc's read-write lock, which is not robust.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::library::{Layout, Library, Manager};
use crate::peer::{self, now, until};
use crate::{lone, median, nanoseconds, row};

const ROUNDS: usize = 401;
const CALLS: u32 = 20_000;
const MIXES: usize = 5;
const MIX: Duration = Duration::from_millis(400);
const LONG_MIX: Duration = Duration::from_secs(3);
const DEATHS: u32 = 200;
const MANY: usize = 512;
const LOCK: u32 = 7;
const MOST: usize = 64;

/// How a lock is taken and given back.
trait ReadWrite: Copy {
    fn read(self, inside: impl FnOnce());
    fn write(self, inside: impl FnOnce());
}

#[derive(Clone, Copy)]
struct Ours<'l>(&'l Library, Manager);

impl ReadWrite for Ours<'_> {
    fn read(self, inside: impl FnOnce()) {
        // SAFETY: the manager is open; a forked child may use it at once.
        unsafe {
            self.0.check((self.0.lock_shared)(self.1, LOCK));
            inside();
            self.0.check((self.0.unlock_shared)(self.1, LOCK));
        }
    }

    fn write(self, inside: impl FnOnce()) {
        // SAFETY: as above.
        unsafe {
            self.0.check((self.0.lock)(self.1, LOCK));
            inside();
            self.0.check((self.0.unlock)(self.1, LOCK));
        }
    }
}

#[derive(Clone, Copy)]
struct Libc(*mut libc::pthread_rwlock_t);

impl Libc {
    fn new() -> Self {
        let lock = peer::shared::<libc::pthread_rwlock_t>(1);
        // SAFETY: fresh zeroed memory; the attributes are set up as POSIX says.
        unsafe {
            let mut attributes = std::mem::zeroed();
            libc::pthread_rwlockattr_init(&mut attributes);
            libc::pthread_rwlockattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
            assert_eq!(libc::pthread_rwlock_init(lock, &attributes), 0);
        }
        Self(lock)
    }
}

impl ReadWrite for Libc {
    fn read(self, inside: impl FnOnce()) {
        // SAFETY: initialised, and never unmapped.
        unsafe { libc::pthread_rwlock_rdlock(self.0) };
        inside();
        // SAFETY: held by the caller.
        unsafe { libc::pthread_rwlock_unlock(self.0) };
    }

    fn write(self, inside: impl FnOnce()) {
        // SAFETY: as above.
        unsafe { libc::pthread_rwlock_wrlock(self.0) };
        inside();
        // SAFETY: as above.
        unsafe { libc::pthread_rwlock_unlock(self.0) };
    }
}

pub fn run(library: &Library) {
    let segment = library.segment(Layout::Native, 2048);
    let (ours, libc) = (Ours(library, segment.manager), Libc::new());
    uncontended(library, segment.manager, libc);
    for (processes, writers) in [(2, 0), (2, 10), (8, 10), (32, 10), (32, 100)] {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for _ in 0..MIXES {
            here.push(mixed(ours, processes, writers));
            there.push(mixed(libc, processes, writers));
        }
        let what = format!("{processes} processes, {} % writers (more is better)", writers / 10);
        row(&what, "M/s", median(here), median(there), "pthread_rwlock");
    }
    let (readers, writers) = longest_waits(ours);
    let (their_readers, their_writers) = longest_waits(libc);
    row(
        "20 readers of 1 ms, 5 writers of 0.5 ms: longest wait, readers",
        "ms",
        readers,
        their_readers,
        "pthread_rwlock",
    );
    row("… of writers", "ms", writers, their_writers, "pthread_rwlock");
    for (what, holder, waiter) in [("reader", Way::Shared, Way::Exclusive), ("writer", Way::Exclusive, Way::Shared)] {
        let mut took: Vec<f64> = (0..DEATHS).map(|_| deaths(library, segment.manager, 1, holder, waiter)).collect();
        took.sort_by(f64::total_cmp);
        lone(&format!("SIGKILL of a {what} → who waits has the lock, native"), "ms", median(took.clone()));
        lone(&format!("… the worst of {DEATHS}"), "ms", took[took.len() - 1]);
    }
    let many = (0..5).map(|_| deaths(library, segment.manager, MANY, Way::Shared, Way::Exclusive)).fold(0.0, f64::max);
    lone(&format!("SIGKILL of {MANY} readers at once → a waiting writer, the worst of 5"), "ms", many);
}

fn uncontended(library: &Library, manager: Manager, libc: Libc) {
    let mut taken: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        // SAFETY: the manager is open.
        unsafe {
            taken[0].push(nanoseconds(CALLS, || {
                (library.lock_shared)(manager, LOCK);
                (library.unlock_shared)(manager, LOCK);
            }));
            taken[1].push(nanoseconds(CALLS, || {
                (library.lock)(manager, LOCK + 1);
                (library.unlock)(manager, LOCK + 1);
            }));
            taken[3].push(nanoseconds(CALLS, || {
                (library.lock)(manager, LOCK + 2);
                (library.downgrade_lock)(manager, LOCK + 2);
                (library.unlock_shared)(manager, LOCK + 2);
            }));
        }
        taken[2].push(nanoseconds(CALLS, || libc.read(|| ())));
    }
    let [shared, exclusive, theirs, downgrade] = taken.map(median);
    row("lock + unlock, shared", "ns", shared, exclusive, "exclusive");
    row("lock + unlock, shared", "ns", shared, theirs, "pthread_rwlock, for reading");
    row("lock + downgrade + unlock", "ns", downgrade, exclusive, "lock + unlock, exclusive");
}

struct Board {
    stop: AtomicBool,
    counts: [AtomicU64; MOST],
    longest: [AtomicU64; 2],
}

/// A board that all children share.
fn board() -> &'static Board {
    // SAFETY: fresh zeroed shared memory, never unmapped; atomics may hold zeros.
    unsafe { &*peer::shared::<Board>(1) }
}

/// Millions of turns a second that so many processes have together, of some 50 ns where anybody writes.
fn mixed(lock: impl ReadWrite, processes: u64, writers_in_1000: u64) -> f64 {
    let board = board();
    let turn = |process: u64| {
        let mut random = 0x9E37_79B9_7F4A_7C15 ^ process.wrapping_mul(0x2545_F491_4F6C_DD1D);
        let mut count = 0;
        while !board.stop.load(Ordering::Relaxed) {
            for _ in 0..64 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                match random % 1000 < writers_in_1000 {
                    true => lock.write(inside),
                    false if writers_in_1000 == 0 => lock.read(|| ()),
                    false => lock.read(inside),
                }
            }
            count += 64;
            board.counts[process as usize].store(count, Ordering::Relaxed);
        }
    };
    let children: Vec<_> = (0..processes).map(|process| peer::spawn(|| turn(process))).collect();
    let start = Instant::now();
    std::thread::sleep(MIX);
    let turns: u64 = board.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let rate = turns as f64 / start.elapsed().as_micros() as f64;
    board.stop.store(true, Ordering::Relaxed);
    children.into_iter().for_each(peer::join);
    rate
}

fn inside() {
    for _ in 0..4 {
        std::hint::spin_loop();
    }
}

/// The longest waits, in milliseconds, of readers that sleep inside and writers that work there, none of whom pauses.
fn longest_waits(lock: impl ReadWrite) -> (f64, f64) {
    let board = board();
    let wait_and = |kind: usize, start: u64| board.longest[kind].fetch_max(now() - start, Ordering::Relaxed);
    let read = || {
        while !board.stop.load(Ordering::Relaxed) {
            let start = now();
            lock.read(|| {
                wait_and(0, start);
                std::thread::sleep(Duration::from_millis(1));
            });
        }
    };
    let write = || {
        while !board.stop.load(Ordering::Relaxed) {
            let start = now();
            lock.write(|| {
                wait_and(1, start);
                let work = now();
                while now() - work < 500_000 {}
            });
        }
    };
    let children: Vec<_> = (0..20).map(|_| peer::spawn(read)).chain((0..5).map(|_| peer::spawn(write))).collect();
    std::thread::sleep(LONG_MIX);
    board.stop.store(true, Ordering::Relaxed);
    children.into_iter().for_each(peer::join);
    let [readers, writers] = [0, 1].map(|kind: usize| board.longest[kind].load(Ordering::Relaxed) as f64 / 1e6);
    (readers, writers)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Shared,
    Exclusive,
}

/// Milliseconds from the last kill of so many holders to the lock in a waiter's hands.
fn deaths(library: &Library, manager: Manager, holders: usize, held: Way, wanted: Way) -> f64 {
    let board = board();
    let take = |way: Way, id: u32| {
        // SAFETY: the manager is open; a forked child may use it at once.
        let code = unsafe {
            if way == Way::Shared { (library.lock_shared)(manager, id) } else { (library.lock)(manager, id) }
        };
        library.check(code);
    };
    let give_back = |way: Way, id: u32| {
        // SAFETY: as above.
        let code = unsafe {
            if way == Way::Shared { (library.unlock_shared)(manager, id) } else { (library.unlock)(manager, id) }
        };
        library.check(code);
    };
    let [held_by, waits, acquired] = [0, 1, 2].map(|place: usize| &board.counts[place]);
    let children: Vec<_> = (0..holders)
        .map(|_| {
            peer::spawn(|| {
                take(held, LOCK + 3);
                held_by.fetch_add(1, Ordering::AcqRel);
                loop {
                    std::thread::sleep(Duration::from_secs(60));
                }
            })
        })
        .collect();
    while held_by.load(Ordering::Acquire) < holders as u64 {
        std::thread::sleep(Duration::from_micros(50));
    }
    let waiter = peer::spawn(|| {
        // Attached and known before the wait that counts.
        take(wanted, LOCK + 4);
        give_back(wanted, LOCK + 4);
        waits.store(1, Ordering::Release);
        take(wanted, LOCK + 3);
        acquired.store(now(), Ordering::Release);
        give_back(wanted, LOCK + 3);
    });
    until(waits);
    std::thread::sleep(Duration::from_millis(12));
    let mut killed = 0;
    for &child in &children {
        killed = now();
        // SAFETY: kill(2) of a child of this program.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    peer::join(waiter);
    for child in children {
        // SAFETY: waits for a child that was killed.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
    // What a dead writer left is due to a writer yet.
    take(Way::Exclusive, LOCK + 3);
    give_back(Way::Exclusive, LOCK + 3);
    acquired.load(Ordering::Acquire).saturating_sub(killed) as f64 / 1e6
}
