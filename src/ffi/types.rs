// SPDX-License-Identifier: MIT OR Apache-2.0
//! The structs of the C interface. Each begins with its size, so that fields can be appended. The library does not write
//! fields that the caller does not know. Fields that the library does not know must be zero in options, and are set to zero
//! in infos.

use std::mem::offset_of;
use std::ptr;

use crate::Result;
use crate::manager::{Holder, Info, Kind, Layout, LockInfo, Ownership};
use crate::shm::SegmentOptions;

use super::boundary::refuse;
use super::{
    LOCK_MANAGER_KIND_BACKEND, LOCK_MANAGER_KIND_FILE, LOCK_MANAGER_KIND_IN_MEMORY, LOCK_MANAGER_KIND_SHM,
    LOCK_MANAGER_LAYOUT_DEFAULT, LOCK_MANAGER_LAYOUT_LIBPOD, LOCK_MANAGER_LAYOUT_NATIVE, LOCK_MANAGER_OWNED_BY_PROCESS,
    LOCK_MANAGER_OWNED_BY_THREAD,
};

/// Options for a new segment. Zero in a field means the default.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lock_manager_shm_options_t {
    /// sizeof(lock_manager_shm_options_t)
    pub size: usize,
    /// LOCK_MANAGER_LAYOUT_…
    pub layout: u32,
    /// The number of locks that a native segment may grow to; 0 means 1048576, or num_locks if that is more. The libpod
    /// layout cannot grow and ignores this field.
    pub max_locks: u32,
    /// The permission bits of the segment, at most 0777; 0 means 0600. The umask does not apply.
    pub mode: u32,
    /// Must be 0: no flag is defined yet, and any bit is -EINVAL.
    pub flags: u32,
}

/// The state of one lock.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lock_manager_lock_info_t {
    /// sizeof(lock_manager_lock_info_t)
    pub size: usize,
    /// The id of the lock.
    pub id: u32,
    /// 1 if the lock is allocated, else 0.
    pub allocated: u32,
    /// 1 if somebody holds the lock, shared or exclusively, else 0.
    pub held: u32,
    /// 1 if the last exclusive holder died and nobody has held the lock exclusively since, else 0.
    pub owner_died: u32,
    /// The process id of the holder, as the caller's PID namespace sees it; 0 if unknown.
    pub pid: i32,
    /// The thread id of the holder, as the caller's PID namespace sees it; 0 if unknown.
    pub tid: i32,
    /// The number of threads known to wait; 0 if the storage does not say.
    pub waiters: u32,
    /// LOCK_MANAGER_OWNED_BY_…
    pub ownership: u32,
    /// How often the lock was acquired exclusively; 0 if the storage does not count.
    pub acquisitions: u64,
    /// The PID namespace of the holder, as the inode number of /proc/PID/ns/pid; 0 if unknown.
    pub pid_namespace: u64,
    /// For how long the longest waiter has waited, in nanoseconds. The lock has been held at least that long.
    pub waited_ns: u64,
    /// The number of readers; pid and tid then belong to the first of them. This field and the next came after 0.1.0.
    pub readers: u32,
    /// 1 if a writer waits for the readers to leave and keeps later readers out, else 0. That writer counts as a waiter.
    pub draining: u32,
}

/// One holder of a lock.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lock_manager_holder_t {
    /// sizeof(lock_manager_holder_t)
    pub size: usize,
    /// Its process id, as the caller's PID namespace sees it; 0 if unknown.
    pub pid: i32,
    /// Its thread id, as the caller's PID namespace sees it; 0 if unknown, or if the hold belongs to the process.
    pub tid: i32,
    /// 1 if it holds the lock shared, 0 if exclusively.
    pub shared: u32,
    /// LOCK_MANAGER_OWNED_BY_…
    pub ownership: u32,
    /// Its PID namespace, as the inode number of /proc/PID/ns/pid; 0 if unknown.
    pub pid_namespace: u64,
}

