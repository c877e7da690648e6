// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nobody ever sees a segment that is half done: not in a race, not after a death, not on a full file system.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lock_manager::{Acquired, Manager, Reason, ShmManager};

use super::DEFAULT;
use super::support::alone::{alone, alone_as_root};
use super::support::process::state_of;
use super::support::{Child, Exit, Random, Segment, board, errno_of, eventually, fork, layout, namespace, taken_once};

/// The names in a directory.
fn names_in(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whatever state creation was left in: nothing, or a whole segment of 64 free locks, and no other name.
fn assert_nothing_or_whole(directory: &Segment) -> bool {
    match names_in(directory.file()).as_slice() {
        [] => false,
        [name] if name == "locks" => {
            let manager = ShmManager::open(directory.file().join("locks"), 64).unwrap();
            assert_eq!(manager.available_locks().unwrap(), 64);
            assert!((0..64).all(|id| taken_once(&manager, id) == Acquired::Clean));
            true
        }
        names => panic!("left behind: {names:?}"),
    }
}

#[test]
fn of_many_first_users_at_once_all_get_the_one_segment() {
    const ROUNDS: u32 = 1000;
    const USERS: u32 = 4;
    alone!({
        let mut random = Random::seeded();
        let mut cut_short = 0;
        for round in 0..ROUNDS {
            let segment = Segment::unused();
            let start = &board(1)[0];
            let mut users: Vec<Child> = (0..USERS).map(|_| fork(|| use_first(&segment, start))).collect();
            start.store(1, Ordering::Release);
            // In each second round somebody is killed in the midst of it.
            let victim = (round % 2 == 1).then(|| users.remove(random.below(u64::from(USERS)) as usize));
            if let Some(victim) = victim {
                for _ in 0..random.below(20_000) {
                    std::hint::spin_loop();
                }
                victim.kill();
            }
            let survivors = users.len() as u32;
            for user in users {
                assert_eq!(user.wait(), Exit::Code(0), "round {round}, {}", random.recipe());
            }
            // Each allocated a lock. Had they had a segment each, one would be missing here.
            let taken = 2048 - segment.open().available_locks().unwrap();
            assert!((survivors..=USERS).contains(&taken), "{taken} allocations of {survivors} to {USERS} users");
            cut_short += u32::from(taken == survivors && survivors < USERS);
            let leftovers = names_in("/dev/shm").into_iter().filter(|name| name.starts_with(".lock_manager"));
            assert_eq!(leftovers.count(), 0);
        }
        assert!(cut_short > 0, "nobody was killed before he was through: the rounds show nothing");
    });
}

fn use_first(segment: &Segment, start: &AtomicU32) {
    while start.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    let manager = ShmManager::open_or_create(&segment.name, 2048, &DEFAULT()).unwrap();
    let id = manager.allocate_lock().unwrap();
    let _ = manager.timed_lock(id, Duration::from_secs(10)).unwrap();
    manager.unlock(id).unwrap();
}

#[test]
fn an_opener_that_races_a_creator_finds_nothing_or_a_whole_segment() {
    const ROUNDS: u32 = 1500;
    alone!({
        let segment = Segment::unused();
        let [round, seen] = [&board(2)[0], &board(2)[1]];
        let opener = fork(|| {
            for number in 1..=ROUNDS {
                eventually("the round begins", || round.load(Ordering::Acquire) == number);
                loop {
                    match ShmManager::open(&segment.name, 64) {
                        Ok(manager) => {
                            assert_eq!(manager.available_locks().unwrap(), 64);
                            break;
                        }
                        Err(error) => assert_eq!(error.reason(), &Reason::NotFound),
                    }
                }
                seen.store(number, Ordering::Release);
            }
        });
        for number in 1..=ROUNDS {
            round.store(number, Ordering::Release);
            drop(ShmManager::create(&segment.name, 64, &DEFAULT()).unwrap());
            eventually("the opener has it", || seen.load(Ordering::Acquire) == number || !alive(&opener));
            ShmManager::remove(&segment.name).unwrap();
        }
        opener.succeeds();
    });
}

fn alive(child: &Child) -> bool {
    state_of(child.pid()) != Some('Z')
}

#[test]
#[cfg(target_arch = "x86_64")]
fn killed_before_and_after_every_system_call_creation_leaves_nothing_or_all() {
    use super::support::step::{Step, Stepped};
    alone!({
        let (mut kills, mut found) = (0, 0);
        loop {
            let directory = Segment::directory();
            let path = directory.file().join("locks");
            let creator = Stepped::start(|| (), |()| drop(ShmManager::create(&path, 64, &DEFAULT()).unwrap()));
            let over = (0..kills).any(|_| creator.system_call() == Step::Over);
            creator.kill();
            found += u32::from(assert_nothing_or_whole(&directory));
            if over {
                assert!(found > 0, "the last ones had come to the end");
                break;
            }
            kills += 1;
        }
        assert!(kills > 10, "creation was over after {kills} stops");
    });
}

#[test]
fn a_full_file_system_is_enospc_and_nothing_is_left() {
    alone_as_root!({
        fork(|| {
            namespace::private_shm("64k");
            let error = ShmManager::create("/locks", 4096, &DEFAULT()).unwrap_err();
            assert_eq!(error.errno(), libc::ENOSPC);
            assert_eq!(error.reason(), &Reason::NoSpace { bytes: layout::size(4096) });
            assert_eq!(errno_of(ShmManager::open_or_create("/locks", 4096, &DEFAULT())), libc::ENOSPC);
            assert_eq!(names_in("/dev/shm"), [""; 0]);
            // All of it is free again: what fits, fits still, and can be used to the last byte.
            let manager = ShmManager::create("/locks", 1280, &DEFAULT()).unwrap();
            assert!((0..1280).all(|id| taken_once(&manager, id) == Acquired::Clean));
        })
        .succeeds();
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn where_files_cannot_be_nameless_creation_still_leaves_one_name_only() {
    alone!({
        let directory = Segment::directory();
        let path = directory.file().join("locks");
        fork(|| {
            namespace::forbid_unnamed_files();
            drop(ShmManager::create(&path, 64, &DEFAULT()).unwrap());
            assert_eq!(errno_of(ShmManager::create(&path, 64, &DEFAULT())), libc::EEXIST);
        })
        .succeeds();
        assert!(assert_nothing_or_whole(&directory));
    });
}
