// SPDX-License-Identifier: MIT OR Apache-2.0
//! No descriptors, no room, no leave to write: an error that says so, and nothing lost. And nothing that leaks.

use std::fs;
use std::thread;

use lock_manager::{Acquired, FileManager, Manager};

use super::place::Place;
use super::support::alone::{alone, alone_as_root};
use super::support::process::limit;
use super::support::{errno_of, fork, namespace, taken_once};

/// As musl gives its threads, and so those of a Go program there.
#[test]
fn a_stack_of_128_kib_is_enough_for_every_call() {
    alone!({
        let place = Place::fresh();
        let calls = || {
            let manager = place.open();
            let id = manager.allocate_lock().unwrap();
            assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
            assert_eq!((manager.locks_held().unwrap(), manager.lock_info(id).unwrap().held), (vec![id], true));
            manager.unlock(id).unwrap();
            assert_eq!(manager.lock_shared(100_000).unwrap(), Acquired::Clean);
            manager.unlock_shared(100_000).unwrap();
            manager.free_lock(id).unwrap();
        };
        thread::scope(|scope| {
            let small = thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, calls).unwrap();
            small.join().unwrap();
        });
    });
}

#[test]
fn without_descriptors_calls_say_emfile_and_work_again_later() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            let manager = place.open();
            let id = manager.allocate_lock().unwrap();
            let _ = manager.lock(id).unwrap();
            manager.allocate_and_retrieve_lock(7).unwrap();
            limit(libc::RLIMIT_NOFILE, 3);
            for _ in 0..10 {
                assert_eq!(errno_of(manager.try_lock(7)), libc::EMFILE);
            }
            assert!(!manager.lock_info(7).unwrap().held);
            // What needs no new descriptor works.
            assert_eq!(manager.allocate_lock().unwrap(), id + 1);
            assert_eq!(manager.locks_held().unwrap(), [id]);
            // What was had before is given back without a new descriptor.
            manager.unlock(id).unwrap();
            limit(libc::RLIMIT_NOFILE, 256);
            assert_eq!(taken_once(&manager, 7), Acquired::Clean);
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
            assert_eq!(manager.allocate_lock().unwrap(), id + 2);
        })
        .succeeds();
    });
}

/// The numbers of the descriptors that this process has.
pub fn descriptors() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let mut numbers: Vec<i32> =
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// As many mappings as a process may have; gone when it is dropped.
struct Mappings(Vec<*mut libc::c_void>);

const PAGE: usize = 4096;

/// Uses up what vm.max_map_count allows.
fn every_mapping_used() -> Mappings {
    let most: usize = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let mut pages = Vec::with_capacity(most);
    loop {
        // Neighbours of one kind would become one mapping.
        let protection = if pages.len() % 2 == 0 { libc::PROT_READ } else { libc::PROT_NONE };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a mapping of its own, of which the kernel chooses the place.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Mappings(pages);
        }
        assert!(pages.len() < most, "there is always room for another mapping");
        pages.push(page);
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        for &page in &self.0 {
            // SAFETY: the page was mapped by every_mapping_used() and nobody points into it.
            unsafe { libc::munmap(page, PAGE) };
        }
    }
}

#[test]
fn without_mappings_locks_go_on_and_nothing_is_lost() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            let manager = place.open();
            let id = manager.allocate_lock().unwrap();
            let _ = manager.lock(id).unwrap();
            let full = every_mapping_used();
            let taken = manager.try_lock(7);
            // It took room for itself in the reserve that the table was mapped with.
            let far = manager.try_lock(1 << 20);
            let next = manager.allocate_lock();
            let held = manager.locks_held();
            let given = manager.unlock(id);
            drop(full);
            assert_eq!(taken.unwrap(), Acquired::Clean);
            manager.unlock(7).unwrap();
            assert!([0, libc::ENOMEM].contains(&errno_of(far)));
            assert_eq!(next.unwrap(), id + 1);
            assert_eq!(held.unwrap(), [id, 7]);
            given.unwrap();
            assert_eq!(taken_once(&manager, 7), Acquired::Clean);
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
            fork(|| assert_eq!(taken_once(&place.open(), 7), Acquired::Clean)).succeeds();
        })
        .succeeds();
    });
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_signal() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            let manager = place.open();
            limit(libc::RLIMIT_FSIZE, 4096);
            assert_eq!(taken_once(&manager, 3), Acquired::Clean);
            assert_eq!(errno_of(manager.try_lock(100_000)), libc::EFBIG);
            assert_eq!(manager.locks_held().unwrap(), []);
        })
        .succeeds();
    });
}

