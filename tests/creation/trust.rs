// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is opened, and for whom: no links, no devices, no stranger's segment but to look at it.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use lock_manager::{Acquired, FileManager, Manager, Reason, SegmentOptions, ShmManager};

use super::DEFAULT;
use super::support::alone::alone;
use super::support::process::become_user;
use super::support::{Segment, errno_of, fork, is_root_or_skip, namespace, taken_once};

#[test]
fn symbolic_links_are_not_followed() {
    let [segment, link] = [Segment::of(32), Segment::unused()];
    symlink(segment.file(), link.file()).unwrap();
    for refused in [
        ShmManager::open(&link.name, 0).map(drop),
        ShmManager::open_read_only(&link.name).map(drop),
        ShmManager::open_or_create(&link.name, 32, &DEFAULT()).map(drop),
        ShmManager::remove(&link.name),
    ] {
        assert_eq!(refused.unwrap_err().reason(), &Reason::SymbolicLink);
    }
    // A link to nothing is a taken name all the same: creating does not go through it.
    fs::remove_file(segment.file()).unwrap();
    assert_eq!(errno_of(ShmManager::create(&link.name, 32, &DEFAULT())), libc::EEXIST);
    assert!(!segment.file().exists());
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    alone!({
        let fifo = Segment::unused();
        let path = CString::new(fifo.file().into_os_string().into_string().unwrap()).unwrap();
        // SAFETY: mkfifo(3) reads the string, which lives past the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        let directory = Segment::directory();
        let socket = Segment::unused();
        drop(std::os::unix::net::UnixListener::bind(socket.file()).unwrap());
        for path in [&fifo.name, &directory.name, &socket.name, "/dev/null", "/dev/zero"].map(Path::new) {
            for refused in [
                ShmManager::open(path, 0).map(drop),
                ShmManager::open_read_only(path).map(drop),
                ShmManager::open_or_create(path, 32, &DEFAULT()).map(drop),
                ShmManager::remove(path),
            ] {
                assert_eq!(errno_of(refused), libc::EPROTO, "{}", path.display());
            }
        }
    });
}

#[test]
fn a_strangers_segment_is_not_trusted_but_may_be_looked_at() {
    const STRANGER: u32 = 12_345;
    if !is_root_or_skip() {
        return;
    }
    let segment = Segment::of(32);
    let _ = segment.open().allocate_lock().unwrap();
    chown(segment.file(), Some(STRANGER), None).unwrap();
    for refused in [
        ShmManager::open(&segment.name, 0).map(drop),
        ShmManager::open_or_create(&segment.name, 32, &DEFAULT()).map(drop),
        ShmManager::remove(&segment.name),
    ] {
        assert_eq!(refused.unwrap_err().reason(), &Reason::NotTrusted { owner: STRANGER, caller: 0 });
    }
    assert_eq!(ShmManager::open_read_only(&segment.name).unwrap().available_locks().unwrap(), 31);
}

