// SPDX-License-Identifier: MIT OR Apache-2.0
//! Containers that have a boot id of their own mounted over the kernel's, and share a segment on a disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lock_manager::{Acquired, Manager, Reason, ShmManager};

use super::options;
use super::support::alone::alone;
use super::support::disk::Disk;
use super::support::{Child, Segment, board, errno_of, eventually, fork, namespace, taken_once};

/// Has the calling process, which has not asked for it yet, see that text as the boot's id. If it cannot, the test is
/// skipped.
fn sees_boot_id_or_skip(text: &str) -> bool {
    if !namespace::mounts_or_skip() {
        return false;
    }
    let file = Segment::unused().file();
    fs::write(&file, text).unwrap();
    namespace::bind(&file, Path::new("/proc/sys/kernel/random/boot_id"));
    fs::remove_file(&file).unwrap();
    true
}

fn boot_id(number: u32) -> String {
    format!("{number:08x}-5a5a-4a5a-8a5a-5a5a5a5a5a5a\n")
}

#[test]
fn a_segment_that_somebody_uses_is_of_this_boot_whatever_the_ids() {
    alone!({
        let Some(directory) = Disk::directory_or_skip("boots") else { return };
        let (path, stage) = (directory.join("locks"), &board(1)[0]);
        let user = fork(|| {
            let manager = ShmManager::create(&path, 64, &options()).unwrap();
            let _ = manager.lock(3).unwrap();
            stage.store(1, Ordering::Release);
            eventually("the others are through", || stage.load(Ordering::Acquire) == 2);
            manager.unlock(3).unwrap();
            assert_eq!(taken_once(&manager, 4), Acquired::Clean);
        });
        eventually("the segment is there", || stage.load(Ordering::Acquire) == 1);
        let made = fs::metadata(&path).unwrap().ino();
        // Another id, and none at all.
        for id in [boot_id(1), String::new()] {
            fork(|| {
                if !sees_boot_id_or_skip(&id) {
                    return;
                }
                for manager in [ShmManager::open(&path, 64), ShmManager::open_or_create(&path, 64, &options())] {
                    let manager = manager.unwrap();
                    assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY);
                    assert_eq!(taken_once(&manager, 5), Acquired::Clean);
                }
                assert_eq!(ShmManager::open_read_only(&path).unwrap().locks_held().unwrap(), [3]);
            })
            .succeeds();
        }
        stage.store(2, Ordering::Release);
        user.succeeds();
        assert_eq!(fs::metadata(&path).unwrap().ino(), made);
    });
}

#[test]
fn of_a_segment_that_nobody_uses_the_id_decides() {
    alone!({
        let Some(directory) = Disk::directory_or_skip("old") else { return };
        let path = directory.join("locks");
        fork(|| assert_eq!(ShmManager::create(&path, 64, &options()).unwrap().allocate_lock().unwrap(), 0)).succeeds();
        fork(|| {
            if !sees_boot_id_or_skip("") {
                return;
            }
            for refused in [ShmManager::open(&path, 0), ShmManager::open_or_create(&path, 64, &options())] {
                let error = refused.unwrap_err();
                assert_eq!(error.errno(), libc::EOPNOTSUPP, "{error}");
                assert!(error.to_string().contains("/dev/shm"), "{error}");
            }
            let created = ShmManager::create(directory.join("others"), 64, &options());
            assert_eq!(errno_of(created), libc::EOPNOTSUPP);
            // In memory nothing outlives the boot.
            assert_eq!(taken_once(&Segment::native(64).open(), 3), Acquired::Clean);
        })
        .succeeds();
        fork(|| {
            if !sees_boot_id_or_skip(&boot_id(2)) {
                return;
            }
            let error = ShmManager::open(&path, 0).unwrap_err();
            assert_eq!((error.errno(), error.reason()), (libc::ESTALE, &Reason::BeforeBoot));
            let fresh = ShmManager::open_or_create(&path, 64, &options()).unwrap();
            assert_eq!(fresh.available_locks().unwrap(), 64);
        })
        .succeeds();
    });
}