/// The state of a manager's storage.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct lock_manager_info_t {
    /// sizeof(lock_manager_info_t)
    pub size: usize,
    /// LOCK_MANAGER_KIND_…
    pub kind: u32,
    /// LOCK_MANAGER_LAYOUT_… for a segment, else 0.
    pub layout: u32,
    /// The number of locks; LOCK_MANAGER_UNLIMITED if there is no maximum.
    pub num_locks: u32,
    /// The number of locks that the storage may grow to; LOCK_MANAGER_UNLIMITED if there is no maximum.
    pub max_locks: u32,
    /// The number of processes that have the storage open; 0 if the storage does not say.
    pub attached: u32,
    /// 1 if the storage was removed, else 0.
    pub retired: u32,
}

impl From<LockInfo> for lock_manager_lock_info_t {
    fn from(info: LockInfo) -> Self {
        Self {
            size: size_of::<Self>(),
            id: info.id,
            allocated: info.allocated.into(),
            held: info.held.into(),
            owner_died: info.owner_died.into(),
            pid: info.pid,
            tid: info.tid,
            waiters: info.waiters,
            ownership: number_of(info.ownership),
            acquisitions: info.acquisitions,
            pid_namespace: info.pid_namespace,
            waited_ns: info.waited_ns,
            readers: info.readers,
            draining: info.draining.into(),
        }
    }
}

impl From<&Holder> for lock_manager_holder_t {
    fn from(holder: &Holder) -> Self {
        Self {
            size: size_of::<Self>(),
            pid: holder.pid,
            tid: holder.tid,
            shared: holder.shared.into(),
            ownership: number_of(holder.ownership),
            pid_namespace: holder.pid_namespace,
        }
    }
}

fn number_of(ownership: Ownership) -> u32 {
    match ownership {
        Ownership::Thread => LOCK_MANAGER_OWNED_BY_THREAD,
        Ownership::Process => LOCK_MANAGER_OWNED_BY_PROCESS,
    }
}

impl From<Info> for lock_manager_info_t {
    fn from(info: Info) -> Self {
        Self {
            size: size_of::<Self>(),
            kind: match info.kind {
                Kind::Shm => LOCK_MANAGER_KIND_SHM,
                Kind::File => LOCK_MANAGER_KIND_FILE,
                Kind::InMemory => LOCK_MANAGER_KIND_IN_MEMORY,
                Kind::Backend => LOCK_MANAGER_KIND_BACKEND,
            },
            layout: match info.layout {
                None => LOCK_MANAGER_LAYOUT_DEFAULT,
                Some(Layout::Libpod) => LOCK_MANAGER_LAYOUT_LIBPOD,
                Some(Layout::Native) => LOCK_MANAGER_LAYOUT_NATIVE,
            },
            num_locks: info.num_locks,
            max_locks: info.max_locks,
            attached: info.attached,
            retired: info.retired.into(),
        }
    }
}

/// The ownership that a number from C names.
pub(super) fn ownership(number: u32) -> Result<Ownership> {
    match number {
        LOCK_MANAGER_OWNED_BY_THREAD => Ok(Ownership::Thread),
        LOCK_MANAGER_OWNED_BY_PROCESS => Ok(Ownership::Process),
        _ => Err(refuse("the ownership is unknown; use LOCK_MANAGER_OWNED_BY_THREAD or LOCK_MANAGER_OWNED_BY_PROCESS")),
    }
}

/// A struct that begins with its size in bytes, as the caller was compiled with it.
///
/// # Safety
/// `repr(C)`, first field `size: usize`, and any bytes are valid for every field.
pub(super) unsafe trait Versioned {
    /// The size in the first version that had it, up to its last field then: what every caller has at least. It differs with
    /// the width and the alignment of the machine's numbers.
    const FIRST_SIZE: usize;
}

// SAFETY: as the declarations above show.
unsafe impl Versioned for lock_manager_shm_options_t {
    const FIRST_SIZE: usize = offset_of!(Self, flags) + size_of::<u32>();
}
// SAFETY: as the declarations above show.
unsafe impl Versioned for lock_manager_lock_info_t {
    const FIRST_SIZE: usize = offset_of!(Self, waited_ns) + size_of::<u64>();
}
// SAFETY: as the declarations above show.
unsafe impl Versioned for lock_manager_holder_t {
    const FIRST_SIZE: usize = offset_of!(Self, pid_namespace) + size_of::<u64>();
}
// SAFETY: as the declarations above show.
unsafe impl Versioned for lock_manager_info_t {
    const FIRST_SIZE: usize = offset_of!(Self, retired) + size_of::<u32>();
}
// No field has been appended to these structs yet. A field that is appended fails the check; then look again at the
// functions that read the struct or hand it out.
const _: () = assert!(size_of::<lock_manager_shm_options_t>() == lock_manager_shm_options_t::FIRST_SIZE);
const _: () = assert!(size_of::<lock_manager_holder_t>() == lock_manager_holder_t::FIRST_SIZE);
const _: () = assert!(size_of::<lock_manager_info_t>() == lock_manager_info_t::FIRST_SIZE);