/// In a user namespace all users that it does not know read as one number, which may be the caller's own there.
#[test]
fn a_stranger_who_reads_as_the_caller_is_not_trusted() {
    const STRANGER: u32 = 12_345;
    const USER: u32 = 12_346;
    const UNKNOWN: u32 = 65_534;
    if !is_root_or_skip() {
        return;
    }
    alone!({
        let [strangers, roots, own] = [Segment::of(32), Segment::native(64), Segment::unused()];
        let [strangers_directory, own_directory] = [Segment::directory(), Segment::directory()];
        for (segment, mode) in [(&strangers, 0o666), (&roots, 0o666), (&strangers_directory, 0o777)] {
            fs::set_permissions(segment.file(), Permissions::from_mode(mode)).unwrap();
        }
        chown(strangers.file(), Some(STRANGER), None).unwrap();
        chown(strangers_directory.file(), Some(STRANGER), None).unwrap();
        chown(own_directory.file(), Some(USER), None).unwrap();
        fork(|| {
            become_user(USER);
            drop(ShmManager::create(&own.name, 64, &SegmentOptions::default()).unwrap());
            if !namespace::be_user_in_a_namespace_or_skip(UNKNOWN) {
                fs::remove_file(own.file()).unwrap();
                return;
            }
            for segment in [&strangers, &roots] {
                assert_eq!(fs::metadata(segment.file()).unwrap().uid(), UNKNOWN);
                for refused in [
                    ShmManager::open(&segment.name, 0).map(drop),
                    ShmManager::open_or_create(&segment.name, 64, &SegmentOptions::default()).map(drop),
                    ShmManager::remove(&segment.name),
                ] {
                    let error = refused.unwrap_err();
                    assert_eq!(error.reason(), &Reason::NotTrusted { owner: UNKNOWN, caller: UNKNOWN });
                    assert!(error.to_string().contains("user namespace"), "{error}");
                }
                assert_eq!(ShmManager::open_read_only(&segment.name).unwrap().locks_held().unwrap(), [0; 0]);
            }
            assert_eq!(errno_of(FileManager::open(strangers_directory.file())), libc::EACCES);
            assert_eq!(taken_once(&own.open(), 7), Acquired::Clean);
            ShmManager::remove(&own.name).unwrap();
            let files = FileManager::open_or_create(own_directory.file()).unwrap();
            assert_eq!(taken_once(&files, 7), Acquired::Clean);
        })
        .succeeds();
    });
}

#[test]
fn another_user_may_use_roots_segment_if_its_mode_lets_him() {
    const USER: u32 = 12_345;
    if !is_root_or_skip() {
        return;
    }
    alone!({
        let [closed, open] = [Segment::of(32), Segment::of(32)];
        fs::set_permissions(open.file(), Permissions::from_mode(0o666)).unwrap();
        fork(|| {
            become_user(USER);
            assert_eq!(errno_of(ShmManager::open(&closed.name, 0)), libc::EACCES);
            assert_eq!(errno_of(ShmManager::open_read_only(&closed.name)), libc::EACCES);
            assert_eq!(taken_once(&open.open(), 7), Acquired::Clean);
        })
        .succeeds();
    });
}

#[test]
fn a_manager_opened_to_look_sees_all_and_changes_nothing() {
    alone!({
        let segment = Segment::of(32);
        let user = segment.open();
        assert_eq!(user.allocate_lock().unwrap(), 0);
        let _ = user.lock(5).unwrap();
        let before = segment.bytes();

        let viewer = ShmManager::open_read_only(&segment.name).unwrap();
        assert_eq!(viewer.locks_held().unwrap(), [5]);
        assert_eq!((viewer.num_locks().unwrap(), viewer.available_locks().unwrap()), (32, 31));
        let info = viewer.lock_info(5).unwrap();
        assert_eq!((info.held, info.pid), (true, std::process::id() as i32));
        viewer.retrieve_lock(5).unwrap();
        assert_eq!(errno_of(viewer.retrieve_lock(32)), libc::EINVAL);
        assert!(!viewer.info().unwrap().retired);
        for (call, code) in [
            ("allocate_lock", errno_of(viewer.allocate_lock())),
            ("allocate_and_retrieve_lock", errno_of(viewer.allocate_and_retrieve_lock(3))),
            ("free_lock", errno_of(viewer.free_lock(0))),
            ("free_all_locks", errno_of(viewer.free_all_locks())),
            ("lock", errno_of(viewer.lock(1))),
            ("try_lock", errno_of(viewer.try_lock(5))),
            ("timed_lock", errno_of(viewer.timed_lock(5, Duration::from_secs(1)))),
            ("unlock", errno_of(viewer.unlock(5))),
            ("repair_lock", errno_of(viewer.repair_lock(5))),
            ("grow", errno_of(viewer.grow(64))),
        ] {
            assert_eq!(code, libc::EACCES, "{call}");
        }
        assert_eq!(segment.bytes(), before);
        user.unlock(5).unwrap();
    });
}
