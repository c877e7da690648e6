// SPDX-License-Identifier: MIT OR Apache-2.0
//! What repair and a waiter's own judgement do to a lock, by what can be known of its holder.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use lock_manager::{Acquired, Manager, Reason};

use super::LONG;
use super::support::alone::{alone, alone_as_root, is_root_that_unshares_or_skip};
use super::support::layout::{self, OWNER_DIED, WAITERS};
use super::support::process::{gone_tid, sleep_until_killed};
use super::support::{Segment, board, errno_of, eventually, fork, namespace, taken_once};

#[test]
fn a_lock_of_a_living_holder_is_left_alone() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let holder = segment.holder_of(&[3]);
        let error = manager.repair_lock(3).unwrap_err();
        assert_eq!(error.reason(), &Reason::HolderLives { id: 3, holder: holder.pid() as u32 });
        assert_eq!(error.errno(), libc::EBUSY);
        assert_eq!(manager.locks_held().unwrap(), [3]);
        // One's own is a living holder's, too.
        let _ = manager.lock(4).unwrap();
        assert_eq!(errno_of(manager.repair_lock(4)), libc::EBUSY);
        manager.unlock(4).unwrap();
    });
}

#[test]
fn there_is_nothing_to_do_to_a_free_lock() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let before = segment.bytes();
        manager.repair_lock(3).unwrap();
        assert_eq!(segment.bytes(), before);
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        assert_eq!(errno_of(manager.repair_lock(32)), libc::EINVAL);
    });
}

#[test]
fn what_the_kernel_has_marked_stays_marked() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        segment.holder_of(&[3]).kill();
        manager.repair_lock(3).unwrap();
        assert!(manager.lock_info(3).unwrap().owner_died);
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}

#[test]
fn a_lock_that_names_a_thread_that_is_gone_is_marked() {
    alone!({
        if !namespace::sees_all_processes_or_skip() {
            return;
        }
        let segment = Segment::of(32);
        let manager = segment.open();
        let word = layout::word(3);
        // A bit that says "somebody may sleep" alone names nobody, and yet glibc does not take the lock. In musl the mark of a
        // dead owner stays until the next one makes the mutex consistent, and this one may die, too.
        let (gone, other) = (gone_tid() as u32, if layout::IS_MUSL { gone_tid() as u32 | OWNER_DIED } else { WAITERS });
        for lost in [gone, gone | WAITERS, other] {
            segment.write_word_at(word, lost);
            assert_eq!(errno_of(manager.try_lock(3)), libc::EBUSY, "{lost:#x}");
            manager.repair_lock(3).unwrap();
            assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied, "{lost:#x}");
            // Who waits needs no repair.
            segment.write_word_at(word, lost);
            assert_eq!(manager.timed_lock(3, LONG).unwrap(), Acquired::OwnerDied, "{lost:#x}");
            manager.unlock(3).unwrap();
            assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        }
    });
}

/// In musl the word cannot say both.
#[cfg(not(target_env = "musl"))]
#[test]
fn a_lost_lock_whose_word_still_names_a_thread_that_is_gone_can_be_taken_after_repair() {
    alone!({
        if !namespace::sees_all_processes_or_skip() {
            return;
        }
        // What glibc's trylock leaves of a lost mutex when its caller dies.
        let segment = Segment::of(32);
        segment.write_word_at(layout::mutex(3) + layout::OWNER, layout::LOST);
        segment.write_word_at(layout::word(3), gone_tid() as u32);
        let manager = segment.open();
        manager.repair_lock(3).unwrap();
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
    });
}

#[test]
fn where_another_pid_namespace_may_mean_another_thread_nothing_is_judged() {
    alone_as_root!({ nothing_is_judged_beside(|| (), || sleep_until_killed()) });
}

#[test]
fn nor_where_the_process_there_goes_on_without_its_main_thread() {
    alone_as_root!({
        let without_main_thread = || {
            thread::spawn(|| sleep_until_killed());
            // SAFETY: exit(2), of the system: ends this thread alone, without a look at its stack.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        };
        nothing_is_judged_beside(|| (), without_main_thread);
    });
}

/// As of a program with a name in Cyrillic, of which the kernel keeps 15 bytes.
#[test]
fn nor_where_the_command_there_is_cut_in_the_midst_of_a_character() {
    alone_as_root!({
        let rename = || {
            // SAFETY: prctl(2) with PR_SET_NAME reads the string.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_NAME, c"\xd0\xbb\xd0".as_ptr()) }, 0);
        };
        nothing_is_judged_beside(rename, || sleep_until_killed());
    });
}

#[test]
fn nor_where_the_process_there_has_more_groups_than_a_page_can_list() {
    if !is_root_that_unshares_or_skip() {
        return;
    }
    alone!({
        let join = || {
            let groups: Vec<libc::gid_t> = (1_000_000..).take(3000).collect();
            // SAFETY: setgroups(2) reads that many numbers.
            assert_eq!(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }, 0);
        };
        nothing_is_judged_beside(join, || sleep_until_killed());
    });
}

/// Has a process of another PID namespace become what `becoming` makes of it, open a segment and go on by `living`.
fn nothing_is_judged_beside(becoming: impl FnOnce(), living: impl FnOnce()) {
    let segment = Segment::of(32);
    let manager = segment.open();
    let ready = &board(1)[0];
    let elsewhere = fork(|| {
        namespace::new_pid_namespace_for_children();
        fork(|| {
            becoming();
            std::mem::forget(segment.open());
            ready.store(1, Ordering::Release);
            living();
        })
        .wait();
    });
    eventually("the other namespace has it open", || ready.load(Ordering::Acquire) == 1);
    let gone = gone_tid() as u32;
    segment.write_word_at(layout::word(3), gone);
    let error = manager.repair_lock(3).unwrap_err();
    assert_eq!(error.errno(), libc::EBUSY);
    assert!(matches!(error.reason(), Reason::CannotJudge { id: 3, holder, .. } if *holder == gone), "{error}");
    assert_eq!(errno_of(manager.timed_lock(3, Duration::from_millis(400))), libc::ETIMEDOUT);
    assert_eq!(segment.word_at(layout::word(3)) & layout::TID, gone);
    // The child of PID 1 there dies with it, and then there is nobody but those of this namespace.
    elsewhere.kill();
    if namespace::sees_all_processes_or_skip() {
        eventually("the lock is judged", || manager.repair_lock(3).is_ok());
        assert_eq!(taken_once(&manager, 3), Acquired::OwnerDied);
    }
}

#[test]
fn bitmaps_whose_guard_stays_taken_are_given_up_after_two_seconds() {
    alone!({
        let segment = Segment::of(32);
        let manager = segment.open();
        let holder = fork(|| sleep_until_killed());
        segment.write_word_at(layout::AT_GUARD + layout::WORD, holder.pid() as u32);
        let start = Instant::now();
        let error = manager.allocate_lock().unwrap_err();
        let waited = start.elapsed();
        assert_eq!(error.errno(), libc::ENOTRECOVERABLE);
        assert!(matches!(error.reason(), Reason::BitmapsHeld { holder: tid, .. } if *tid == holder.pid() as u32));
        assert!(waited >= Duration::from_secs(2) && waited < LONG, "{waited:?}");
        // Counting and locking need no guard.
        assert_eq!(manager.available_locks().unwrap(), 32);
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
    });
}
