// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record locks beside the words: seen by everybody, on descriptors that are kept for use again, and gone with their
//! process.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::thread;

use lock_manager::{Acquired, FileManager, Manager};

use super::exhaustion::descriptors;
use super::place::Place;
use super::posix::{PosixHolder, PosixLock};
use super::support::alone::alone;
use super::support::process::{limit, sleep_until_killed};
use super::support::{board, errno_of, eventually, fork, taken_once};

/// Who has a record lock on all of that id's file, as /proc/locks shows it.
pub fn record_holder(place: &Place, id: u32) -> Option<i32> {
    // The kernel may leave a line out where others' locks come and go while it is read; what is gone stays away.
    const LOOKS: usize = 20;
    (0..LOOKS).find_map(|_| record_holder_seen(place, id))
}

fn record_holder_seen(place: &Place, id: u32) -> Option<i32> {
    let facts = place.file(id).metadata().unwrap();
    let (major, minor) = (libc::major(facts.dev()), libc::minor(facts.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", facts.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let fields = locks.lines().map(|line| line.split_ascii_whitespace().skip(1).collect::<Vec<_>>());
    let mut of_the_file = fields.filter(|fields| fields.get(4) == Some(&file.as_str()));
    let found = of_the_file.next()?;
    // The kernel may show a line twice where others' locks come and go while it is read.
    let mut of_the_file = of_the_file.filter(|fields| *fields != found);
    assert_eq!([found[0], found[2], found[5], found[6]], ["POSIX", "WRITE", "0", "EOF"], "{found:?}");
    assert_eq!(of_the_file.next(), None);
    Some(found[3].parse().unwrap())
}

/// A directory in which an id is allocated.
fn with_lock() -> (Place, FileManager, u32) {
    let place = Place::fresh();
    let manager = place.open();
    let id = manager.allocate_lock().unwrap();
    (place, manager, id)
}

#[test]
fn a_held_lock_shows_as_a_posix_lock_of_its_process() {
    alone!({
        let (place, manager, id) = with_lock();
        assert_eq!(record_holder(&place, id), None);
        let _ = manager.lock(id).unwrap();
        assert_eq!(record_holder(&place, id), Some(std::process::id() as i32));
        // Of an allocated lock, however it is opened.
        let _ = place.open().try_lock(id).unwrap_err();
        assert_eq!(record_holder(&place, id), Some(std::process::id() as i32));
        manager.unlock(id).unwrap();
        assert_eq!(record_holder(&place, id), None);
    });
}

#[test]
fn it_passes_to_no_child_and_goes_with_its_process() {
    alone!({
        let (place, manager, id) = with_lock();
        let words = board(2);
        let [held, grandchild] = [&words[0], &words[1]];
        let holder = fork(|| {
            let manager = place.open();
            let _ = manager.lock(id).unwrap();
            // It has all descriptors of its parent's, and ends after it.
            // SAFETY: fork(2); the child does nothing but sleep.
            match unsafe { libc::fork() } {
                0 => sleep_until_killed(),
                pid => grandchild.store(pid as u32, Ordering::Release),
            }
            held.store(1, Ordering::Release);
            sleep_until_killed();
        });
        eventually("the child holds the lock", || held.load(Ordering::Acquire) == 1);
        assert_eq!(record_holder(&place, id), Some(holder.pid()));
        holder.kill();
        assert_eq!(record_holder(&place, id), None);
        assert!(PosixLock::try_take(&place.file(id)).is_some());
        assert_eq!(taken_once(&manager, id), Acquired::OwnerDied);
        // SAFETY: kill(2) touches no memory; the grandchild sleeps until it is killed, so the number is its own.
        assert_eq!(unsafe { libc::kill(grandchild.load(Ordering::Acquire) as i32, libc::SIGKILL) }, 0);
    });
}

#[test]
fn a_childs_use_and_end_take_nothing_from_its_parent() {
    alone!({
        let (place, manager, id) = with_lock();
        let other = manager.allocate_lock().unwrap();
        let _ = manager.lock(id).unwrap();
        fork(|| {
            assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
            assert_eq!(taken_once(&manager, other), Acquired::Clean);
            let _ = manager.lock(other).unwrap();
            assert_eq!(record_holder(&place, other), Some(std::process::id() as i32));
            drop(manager);
        })
        .succeeds();
        assert_eq!(record_holder(&place, id), Some(std::process::id() as i32));
        assert_eq!(record_holder(&place, other), None);
    });
}

#[test]
fn a_thread_that_ends_holding_gives_the_record_lock_back() {
    alone!({
        let (place, manager, id) = with_lock();
        thread::scope(|scope| {
            let _ = scope.spawn(|| manager.lock(id).unwrap()).join().unwrap();
        });
        eventually("the thread has ended", || record_holder(&place, id).is_none());
        fork(|| assert!(PosixLock::try_take(&place.file(id)).is_some())).succeeds();
        assert_eq!(taken_once(&manager, id), Acquired::OwnerDied);
        assert_eq!(record_holder(&place, id), None);
    });
}

/// Of two locks that the process holds on one file, POSIX gives up both with the first descriptor that is closed: so none
/// is opened by a look.
#[test]
fn looking_and_trying_drop_nothing_that_the_program_has_locked_itself() {
    alone!({
        let (place, manager, id) = with_lock();
        let own = PosixLock::try_take(&place.file(id)).unwrap();
        fork(|| {
            let manager = place.open();
            assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        })
        .succeeds();
        let info = manager.lock_info(id).unwrap();
        assert_eq!((info.held, info.pid), (true, std::process::id() as i32));
        assert_eq!(manager.locks_held().unwrap(), [id]);
        assert_eq!(errno_of(manager.repair_lock(id)), libc::EBUSY);
        assert!(FileManager::open_read_only(&place.path).unwrap().lock_info(id).unwrap().held);
        assert_eq!(record_holder(&place, id), Some(std::process::id() as i32));
        drop(own);

        // And none that the library holds for it.
        let _ = manager.lock(id).unwrap();
        assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        thread::scope(|scope| {
            let elsewhere = scope.spawn(|| errno_of(place.open().try_lock(id)));
            assert_eq!(elsewhere.join().unwrap(), libc::EBUSY);
        });
        let _ = (manager.lock_info(id).unwrap(), manager.locks_held().unwrap());
        assert_eq!(errno_of(manager.repair_lock(id)), libc::EBUSY);
        assert_eq!(record_holder(&place, id), Some(std::process::id() as i32));
        manager.unlock(id).unwrap();
    });
}

#[test]
fn a_waiter_for_a_posix_lock_is_a_waiter_and_not_the_holder() {
    alone!({
        let (place, manager, id) = with_lock();
        let holder = PosixHolder::start(&place, id);
        let waiter = fork(|| _ = place.open().lock(id).unwrap());
        eventually("it waits", || manager.lock_info(id).unwrap().waiters == 1);
        let info = manager.lock_info(id).unwrap();
        assert_eq!((info.held, info.pid, info.waiters), (true, holder.child.pid(), 1));
        // A second one waits for the first, and so for the same.
        assert_eq!(errno_of(manager.try_lock(id)), libc::EBUSY);
        holder.let_go();
        holder.child.succeeds();
        waiter.succeeds();
        assert_eq!(taken_once(&manager, id), Acquired::OwnerDied);
    });
}

/// More than are kept, and how many may be open beside them.
const MANY: u32 = 1000;
const KEPT: usize = 128;

#[test]
fn few_descriptors_are_kept_and_none_in_the_place_of_a_standard_one() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            // SAFETY: close(2) touches no memory; the child has no use for them.
            (0..3).for_each(|number| unsafe { assert_eq!(libc::close(number), 0) });
            let manager = place.open();
            let before = descriptors().len();
            for id in 0..MANY {
                assert_eq!(manager.allocate_lock().unwrap(), id);
                assert_eq!(taken_once(&manager, id), Acquired::Clean);
            }
            let now = descriptors();
            assert!(now.len() <= before + KEPT, "{} of {MANY} are kept", now.len() - before);
            // The directory is being read by a descriptor of its own.
            let listing = now.iter().filter(|&&number| number < 3).count();
            assert!(listing <= 1, "{now:?}");
            // Those that are gone are opened anew.
            (0..MANY).for_each(|id| assert_eq!(taken_once(&manager, id), Acquired::Clean));
            drop(manager);
            assert!(descriptors().len() < before, "{:?}", descriptors());
        })
        .succeeds();
    });
}