/// More than any version's struct has. A larger size means that the caller did not set it.
const LARGEST_STRUCT: usize = 4096;

/// How large the caller says its struct is: at least as large as the first version's.
///
/// # Safety
/// `address` is NULL or points to readable memory for a `size_t`.
pub(super) unsafe fn struct_size<T: Versioned>(address: *const T) -> Result<usize> {
    if address.is_null() {
        return Err(refuse("the struct is NULL; give one with its size field set"));
    }
    // SAFETY: this function's own contract; the size is the first field.
    let size = unsafe { address.cast::<usize>().read_unaligned() };
    if size < T::FIRST_SIZE {
        return Err(refuse(
            "the size in the struct is smaller than in any version; set it to the sizeof of the struct",
        ));
    }
    if size > LARGEST_STRUCT {
        return Err(refuse("the size in the struct is implausible; set it to the sizeof of the struct"));
    }
    Ok(size)
}

/// Copies as much of a struct out as the caller knows, and zeroes what the caller has beyond it.
///
/// # Safety
/// `address` points to `size` writable bytes, at least as many as the first version had.
pub(super) unsafe fn hand_out<T: Versioned>(address: *mut T, size: usize, value: &T) {
    let known = size_of::<T>().min(size);
    // SAFETY: this function's own contract; the caller's own size stays as it was given.
    unsafe {
        address.cast::<u8>().copy_from_nonoverlapping(ptr::from_ref(value).cast(), known);
        address.cast::<u8>().add(known).write_bytes(0, size - known);
        address.cast::<usize>().write_unaligned(size);
    }
}

/// Copies as many structs out as the caller has room for, each of the size that the first says.
///
/// # Safety
/// `address` points to `capacity` structs of the size that the first of them says, or is NULL and `capacity` is 0.
pub(super) unsafe fn hand_out_all<T: Versioned>(address: *mut T, capacity: usize, values: &[T]) -> Result<()> {
    if capacity == 0 {
        return Ok(());
    }
    // SAFETY: this function's own contract.
    unsafe {
        let size = struct_size(address)?;
        for (index, value) in values.iter().take(capacity).enumerate() {
            hand_out(address.byte_add(index * size), size, value);
        }
    }
    Ok(())
}

/// The options that C handed in; NULL means the defaults.
///
/// # Safety
/// `options` is NULL or points to as many readable bytes as its `size` says.
pub(super) unsafe fn segment_options(options: *const lock_manager_shm_options_t) -> Result<SegmentOptions> {
    if options.is_null() {
        return Ok(SegmentOptions::default());
    }
    let known = size_of::<lock_manager_shm_options_t>();
    // SAFETY: this function's own contract.
    let (given, beyond) = unsafe {
        let size = struct_size(options)?;
        let beyond = std::slice::from_raw_parts(options.cast::<u8>().add(known), size - known);
        (options.read_unaligned(), beyond)
    };
    if beyond.iter().any(|&byte| byte != 0) {
        return Err(refuse(
            "the options set a field that this version of the library does not know; update the library",
        ));
    }
    if given.flags != 0 {
        return Err(refuse("the options set a flag, but no flag is defined yet; set flags to 0"));
    }
    let options = SegmentOptions::default().mode(given.mode).max_locks(given.max_locks);
    match given.layout {
        LOCK_MANAGER_LAYOUT_DEFAULT => Ok(options),
        LOCK_MANAGER_LAYOUT_LIBPOD => Ok(options.layout(Layout::Libpod)),
        LOCK_MANAGER_LAYOUT_NATIVE => Ok(options.layout(Layout::Native)),
        _ => Err(refuse("the layout is unknown; use LOCK_MANAGER_LAYOUT_DEFAULT, _LIBPOD or _NATIVE")),
    }
}