#[test]
fn on_a_full_disk_nothing_is_lost() {
    alone_as_root!({
        fork(|| {
            namespace::private_shm("2m");
            let manager = FileManager::create("/dev/shm/locks").unwrap();
            let _ = manager.lock(2).unwrap();
            let mut allocated = 0;
            // The table grows with the ids, until there is no room.
            let full = (0..).map(|step| step * 5_000 + 5).find(|&id| match manager.try_lock(id) {
                Ok(_) => {
                    manager.unlock(id).unwrap();
                    manager.allocate_and_retrieve_lock(id).unwrap();
                    allocated += 1;
                    false
                }
                Err(error) => {
                    assert_eq!(error.errno(), libc::ENOSPC, "{error}");
                    true
                }
            });
            let full = full.unwrap();
            assert!(allocated > 3);
            assert_eq!(manager.locks_held().unwrap(), [2]);
            manager.unlock(2).unwrap();
            assert_eq!(taken_once(&manager, 2), Acquired::Clean);
            assert_eq!(errno_of(manager.try_lock(full)), libc::ENOSPC);
        })
        .succeeds();
    });
}

#[test]
fn where_no_more_files_can_be_made_nothing_is_allocated_and_nothing_lost() {
    alone_as_root!({
        fork(|| {
            // The root, the directory, the table, and two.
            namespace::private_shm("1m,nr_inodes=5");
            let manager = FileManager::create("/dev/shm/locks").unwrap();
            assert_eq!([(); 2].map(|()| manager.allocate_lock().unwrap()), [0, 1]);
            for _ in 0..20 {
                assert_eq!(errno_of(manager.allocate_lock()), libc::ENOSPC);
            }
            assert_eq!(errno_of(manager.allocate_and_retrieve_lock(7)), libc::ENOSPC);
            assert_eq!(errno_of(FileManager::create("/dev/shm/others")), libc::ENOSPC);
            assert_eq!(taken_once(&manager, 7), Acquired::Clean);
            manager.free_lock(1).unwrap();
            assert_eq!(manager.allocate_lock().unwrap(), 1);
        })
        .succeeds();
    });
}

#[test]
fn a_lock_that_is_held_takes_a_descriptor_if_it_has_a_file_and_no_other() {
    const HELD: u32 = 2000;
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let before = descriptors().len();
        let with_files = 300..400;
        with_files.clone().for_each(|id| manager.allocate_and_retrieve_lock(id).unwrap());
        (0..HELD).for_each(|id| assert_eq!(manager.try_lock(id).unwrap(), Acquired::Clean));
        assert_eq!(descriptors().len(), before + with_files.len());
        assert_eq!(manager.locks_held().unwrap().len(), HELD as usize);
        fork(|| assert_eq!(errno_of(place.open().try_lock(HELD - 1)), libc::EBUSY)).succeeds();
        (0..HELD).for_each(|id| manager.unlock(id).unwrap());
        assert_eq!(manager.locks_held().unwrap(), []);
    });
}

#[test]
fn where_the_standard_descriptors_are_closed_nothing_is_printed_into_the_table() {
    alone!({
        let place = Place::fresh();
        fork(|| {
            // SAFETY: close(2) touches no memory; the child has no use for them.
            (0..3).for_each(|number| unsafe { assert_eq!(libc::close(number), 0) });
            let manager = place.open();
            let _ = manager.lock(0).unwrap();
            for number in 0..3 {
                // SAFETY: write(2) reads the bytes. It fails, as it should.
                assert_eq!(unsafe { libc::write(number, c"to a terminal".as_ptr().cast(), 13) }, -1, "{number}");
            }
            assert_eq!(manager.allocate_lock().unwrap(), 0);
            manager.unlock(0).unwrap();
        })
        .succeeds();
        assert_eq!(taken_once(&place.open(), 0), Acquired::Clean);
    });
}

#[test]
fn on_a_read_only_file_system_it_says_so() {
    alone_as_root!({
        fork(|| {
            namespace::private_shm("1m");
            drop(FileManager::create("/dev/shm/locks").unwrap());
            namespace::make_shm_read_only();
            assert_eq!(errno_of(FileManager::open("/dev/shm/locks")), libc::EROFS);
            assert_eq!(errno_of(FileManager::create("/dev/shm/others")), libc::EROFS);
        })
        .succeeds();
    });
}

/// musl's heap maps and unmaps groups of its own as it goes: in 20,000 rounds between none and three more than at the start.
const OF_THE_HEAP: usize = if cfg!(target_env = "musl") { 8 } else { 0 };

#[test]
fn nothing_leaks() {
    alone!({
        let place = Place::fresh();
        let manager = place.open();
        let count = |what: &str| {
            fs::read_dir("/proc/self/fd").unwrap().count() + fs::read_to_string(what).unwrap().lines().count()
        };
        let used = || count("/proc/self/maps");
        let once = || {
            let id = manager.allocate_lock().unwrap();
            assert_eq!(taken_once(&manager, id), Acquired::Clean);
            let _ = manager.locks_held().unwrap();
            let _ = manager.lock_info(id).unwrap();
            manager.free_lock(id).unwrap();
            drop(place.open());
        };
        once();
        let before = used();
        (0..1000).for_each(|_| once());
        let after = used();
        assert!((before - OF_THE_HEAP..=before + OF_THE_HEAP).contains(&after), "{before} before, {after} after");
    });
}
