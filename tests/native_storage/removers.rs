// SPDX-License-Identifier: MIT OR Apache-2.0
//! Removers that are refused, stopped or killed: the segment is gone, or nothing has happened.

use std::cell::RefCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use lock_manager::{Acquired, Manager, ShmManager};

use super::options;
use super::support::alone::alone;
use super::support::native_layout::{AT_RETIRED, REMOVING};
use super::support::process::{become_user, until_thread_sleeps};
use super::support::step::{Step, Stepped, at_every_instruction};
use super::support::{Child, Segment, board, errno_of, fork, is_root_or_skip, namespace, taken_once};

const USER: u32 = 12_345;

/// Of a user who may use the segment and not take it out of its directory.
fn segment_that_its_owner_cannot_remove() -> (Segment, PathBuf) {
    let directory = Segment::directory();
    let path = directory.file().join("locks");
    drop(ShmManager::create(&path, 64, &options()).unwrap());
    chown(&path, Some(USER), None).unwrap();
    fs::set_permissions(directory.file(), Permissions::from_mode(0o555)).unwrap();
    (directory, path)
}

fn assert_in_use(path: &Path, manager: &ShmManager) {
    assert_eq!(taken_once(manager, 3), Acquired::Clean);
    manager.free_lock(manager.allocate_lock().unwrap()).unwrap();
    assert!(!manager.info().unwrap().retired);
    assert_eq!(taken_once(&ShmManager::open(path, 64).unwrap(), 3), Acquired::Clean);
}

#[test]
fn users_do_not_notice_removals_that_are_refused() {
    const REMOVALS: u32 = 2000;
    if !is_root_or_skip() {
        return;
    }
    alone!({
        let (_directory, path) = segment_that_its_owner_cannot_remove();
        let over = &board(1)[0];
        let users = [0, 1].map(|lock| {
            fork(|| {
                become_user(USER);
                let manager = ShmManager::open(&path, 0).unwrap();
                while over.load(Ordering::Acquire) == 0 {
                    assert_eq!(taken_once(&manager, lock), Acquired::Clean);
                    manager.free_lock(manager.allocate_lock().unwrap()).unwrap();
                }
            })
        });
        let opener = fork(|| {
            become_user(USER);
            while over.load(Ordering::Acquire) == 0 {
                drop(ShmManager::open(&path, 0).unwrap());
            }
        });
        fork(|| {
            become_user(USER);
            for _ in 0..REMOVALS {
                assert_eq!(errno_of(ShmManager::remove(&path)), libc::EACCES);
            }
        })
        .succeeds();
        over.store(1, Ordering::Release);
        users.into_iter().chain([opener]).for_each(Child::succeeds);
    });
}

/// What is mounted has a name that cannot be taken away.
#[test]
fn a_mounted_segment_is_not_removed() {
    alone!({
        let (segment, mounted) = (Segment::native(64), Segment::unused());
        let manager = segment.open();
        fork(|| {
            if !namespace::mounts_or_skip() {
                return;
            }
            fs::write(mounted.file(), "").unwrap();
            namespace::bind(&segment.file(), &mounted.file());
            assert_eq!(errno_of(ShmManager::remove(&mounted.name)), libc::EBUSY);
            assert_in_use(&segment.file(), &manager);
        })
        .succeeds();
        assert_in_use(&segment.file(), &manager);
    });
}

/// Kills a remover after each so many instructions; `prepare` is the remover's. How often the segment was gone, and not.
fn kill_removers(path: &Path, prepare: impl Fn()) -> (u32, u32) {
    let (mut gone, mut stayed) = (0, 0);
    let user = RefCell::new(None);
    let start = || {
        *user.borrow_mut() = Some(ShmManager::open_or_create(path, 64, &options()).unwrap());
        Stepped::start(&prepare, |()| drop(ShmManager::remove(path)))
    };
    at_every_instruction(start, |stepped, count| {
        stepped.kill();
        let manager = user.borrow_mut().take().unwrap();
        if path.exists() {
            stayed += 1;
            assert_in_use(path, &manager);
        } else {
            gone += 1;
            let refused = [errno_of(manager.try_lock(3)), errno_of(manager.allocate_lock())];
            assert_eq!(refused, [libc::ESTALE; 2], "after {count} instructions");
        }
    });
    (gone, stayed)
}

#[test]
fn a_remover_may_be_killed_at_any_instruction() {
    alone!({
        let directory = Segment::directory();
        let (gone, stayed) = kill_removers(&directory.file().join("locks"), || {});
        assert!(gone > 0 && stayed > 0, "{gone} times it was gone, {stayed} times it stayed");
    });
}

#[test]
fn a_remover_that_is_refused_may_be_killed_at_any_instruction() {
    if !is_root_or_skip() {
        return;
    }
    alone!({
        let (_directory, path) = segment_that_its_owner_cannot_remove();
        // The test, which is root, uses it as well.
        chown(&path, Some(0), None).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let (gone, stayed) = kill_removers(&path, || become_user(USER));
        assert!(gone == 0 && stayed > 0, "{gone} times it was gone");
    });
}

/// Stopped where it has marked the segment and the name is still there: whoever uses it goes on, since its calls come before
/// the removal; whoever comes to it waits, since the remover may have seen that nobody was there.
#[test]
fn beside_a_remover_that_is_stopped_users_go_on_and_openers_wait() {
    alone!({
        let segment = Segment::native(64);
        let manager = segment.open();
        let remover = Stepped::start(|| {}, |()| ShmManager::remove(&segment.name).unwrap());
        while segment.word_at(AT_RETIRED) != REMOVING {
            assert_eq!(remover.system_call(), Step::Done);
        }
        assert_eq!(taken_once(&manager, 3), Acquired::Clean);
        assert_eq!(manager.allocate_lock().unwrap(), 0);
        assert!(!manager.info().unwrap().retired);
        assert_eq!(segment.word_at(AT_RETIRED), REMOVING);
        let opener = fork(|| assert_eq!(errno_of(ShmManager::open(&segment.name, 0)), libc::ENOENT));
        // A child comes to it by its first call.
        let child = fork(|| assert_eq!(errno_of(manager.try_lock(4)), libc::ESTALE));
        for waiting in [&opener, &child] {
            until_thread_sleeps(waiting.pid());
        }
        remover.finish();
        opener.succeeds();
        child.succeeds();
        assert_eq!(errno_of(manager.try_lock(3)), libc::ESTALE);
        remover.kill();
    });
}