#[test]
fn after_many_locks_were_held_at_once_few_descriptors_are_kept() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            let manager = place.open();
            let before = descriptors().len();
            let ids: Vec<u32> = (0..3 * KEPT).map(|_| manager.allocate_lock().unwrap()).collect();
            ids.iter().for_each(|&id| assert_eq!(manager.lock(id).unwrap(), Acquired::Clean));
            let (some, others) = ids.split_at(KEPT);
            some.iter().for_each(|&id| manager.unlock(id).unwrap());
            let now = descriptors().len() - before;
            assert!(now <= others.len() + KEPT, "{now} with {} held", others.len());
            some.iter().for_each(|&id| assert_eq!(taken_once(&manager, id), Acquired::Clean));
            others.iter().for_each(|&id| assert_eq!(record_holder(&place, id), Some(std::process::id() as i32)));
            others.iter().for_each(|&id| manager.unlock(id).unwrap());
            let kept = descriptors().len() - before;
            assert!(kept <= KEPT, "{kept} are kept");
        })
        .succeeds();
    });
}

#[test]
fn what_is_kept_gives_way_where_there_are_no_descriptors() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            let manager = place.open();
            let ids = [(); 20].map(|()| manager.allocate_lock().unwrap());
            let (last, others) = ids.split_last().unwrap();
            others.iter().for_each(|&id| assert_eq!(taken_once(&manager, id), Acquired::Clean));
            let _ = manager.lock(0).unwrap();
            let most = *descriptors().last().unwrap() as u64;
            limit(libc::RLIMIT_NOFILE, most);
            // The program needs some as well.
            let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            assert_eq!(taken_once(&manager, *last), Acquired::Clean);
            drop(files);
            assert_eq!(record_holder(&place, 0), Some(std::process::id() as i32));
            manager.unlock(0).unwrap();
        })
        .succeeds();
    });
}

