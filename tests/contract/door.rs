// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two doors to a manager, behind one trait: failures are errno values, whichever way they came.

use std::ffi::{CString, c_char};
use std::ptr;
use std::time::Duration;

use lock_manager::{Acquired, Cancel, FileManager, InMemoryManager, Layout, LockInfo, Manager, Ownership};
use lock_manager::{SegmentOptions, ShmManager, Wait};

#[path = "sharing_door.rs"]
mod sharing;

use super::etcd;
use super::subject::Storage;
pub use sharing::{Held, Sharing};

/// Which way the tests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Rust,
    C,
}

pub type Outcome<T> = Result<T, i32>;

/// What the tests look at in a lock's info.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub allocated: bool,
    pub held: bool,
    pub owner_died: bool,
    pub pid: i32,
    pub tid: i32,
    pub by_process: bool,
}

/// A manager, whichever way it is reached.
pub trait Opened: Sharing + Send + Sync {
    fn allocate(&self) -> Outcome<u32>;
    fn retrieve(&self, id: u32) -> Outcome<()>;
    fn allocate_given(&self, id: u32) -> Outcome<()>;
    fn free(&self, id: u32) -> Outcome<()>;
    fn free_all(&self) -> Outcome<()>;
    fn available(&self) -> Outcome<u32>;
    fn num_locks(&self) -> Outcome<u32>;
    fn grow(&self, num_locks: u32) -> Outcome<()>;
    fn lock(&self, id: u32) -> Outcome<Acquired>;
    fn try_lock(&self, id: u32) -> Outcome<Acquired>;
    /// `u64::MAX`: without end.
    fn timed_lock(&self, id: u32, timeout_ns: u64) -> Outcome<Acquired>;
    fn cancellable_lock(&self, id: u32, timeout_ns: u64, cancel: &Cancel) -> Outcome<Acquired>;
    fn unlock(&self, id: u32) -> Outcome<()>;
    fn own_by_process(&self) -> Outcome<()>;
    fn held(&self) -> Outcome<Vec<u32>>;
    fn look(&self, id: u32) -> Outcome<Seen>;
    /// How many wait for it, and for how many nanoseconds the first has.
    fn waiters_of(&self, id: u32) -> Outcome<(u32, u64)>;
    /// Kind, layout, and whether it was removed, as the header numbers them.
    fn describe(&self) -> Outcome<(u32, u32, u32)>;
    fn repair(&self, id: u32) -> Outcome<()>;
    /// Closes it if it can be; it is not used any more then.
    fn close(&self) -> Outcome<()>;
}

