// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creation beside opening, removal and death: nobody meets half a segment, or lives on in one that was removed.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Manager, ShmManager};

use super::support::alone::alone;
use super::support::native_layout::{AT_RETIRED, REMOVED};
use super::support::process::become_user;
use super::support::{Child, Exit, Random, Segment, board, descriptors, errno_of, eventually, fork, is_root_or_skip};
use super::{names_in, options};

#[test]
fn among_creators_openers_and_kills_no_opener_meets_half_a_segment() {
    const ROUNDS: u32 = 500;
    const OPENERS: u32 = 3;
    alone!({
        let mut random = Random::seeded();
        let directory = Segment::directory();
        let path = directory.file().join("locks");
        let mut killed = 0;
        for round in 0..ROUNDS {
            let go = &board(1)[0];
            let mut openers: Vec<Child> = (0..OPENERS)
                .map(|_| {
                    fork(|| {
                        while go.load(Ordering::Acquire) == 0 {
                            std::hint::spin_loop();
                        }
                        let manager = ShmManager::open_or_create(&path, 64, &options()).unwrap();
                        let id = manager.allocate_lock().unwrap();
                        let _ = manager.try_lock(id).unwrap();
                        manager.unlock(id).unwrap();
                    })
                })
                .collect();
            go.store(1, Ordering::Release);
            if round % 2 == 1 {
                let victim = openers.remove(random.below(OPENERS.into()) as usize);
                for _ in 0..random.below(30_000) {
                    std::hint::spin_loop();
                }
                victim.kill();
                killed += 1;
            }
            for opener in openers {
                assert_eq!(opener.wait(), Exit::Code(0), "round {round}, {}", random.recipe());
            }
            let names = names_in(directory.file());
            assert_eq!(names, ["locks"], "round {round}: something was left behind");
            ShmManager::remove(&path).unwrap();
        }
        assert_eq!(killed, ROUNDS / 2);
    });
}

#[test]
fn two_removers_beside_a_creator_remove_each_segment_once() {
    const SEGMENTS: u32 = 1000;
    alone!({
        let segment = Segment::unused();
        let [over, removed] = [&board(1)[0], &board(1)[0]];
        let removers = [0, 1].map(|_| {
            fork(|| {
                while over.load(Ordering::Acquire) == 0 {
                    match errno_of(ShmManager::remove(&segment.name)) {
                        0 => drop(removed.fetch_add(1, Ordering::Relaxed)),
                        code => assert_eq!(code, libc::ENOENT),
                    }
                }
            })
        });
        for number in 0..SEGMENTS {
            let created = ShmManager::create(&segment.name, 64, &options());
            // Each was there until one of them retired it: none loses its name without its users being told.
            eventually("it is gone", || removed.load(Ordering::Relaxed) > number);
            match created {
                Ok(manager) => {
                    assert_eq!(errno_of(manager.try_lock(1)), libc::ESTALE);
                    assert_eq!(errno_of(manager.allocate_lock()), libc::ESTALE);
                }
                // Removed before its creator was through.
                Err(error) => assert_eq!(error.errno(), libc::ESTALE, "{error}"),
            }
        }
        over.store(1, Ordering::Release);
        removers.into_iter().for_each(Child::succeeds);
        assert_eq!(removed.load(Ordering::Relaxed), SEGMENTS);
    });
}

#[test]
fn who_opens_beside_removers_never_gets_what_was_removed() {
    const ROUNDS: u32 = 1500;
    alone!({
        let segment = Segment::unused();
        let [stage, live] = [&board(1)[0], &board(1)[0]];
        let opener = fork(|| {
            while stage.load(Ordering::Acquire) == 0 {
                let before = live.load(Ordering::Acquire);
                match ShmManager::open(&segment.name, 0) {
                    // What is removed after it was opened says so; what was removed before is not opened.
                    Ok(manager) => match manager.try_lock(0) {
                        Ok(_) => manager.unlock(0).unwrap(),
                        Err(error) => {
                            assert_eq!(error.errno(), libc::ESTALE, "{error}");
                            assert!(before % 2 == 1 || live.load(Ordering::Acquire) != before, "removed long ago");
                        }
                    },
                    Err(error) => assert_eq!(error.errno(), libc::ENOENT, "{error}"),
                }
            }
        });
        for _ in 0..ROUNDS {
            live.fetch_add(1, Ordering::Release);
            drop(ShmManager::create(&segment.name, 64, &options()).unwrap());
            // An opener that finds it half removed may be the one who removes it.
            assert!([0, libc::ENOENT].contains(&errno_of(ShmManager::remove(&segment.name))));
            live.fetch_add(1, Ordering::Release);
        }
        stage.store(1, Ordering::Release);
        opener.succeeds();
    });
}