/// In each round all come at once to a segment that nobody uses, and that most of them take for an old one.
#[test]
fn processes_that_see_different_boots_never_use_two_segments_at_once() {
    const PROCESSES: u32 = 4;
    const ROUNDS: u32 = 200;
    alone!({
        let Some(directory) = Disk::directory_or_skip("storm") else { return };
        let path = directory.join("locks");
        let [inside, replaced, ready] = [&board(1)[0], &board(1)[0], &board(1)[0]];
        let children: Vec<Child> = (0..PROCESSES)
            .map(|own| {
                fork(|| {
                    let sees_own = sees_boot_id_or_skip(&boot_id(own));
                    for round in 0..ROUNDS {
                        ready.fetch_add(1, Ordering::AcqRel);
                        let all = PROCESSES * (round + 1);
                        eventually("all have left it", || ready.load(Ordering::Acquire) >= all);
                        let manager = ShmManager::open_or_create(&path, 64, &options()).unwrap();
                        let _ = manager.timed_lock(3, Duration::from_secs(20)).unwrap();
                        assert_eq!(inside.swap(1, Ordering::AcqRel), 0, "two are inside, round {round}");
                        if round > 0 && manager.allocate_and_retrieve_lock(0).is_ok() {
                            replaced.fetch_add(1, Ordering::Relaxed);
                        }
                        inside.store(0, Ordering::Release);
                        manager.unlock(3).unwrap();
                        manager.close().unwrap();
                    }
                    if !sees_own {
                        replaced.store(ROUNDS, Ordering::Release);
                    }
                })
            })
            .collect();
        children.into_iter().for_each(Child::succeeds);
        let replaced = replaced.load(Ordering::Acquire);
        assert!(replaced > ROUNDS / 10, "replaced in {replaced} rounds of {ROUNDS}");
    });
}

/// Stops one that takes the segment for an old one at each of its system calls, and has one of the segment's own boot come.
#[cfg(target_arch = "x86_64")]
#[test]
fn who_comes_while_a_segment_is_taken_for_an_old_one_shares_it_or_its_successor() {
    use super::support::process::{is_asleep_in, sleep_until_killed};
    use super::support::step::{Step, Stepped};
    const UNKNOWN: u32 = 0;
    const HOLDS: u32 = 1;
    const REFUSED: u32 = 2;
    alone!({
        let Some(directory) = Disk::directory_or_skip("step") else { return };
        let can_see = &board(1)[0];
        fork(|| can_see.store(sees_boot_id_or_skip("").into(), Ordering::Release)).succeeds();
        if can_see.load(Ordering::Acquire) == 0 {
            return;
        }
        let path = directory.join("locks");
        let take = |outcome: &AtomicU32| {
            let manager = ShmManager::open_or_create(&path, 64, &options()).unwrap();
            let code = errno_of(manager.try_lock(0));
            assert!([0, libc::EBUSY].contains(&code), "{code}");
            outcome.store(if code == 0 { HOLDS } else { REFUSED }, Ordering::Release);
            manager
        };
        for calls in 0.. {
            let _ = fs::remove_file(&path);
            fork(|| drop(ShmManager::create(&path, 64, &options()).unwrap())).succeeds();
            let [taker, comer] = [&board(1)[0], &board(1)[0]];
            let stepped =
                Stepped::start(|| assert!(sees_boot_id_or_skip(&boot_id(calls))), |()| std::mem::forget(take(taker)));
            let is_over = (0..calls).any(|_| stepped.system_call() == Step::Over);
            let child = fork(|| {
                let _manager = take(comer);
                sleep_until_killed();
            });
            eventually("it holds, is refused, or waits", || {
                comer.load(Ordering::Acquire) != UNKNOWN || is_asleep_in(child.pid(), libc::SYS_clock_nanosleep)
            });
            if !is_over {
                stepped.finish();
            }
            eventually("it is through", || comer.load(Ordering::Acquire) != UNKNOWN);
            let outcomes = [taker, comer].map(|outcome| outcome.load(Ordering::Acquire));
            assert!([[HOLDS, REFUSED], [REFUSED, HOLDS]].contains(&outcomes), "{outcomes:?} after {calls} calls");
            child.kill();
            stepped.kill();
            if is_over {
                assert!(calls > 20, "{calls} calls");
                break;
            }
        }
    });
}