/// Makes the storage, or opens it, as `making` says.
pub fn open(door: Door, storage: Storage, path: &str, num_locks: u32, making: Making) -> Outcome<Box<dyn Opened>> {
    match door {
        Door::Rust => {
            through_rust(storage, path, num_locks, making).map(|manager| Box::new(manager) as Box<dyn Opened>)
        }
        Door::C => through_c(storage, path, num_locks, making).map(|manager| Box::new(manager) as Box<dyn Opened>),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    New,
    Existing,
}

struct Rust(Box<dyn Manager>);

fn through_rust(storage: Storage, path: &str, num_locks: u32, making: Making) -> Outcome<Rust> {
    if storage == Storage::Etcd {
        return etcd::open(path, if making == Making::New { num_locks } else { 0 }).map(Rust);
    }
    let options = |layout| SegmentOptions::default().layout(layout);
    let manager: lock_manager::Result<Box<dyn Manager>> = match (storage, making) {
        (Storage::LibpodLayout, Making::New) => {
            ShmManager::create(path, num_locks, &options(Layout::Libpod)).map(|it| Box::new(it) as _)
        }
        (Storage::NativeLayout, Making::New) => {
            ShmManager::create(path, num_locks, &options(Layout::Native)).map(|it| Box::new(it) as _)
        }
        (Storage::LibpodLayout | Storage::NativeLayout, Making::Existing) => {
            ShmManager::open(path, num_locks).map(|it| Box::new(it) as _)
        }
        (Storage::Files, Making::New) => FileManager::create(path).map(|it| Box::new(it) as _),
        (Storage::Files, Making::Existing) => FileManager::open(path).map(|it| Box::new(it) as _),
        (Storage::InMemory | Storage::Etcd, _) => InMemoryManager::new(num_locks).map(|it| Box::new(it) as _),
    };
    manager.map(Rust).map_err(|error| error.errno())
}

fn errno<T>(result: lock_manager::Result<T>) -> Outcome<T> {
    result.map_err(|error| {
        assert!(!error.to_string().is_empty());
        error.errno()
    })
}

impl Opened for Rust {
    fn allocate(&self) -> Outcome<u32> {
        errno(self.0.allocate_lock())
    }
    fn retrieve(&self, id: u32) -> Outcome<()> {
        errno(self.0.retrieve_lock(id))
    }
    fn allocate_given(&self, id: u32) -> Outcome<()> {
        errno(self.0.allocate_and_retrieve_lock(id))
    }
    fn free(&self, id: u32) -> Outcome<()> {
        errno(self.0.free_lock(id))
    }
    fn free_all(&self) -> Outcome<()> {
        errno(self.0.free_all_locks())
    }
    fn available(&self) -> Outcome<u32> {
        errno(self.0.available_locks())
    }
    fn num_locks(&self) -> Outcome<u32> {
        errno(self.0.num_locks())
    }
    fn grow(&self, num_locks: u32) -> Outcome<()> {
        errno(self.0.grow(num_locks))
    }
    fn lock(&self, id: u32) -> Outcome<Acquired> {
        errno(self.0.lock(id))
    }
    fn try_lock(&self, id: u32) -> Outcome<Acquired> {
        errno(self.0.try_lock(id))
    }
    fn timed_lock(&self, id: u32, timeout_ns: u64) -> Outcome<Acquired> {
        errno(self.0.acquire(id, Wait::Nanoseconds(timeout_ns), None))
    }
    fn cancellable_lock(&self, id: u32, timeout_ns: u64, cancel: &Cancel) -> Outcome<Acquired> {
        let timeout = (timeout_ns != u64::MAX).then(|| Duration::from_nanos(timeout_ns));
        errno(self.0.cancellable_lock(id, timeout, cancel))
    }
    fn unlock(&self, id: u32) -> Outcome<()> {
        errno(self.0.unlock(id))
    }
    fn own_by_process(&self) -> Outcome<()> {
        errno(self.0.set_ownership(Ownership::Process))
    }
    fn held(&self) -> Outcome<Vec<u32>> {
        errno(self.0.locks_held())
    }
    fn look(&self, id: u32) -> Outcome<Seen> {
        let LockInfo { allocated, held, owner_died, pid, tid, ownership, .. } = errno(self.0.lock_info(id))?;
        Ok(Seen { allocated, held, owner_died, pid, tid, by_process: ownership == Ownership::Process })
    }
    fn waiters_of(&self, id: u32) -> Outcome<(u32, u64)> {
        errno(self.0.lock_info(id)).map(|info| (info.waiters, info.waited_ns))
    }
    fn describe(&self) -> Outcome<(u32, u32, u32)> {
        let info = errno(self.0.info())?;
        let kind = match info.kind {
            lock_manager::Kind::Shm => 0,
            lock_manager::Kind::File => 1,
            lock_manager::Kind::InMemory => 2,
            lock_manager::Kind::Backend => 3,
            _ => panic!("a kind that the header does not number"),
        };
        Ok((kind, info.layout.map_or(0, |layout| if layout == Layout::Libpod { 1 } else { 2 }), info.retired.into()))
    }
    fn repair(&self, id: u32) -> Outcome<()> {
        errno(self.0.repair_lock(id))
    }
    fn close(&self) -> Outcome<()> {
        errno(self.0.check_idle())
    }
}

/// What the header declares, of which the tests know the address only.
#[repr(C)]
struct Handle([u8; 0]);

#[repr(C)]
#[derive(Default)]
struct Info {
    size: usize,
    id: u32,
    allocated: u32,
    held: u32,
    owner_died: u32,
    pid: i32,
    tid: i32,
    waiters: u32,
    ownership: u32,
    acquisitions: u64,
    pid_namespace: u64,
    waited_ns: u64,
    readers: u32,
    draining: u32,
}

#[repr(C)]
#[derive(Default)]
struct StorageInfo {
    size: usize,
    kind: u32,
    layout: u32,
    num_locks: u32,
    max_locks: u32,
    attached: u32,
    retired: u32,
}

#[repr(C)]
struct Options {
    size: usize,
    layout: u32,
    max_locks: u32,
    mode: u32,
    flags: u32,
}

unsafe extern "C" {
    fn lock_manager_new_shm(path: *const c_char, locks: u32, options: *const Options, out: *mut *mut Handle) -> i32;
    fn lock_manager_open_shm(path: *const c_char, locks: u32, out: *mut *mut Handle) -> i32;
    fn lock_manager_new_file(directory: *const c_char, out: *mut *mut Handle) -> i32;
    fn lock_manager_open_file(directory: *const c_char, out: *mut *mut Handle) -> i32;
    fn lock_manager_new_in_memory(locks: u32, out: *mut *mut Handle) -> i32;
    fn lock_manager_close(manager: *mut Handle) -> i32;
    fn lock_manager_last_error() -> *const c_char;
    fn lock_manager_allocate_lock(manager: *mut Handle, id: *mut u32) -> i32;
    fn lock_manager_retrieve_lock(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_allocate_and_retrieve_lock(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_free_lock(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_free_all_locks(manager: *mut Handle) -> i32;
    fn lock_manager_available_locks(manager: *mut Handle, count: *mut u32) -> i32;
    fn lock_manager_num_locks(manager: *mut Handle, count: *mut u32) -> i32;
    fn lock_manager_grow(manager: *mut Handle, num_locks: u32) -> i32;
    fn lock_manager_lock(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_try_lock(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_timed_lock(manager: *mut Handle, id: u32, timeout_ns: u64) -> i32;
    // A Cancel is what the header's lock_manager_cancel_t points to.
    fn lock_manager_cancellable_lock(manager: *mut Handle, id: u32, timeout_ns: u64, cancel: *const Cancel) -> i32;
    fn lock_manager_unlock(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_set_ownership(manager: *mut Handle, ownership: u32) -> i32;
    fn lock_manager_locks_held(manager: *mut Handle, ids: *mut u32, capacity: usize, count: *mut usize) -> i32;
    fn lock_manager_lock_info(manager: *mut Handle, id: u32, info: *mut Info) -> i32;
    fn lock_manager_info(manager: *mut Handle, info: *mut StorageInfo) -> i32;
    fn lock_manager_repair_lock(manager: *mut Handle, id: u32) -> i32;
}

struct C(*mut Handle);

// SAFETY: the header allows any number of threads on a manager.
unsafe impl Send for C {}
// SAFETY: as above.
unsafe impl Sync for C {}

fn through_c(storage: Storage, path: &str, num_locks: u32, making: Making) -> Outcome<C> {
    let path = CString::new(path).unwrap();
    let mut handle = ptr::null_mut();
    let layout = if storage == Storage::NativeLayout { 2 } else { 1 };
    let options = Options { size: size_of::<Options>(), layout, max_locks: 0, mode: 0, flags: 0 };
    // SAFETY: as the header says of each function; all pointers are to locals.
    let code = unsafe {
        match (storage, making) {
            (Storage::LibpodLayout | Storage::NativeLayout, Making::New) => {
                lock_manager_new_shm(path.as_ptr(), num_locks, &raw const options, &raw mut handle)
            }
            (Storage::LibpodLayout | Storage::NativeLayout, Making::Existing) => {
                lock_manager_open_shm(path.as_ptr(), num_locks, &raw mut handle)
            }
            (Storage::Files, Making::New) => lock_manager_new_file(path.as_ptr(), &raw mut handle),
            (Storage::Files, Making::Existing) => lock_manager_open_file(path.as_ptr(), &raw mut handle),
            (Storage::InMemory, _) => lock_manager_new_in_memory(num_locks, &raw mut handle),
            (Storage::Etcd, Making::New) => etcd::open_through_c(path.as_ptr(), num_locks, (&raw mut handle).cast()),
            (Storage::Etcd, Making::Existing) => etcd::open_through_c(path.as_ptr(), 0, (&raw mut handle).cast()),
        }
    };
    done(code).map(|()| C(handle))
}

/// A code of the C functions as an outcome.
fn code(code: i32) -> Outcome<Acquired> {
    match code {
        0 => Ok(Acquired::Clean),
        1 => Ok(Acquired::OwnerDied),
        failure if failure < 0 => {
            // SAFETY: never NULL, and valid until this thread's next failure.
            assert_ne!(unsafe { *lock_manager_last_error() }, 0, "a failure without a word");
            Err(-failure)
        }
        unknown => panic!("the header knows no success {unknown}"),
    }
}

fn done(result: i32) -> Outcome<()> {
    code(result).map(|acquired| assert_eq!(acquired, Acquired::Clean))
}

/// Calls a function of the header on a manager that is open, with pointers to locals.
macro_rules! c {
    ($function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: see above.
        unsafe { $function($($argument),*) }
    };
}

impl Opened for C {
    fn allocate(&self) -> Outcome<u32> {
        let mut id = 0;
        done(c!(lock_manager_allocate_lock(self.0, &raw mut id))).map(|()| id)
    }
    fn retrieve(&self, id: u32) -> Outcome<()> {
        done(c!(lock_manager_retrieve_lock(self.0, id)))
    }
    fn allocate_given(&self, id: u32) -> Outcome<()> {
        done(c!(lock_manager_allocate_and_retrieve_lock(self.0, id)))
    }
    fn free(&self, id: u32) -> Outcome<()> {
        done(c!(lock_manager_free_lock(self.0, id)))
    }
    fn free_all(&self) -> Outcome<()> {
        done(c!(lock_manager_free_all_locks(self.0)))
    }
    fn available(&self) -> Outcome<u32> {
        let mut count = 0;
        done(c!(lock_manager_available_locks(self.0, &raw mut count))).map(|()| count)
    }
    fn num_locks(&self) -> Outcome<u32> {
        let mut count = 0;
        done(c!(lock_manager_num_locks(self.0, &raw mut count))).map(|()| count)
    }
    fn grow(&self, num_locks: u32) -> Outcome<()> {
        done(c!(lock_manager_grow(self.0, num_locks)))
    }
    fn lock(&self, id: u32) -> Outcome<Acquired> {
        code(c!(lock_manager_lock(self.0, id)))
    }
    fn try_lock(&self, id: u32) -> Outcome<Acquired> {
        code(c!(lock_manager_try_lock(self.0, id)))
    }
    fn timed_lock(&self, id: u32, timeout_ns: u64) -> Outcome<Acquired> {
        code(c!(lock_manager_timed_lock(self.0, id, timeout_ns)))
    }
    fn cancellable_lock(&self, id: u32, timeout_ns: u64, cancel: &Cancel) -> Outcome<Acquired> {
        code(c!(lock_manager_cancellable_lock(self.0, id, timeout_ns, cancel)))
    }
    fn unlock(&self, id: u32) -> Outcome<()> {
        done(c!(lock_manager_unlock(self.0, id)))
    }
    fn own_by_process(&self) -> Outcome<()> {
        done(c!(lock_manager_set_ownership(self.0, 1)))
    }
    fn held(&self) -> Outcome<Vec<u32>> {
        let held = |ids: &mut [u32]| -> Outcome<usize> {
            let mut count = 0;
            let place = if ids.is_empty() { ptr::null_mut() } else { ids.as_mut_ptr() };
            done(c!(lock_manager_locks_held(self.0, place, ids.len(), &raw mut count)))?;
            Ok(count)
        };
        loop {
            let count = held(&mut [])?;
            // One less than there are, then room to spare: neither is written beyond.
            let mut ids = vec![u32::MAX; count + 1];
            let less = held(&mut ids[..count.saturating_sub(1)])?;
            assert_eq!(ids[count.saturating_sub(1)], u32::MAX);
            let more = held(&mut ids)?;
            // Other threads may take and release meanwhile.
            if (less, more) == (count, count) {
                assert_eq!(ids.pop(), Some(u32::MAX));
                return Ok(ids);
            }
        }
    }
    fn look(&self, id: u32) -> Outcome<Seen> {
        let mut info = Info { size: size_of::<Info>(), ..Info::default() };
        done(c!(lock_manager_lock_info(self.0, id, &raw mut info)))?;
        assert_eq!(info.id, id);
        Ok(Seen {
            allocated: info.allocated != 0,
            held: info.held != 0,
            owner_died: info.owner_died != 0,
            pid: info.pid,
            tid: info.tid,
            by_process: info.ownership == 1,
        })
    }
    fn waiters_of(&self, id: u32) -> Outcome<(u32, u64)> {
        let mut info = Info { size: size_of::<Info>(), ..Info::default() };
        done(c!(lock_manager_lock_info(self.0, id, &raw mut info))).map(|()| (info.waiters, info.waited_ns))
    }
    fn describe(&self) -> Outcome<(u32, u32, u32)> {
        let mut info = StorageInfo { size: size_of::<StorageInfo>(), ..StorageInfo::default() };
        done(c!(lock_manager_info(self.0, &raw mut info)))?;
        Ok((info.kind, info.layout, info.retired))
    }
    fn repair(&self, id: u32) -> Outcome<()> {
        done(c!(lock_manager_repair_lock(self.0, id)))
    }
    fn close(&self) -> Outcome<()> {
        done(c!(lock_manager_close(self.0)))
    }
}