#[test]
fn who_opens_or_creates_beside_removers_always_gets_one() {
    alone!({
        let segment = Segment::unused();
        let over = &board(1)[0];
        let remover = fork(|| {
            while over.load(Ordering::Acquire) == 0 {
                assert!([0, libc::ENOENT].contains(&errno_of(ShmManager::remove(&segment.name))));
            }
        });
        for _ in 0..1000 {
            ShmManager::open_or_create(&segment.name, 64, &options()).unwrap_or_else(|error| panic!("{error}"));
        }
        over.store(1, Ordering::Release);
        remover.succeeds();
    });
}

/// Its creator could not open it again, neither to attach nor to remove it.
#[test]
fn a_segment_that_its_owner_may_not_write_to_is_refused_before_it_is_made() {
    const NOBODY: u32 = 65_534;
    if !is_root_or_skip() {
        return;
    }
    alone!({
        let segment = Segment::unused();
        fork(|| {
            become_user(NOBODY);
            for mode in [0o400, 0o200, 0o066] {
                let refused = ShmManager::create(&segment.name, 64, &options().mode(mode)).unwrap_err();
                assert_eq!(refused.errno(), libc::EINVAL, "{refused}");
                assert!(!segment.file().exists(), "{mode:o}");
            }
        })
        .succeeds();
    });
}

/// Who may write to a segment may yet not take its name out of a directory like /dev/shm: then it stays in use.
#[test]
fn a_removal_that_is_refused_changes_nothing() {
    const NOBODY: u32 = 65_534;
    if !is_root_or_skip() {
        return;
    }
    alone!({
        let segment = Segment::unused();
        let manager = ShmManager::create(&segment.name, 64, &options().mode(0o666)).unwrap();
        fork(|| {
            become_user(NOBODY);
            assert_eq!(errno_of(ShmManager::remove(&segment.name)), libc::EPERM);
            let opened = ShmManager::open(&segment.name, 64).unwrap();
            let _ = opened.lock(1).unwrap();
            opened.unlock(1).unwrap();
        })
        .succeeds();
        let _ = manager.lock(1).unwrap();
        manager.unlock(1).unwrap();
        // What is removed for good stays so, though it has another name.
        segment.write_word_at(AT_RETIRED, REMOVED);
        fork(|| {
            become_user(NOBODY);
            assert_eq!(errno_of(ShmManager::remove(&segment.name)), libc::EPERM);
        })
        .succeeds();
        assert_eq!(errno_of(manager.lock(1)), libc::ESTALE);
    });
}

/// The program closes all descriptors in the midst of a creation or removal, and opens a file of its own, which gets the
/// number of the segment's.
#[test]
fn nothing_is_written_to_a_file_that_took_the_number() {
    const LASTS: Duration = Duration::from_secs(1);
    alone!({
        let (segment, program) = (Segment::unused(), Segment::unused());
        fs::write(program.file(), "program").unwrap();
        let file = fs::OpenOptions::new().read(true).write(true).open(program.file()).unwrap();
        let own = descriptors::out_of_the_way(&file);
        drop(file);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| descriptors::take_over(3..12, &own, &over));
            let start = Instant::now();
            while start.elapsed() < LASTS {
                // For want of the descriptor that was just closed they may well fail.
                let _made = ShmManager::create(&segment.name, 64, &options());
                let _removed = ShmManager::remove(&segment.name);
            }
            over.store(true, Ordering::Release);
        });
        let mut found = fs::read(program.file()).unwrap();
        // What was to be reserved may have made it longer.
        found.truncate(found.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
        assert_eq!(found, b"program");
    });
}

/// What has lost its name is no place to begin in: others may have begun anew elsewhere.
#[test]
fn a_child_whose_first_call_comes_after_the_name_was_taken_away_is_told_at_once() {
    alone!({
        let segment = Segment::made(64, &options());
        let manager = segment.open();
        let stage = &board(1)[0];
        let child = fork(|| {
            eventually("the name is gone", || stage.load(Ordering::Acquire) == 1);
            for _ in 0..2 {
                assert_eq!(errno_of(manager.try_lock(5)), libc::ESTALE);
            }
            assert_eq!(manager.lock_info(5).unwrap().pid, 0);
        });
        fs::remove_file(segment.file()).unwrap();
        stage.store(1, Ordering::Release);
        child.succeeds();
    });
}
