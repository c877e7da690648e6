// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each common file system that this kernel has: a segment on it is made, grows beside others who allocate, is used to the
//! last byte when the file system is full, and goes away. Nobody gets a SIGBUS, and no bit that was set is lost.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use lock_manager::{Acquired, Manager, ShmManager};

use super::support::alone::alone;
use super::support::process::sleep_until_killed;
use super::support::{Segment, board, errno_of, eventually, fork, namespace, skip, taken_once};
use super::{names_in, options};

/// Where the segment is put.
#[derive(Debug, Clone, Copy)]
enum On {
    /// A file system without a device, and what it is mounted with.
    Memory(&'static str, &'static str),
    /// A file system on an image of so many bytes, which that program makes.
    Image { kind: &'static str, program: &'static [&'static str], size: u64 },
    /// An overlay whose layers are on that.
    Overlay(&'static On),
}

const MIB: u64 = 1 << 20;
const TMPFS: On = On::Memory("tmpfs", "size=8m");
const RAMFS: On = On::Memory("ramfs", "");
const EXT2: On = On::Image { kind: "ext2", program: &["mkfs.ext2", "-q", "-F"], size: 16 * MIB };
const EXT3: On = On::Image { kind: "ext3", program: &["mkfs.ext3", "-q", "-F"], size: 16 * MIB };
const EXT4: On = On::Image { kind: "ext4", program: &["mkfs.ext4", "-q", "-F"], size: 16 * MIB };
const XFS: On = On::Image { kind: "xfs", program: &["mkfs.xfs", "-q", "-f"], size: 300 * MIB };
const BTRFS: On = On::Image { kind: "btrfs", program: &["mkfs.btrfs", "-q", "-f"], size: 128 * MIB };

/// Mounts it over `place`, seen by the calling process alone; the directory for the segment. `None`, and said so: it cannot.
fn mounted_or_skip(on: On, place: &Path) -> Option<PathBuf> {
    match on {
        On::Memory(kind, data) => {
            namespace::mount_kind(kind, place, data);
            Some(place.to_owned())
        }
        On::Image { kind, program, size } => {
            let known = fs::read_to_string("/proc/filesystems").unwrap();
            if !known.lines().any(|line| line.split_whitespace().last() == Some(kind)) {
                skip(&format!("this kernel has no {kind}"));
                return None;
            }
            let image = place.with_extension("image");
            File::create(&image).unwrap().set_len(size).unwrap();
            let made = runs(Command::new(program[0]).args(&program[1..]).arg(&image), program[0])
                && runs(Command::new("mount").args(["-t", kind, "-o", "loop"]).arg(&image).arg(place), "mount");
            fs::remove_file(&image).unwrap();
            made.then(|| place.to_owned())
        }
        On::Overlay(below) => {
            let layers = mounted_or_skip(*below, place)?;
            let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| layers.join(name));
            for directory in [&lower, &upper, &work, &merged] {
                fs::create_dir(directory).unwrap();
            }
            let [lower, upper, work] = [lower, upper, work].map(|directory| directory.to_str().unwrap().to_owned());
            namespace::mount_kind("overlay", &merged, &format!("lowerdir={lower},upperdir={upper},workdir={work}"));
            Some(merged)
        }
    }
}

/// Whether a program does what it is to do; if not, says that the test is skipped.
fn runs(command: &mut Command, name: &str) -> bool {
    match command.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => true,
        Ok(status) => {
            skip(&format!("{name} failed, {status}"));
            false
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(&format!("{name} is not installed"));
            false
        }
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Writes until there is no room, not even on the device.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = File::create(&path).unwrap();
    // What the file system sets aside for a file that grows is free again once it was written out.
    for _ in 0..3 {
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        file.sync_all().unwrap();
    }
    path
}

/// Has what is in the file's file system written to its disk. Others of the machine may have gigabytes to write.
fn write_out(path: &Path) {
    let file = File::open(path).unwrap();
    // SAFETY: syncfs(2) touches no memory.
    assert_eq!(unsafe { libc::syncfs(file.as_raw_fd()) }, 0);
}

/// What would lose bits writes zeros over the last byte of a block or page, or over as many bytes as there are in one
/// before the end of what is new.
fn allocate_beside_growth(path: &Path) {
    const FIRST: u32 = 32_768;
    const GROWTHS: u32 = 400;
    /// The bits of a byte.
    const TRIED: u32 = 8;
    let manager = ShmManager::create(path, FIRST, &options().max_locks(FIRST + 64 * GROWTHS)).unwrap();
    let [over, grown] = [&board(1)[0], &board(1)[0]];
    let allocator = fork(|| {
        let manager = ShmManager::open(path, 0).unwrap();
        while over.load(Ordering::Acquire) == 0 {
            let new = 64 * grown.load(Ordering::Acquire);
            for end in [64 + new, FIRST, FIRST + new] {
                for id in end - TRIED..end {
                    manager.allocate_and_retrieve_lock(id).unwrap();
                    assert_eq!(errno_of(manager.allocate_and_retrieve_lock(id)), libc::EEXIST, "lock {id}, twice");
                    manager.free_lock(id).unwrap();
                }
            }
        }
    });
    for count in 1..=GROWTHS {
        manager.grow(FIRST + 64 * count).unwrap();
        grown.store(count, Ordering::Release);
    }
    over.store(1, Ordering::Release);
    allocator.succeeds();
    assert_eq!(manager.available_locks().unwrap(), FIRST + 64 * GROWTHS);
    drop(manager);
    ShmManager::remove(path).unwrap();
}

fn use_all_of(manager: &ShmManager) {
    assert!((0..64).all(|id| taken_once(manager, id) == Acquired::Clean));
    assert_eq!(manager.allocate_lock().unwrap(), 0);
    manager.free_all_locks().unwrap();
}

fn use_when_full(path: &Path) {
    let directory = path.parent().unwrap();
    let manager = ShmManager::create(path, 64, &options()).unwrap();
    write_out(path);
    let filler = fill(directory);
    let before = names_in(directory);
    // What was written out once is written out to the same place: else the second time would need room again.
    for _ in 0..3 {
        use_all_of(&manager);
        write_out(path);
    }
    fork(|| use_all_of(&manager)).succeeds();
    fork(|| match ShmManager::open(path, 0) {
        Ok(manager) => use_all_of(&manager),
        Err(error) => assert_eq!(error.errno(), libc::ENOSPC, "{error}"),
    })
    .succeeds();
    assert_eq!(errno_of(manager.grow(1_000_000)), libc::ENOSPC);
    assert_eq!(manager.num_locks().unwrap(), 64);
    let another = ShmManager::create(directory.join("another"), 1_000_000, &options());
    assert_eq!(errno_of(another), libc::ENOSPC);
    assert_eq!(names_in(directory), before);
    use_all_of(&manager);
    fs::remove_file(filler).unwrap();
    manager.grow(4096).unwrap();
    assert!((0..4096).all(|id| taken_once(&manager, id) == Acquired::Clean));
}

/// Most slots of a segment that is made for many locks have never been touched, and are passed over: those that are held
/// must not be.
fn see_held_among_many(path: &Path) {
    const COUNT: u32 = 20_000;
    const HELD: [u32; 5] = [0, 63, 6_000, 6_064, COUNT - 1];
    const READ: u32 = 12_345;
    let manager = ShmManager::create(path, COUNT, &options()).unwrap();
    let is_held = &board(1)[0];
    let holder = fork(|| {
        let manager = ShmManager::open(path, 0).unwrap();
        for id in HELD {
            assert_eq!(manager.lock(id).unwrap(), Acquired::Clean);
        }
        assert_eq!(manager.lock_shared(READ).unwrap(), Acquired::Clean);
        is_held.store(1, Ordering::Release);
        sleep_until_killed();
    });
    eventually("the locks are held", || is_held.load(Ordering::Acquire) == 1);
    let mut all = HELD.to_vec();
    all.insert(HELD.len() - 1, READ);
    for _ in 0..2 {
        assert_eq!(manager.locks_held().unwrap(), all);
        write_out(path);
    }
    let fresh = fork(|| assert_eq!(ShmManager::open_read_only(path).unwrap().locks_held().unwrap(), all));
    fresh.succeeds();
    holder.kill();
    assert_eq!(manager.locks_held().unwrap(), [0; 0]);
    drop(manager);
    ShmManager::remove(path).unwrap();
}

fn use_on(on: On) {
    let place = Segment::directory();
    let path = place.file();
    fork(|| {
        super::support::alone::allow(140);
        if !namespace::mounts_or_skip() {
            return;
        }
        let Some(directory) = mounted_or_skip(on, &path) else { return };
        let path = directory.join("locks");
        allocate_beside_growth(&path);
        see_held_among_many(&path);
        // It takes whatever memory there is.
        if !matches!(on, On::Memory("ramfs", _)) {
            use_when_full(&path);
            ShmManager::remove(&path).unwrap();
        }
        assert!(!path.exists());
    })
    .succeeds();
}

macro_rules! on_each {
    ($($test:ident: $on:expr;)*) => {
        $(#[test]
        fn $test() {
            alone!({ use_on($on) });
        })*
    };
}

on_each! {
    on_tmpfs: TMPFS;
    on_ramfs: RAMFS;
    on_ext2: EXT2;
    on_ext3: EXT3;
    on_ext4: EXT4;
    on_xfs: XFS;
    on_btrfs: BTRFS;
    on_an_overlay_on_tmpfs: On::Overlay(&TMPFS);
    on_an_overlay_on_ext4: On::Overlay(&EXT4);
    on_an_overlay_on_btrfs: On::Overlay(&BTRFS);
}