#[test]
fn a_program_that_closes_all_descriptors_and_uses_their_numbers_is_left_alone() {
    alone!({
        let place = Place::fresh();
        let letters = Place::fresh();
        fork(|| {
            let manager = place.open();
            let ids = [(); 4].map(|()| manager.allocate_lock().unwrap());
            ids.iter().for_each(|&id| assert_eq!(taken_once(&manager, id), Acquired::Clean));
            let _ = manager.lock(ids[0]).unwrap();
            let most = *descriptors().last().unwrap();
            // SAFETY: close_range(2) touches no memory; the library's descriptors are what is to be closed.
            assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }, 0);
            // The program's own files, each with a lock of the program's, at the same numbers.
            let files: Vec<PosixLock> =
                (0..most as u32).map(|number| PosixLock::try_take(&letters.file(number)).unwrap()).collect();
            let is_whole = || {
                for number in 0..most as u32 {
                    assert_eq!(record_holder(&letters, number), Some(std::process::id() as i32), "{number}");
                }
            };
            for &id in &ids[1..] {
                assert_eq!(taken_once(&manager, id), Acquired::Clean);
                is_whole();
            }
            manager.unlock(ids[0]).unwrap();
            is_whole();
            let _ = manager.lock(ids[0]).unwrap();
            assert_eq!(record_holder(&place, ids[0]), Some(std::process::id() as i32));
            manager.unlock(ids[0]).unwrap();
            manager.free_lock(ids[2]).unwrap();
            manager.close().unwrap();
            is_whole();
            drop(files);
        })
        .succeeds();
    });
}

/// A descriptor that is known to be kept, taken over by the program for a file of its own.
#[test]
fn a_number_that_became_another_files_is_neither_locked_nor_closed() {
    alone!({
        let (place, manager, id) = with_lock();
        let before = descriptors();
        assert_eq!(taken_once(&manager, id), Acquired::Clean);
        let kept = *descriptors().iter().find(|number| !before.contains(number)).unwrap();
        let letter = File::open("/dev/null").unwrap();
        // SAFETY: dup2(2) touches no memory; the number is the library's, which is to notice.
        assert_eq!(unsafe { libc::dup2(letter.as_raw_fd(), kept) }, kept);
        assert_eq!(taken_once(&manager, id), Acquired::Clean);
        drop(manager);
        let target = fs::read_link(format!("/proc/self/fd/{kept}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"));
        drop(place);
    });
}

/// The kernel leaves lines of /proc/locks out where others' locks come and go while it is read, and no two reads are alike.
#[test]
fn what_libpod_holds_is_seen_while_other_locks_come_and_go() {
    alone!({
        // More than one read takes.
        const HELD: u32 = 300;
        const CHANGERS: usize = 2;
        let (place, manager, id) = with_lock();
        let ids: Vec<u32> = (0..HELD).map(|_| manager.allocate_lock().unwrap()).collect();
        let holder = PosixHolder::start(&place, id);
        let others = fork(|| {
            let _locks: Vec<_> = ids.iter().map(|&id| PosixLock::try_take(&place.file(id)).unwrap()).collect();
            sleep_until_killed();
        });
        eventually("the others hold theirs", || manager.locks_held().unwrap().len() > HELD as usize);
        let changers: Vec<_> = (0..CHANGERS)
            .map(|_| {
                fork(|| {
                    let manager = place.open();
                    let id = manager.allocate_lock().unwrap();
                    loop {
                        let _ = taken_once(&manager, id);
                    }
                })
            })
            .collect();
        const LOOKS: usize = 60;
        for look in 0..LOOKS {
            let info = manager.lock_info(id).unwrap();
            assert!((info.held, info.pid) == (true, holder.child.pid()), "look {look}: {info:?}");
        }
        changers.into_iter().chain([others, holder.child]).for_each(|child| child.kill());
    });
}
