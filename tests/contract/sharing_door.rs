// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same two doors to shared locks.

use std::time::Duration;

use lock_manager::{Acquired, Cancel, Holder, Ownership, Wait};

use super::{C, Handle, Info, Outcome, Rust, code, done, errno, lock_manager_lock_info};

/// What the tests look at in a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    pub pid: i32,
    pub tid: i32,
    pub shared: bool,
    pub by_process: bool,
}

/// A manager's shared locks, whichever way it is reached.
pub trait Sharing {
    fn lock_shared(&self, id: u32) -> Outcome<Acquired>;
    fn try_lock_shared(&self, id: u32) -> Outcome<Acquired>;
    /// `u64::MAX`: without end.
    fn timed_lock_shared(&self, id: u32, timeout_ns: u64) -> Outcome<Acquired>;
    fn cancellable_lock_shared(&self, id: u32, timeout_ns: u64, cancel: &Cancel) -> Outcome<Acquired>;
    fn unlock_shared(&self, id: u32) -> Outcome<()>;
    fn downgrade(&self, id: u32) -> Outcome<()>;
    fn holders(&self, id: u32) -> Outcome<Vec<Held>>;
    /// How many read it, and whether a writer waits for them.
    fn readers(&self, id: u32) -> Outcome<(u32, bool)>;
}

impl Sharing for Rust {
    fn lock_shared(&self, id: u32) -> Outcome<Acquired> {
        errno(self.0.lock_shared(id))
    }
    fn try_lock_shared(&self, id: u32) -> Outcome<Acquired> {
        errno(self.0.try_lock_shared(id))
    }
    fn timed_lock_shared(&self, id: u32, timeout_ns: u64) -> Outcome<Acquired> {
        errno(self.0.acquire_shared(id, Wait::Nanoseconds(timeout_ns), None))
    }
    fn cancellable_lock_shared(&self, id: u32, timeout_ns: u64, cancel: &Cancel) -> Outcome<Acquired> {
        let timeout = (timeout_ns != u64::MAX).then(|| Duration::from_nanos(timeout_ns));
        errno(self.0.cancellable_lock_shared(id, timeout, cancel))
    }
    fn unlock_shared(&self, id: u32) -> Outcome<()> {
        errno(self.0.unlock_shared(id))
    }
    fn downgrade(&self, id: u32) -> Outcome<()> {
        errno(self.0.downgrade_lock(id))
    }
    fn holders(&self, id: u32) -> Outcome<Vec<Held>> {
        let held = |&Holder { pid, tid, shared, ownership, .. }: &Holder| Held {
            pid,
            tid,
            shared,
            by_process: ownership == Ownership::Process,
        };
        errno(self.0.lock_holders(id)).map(|holders| holders.iter().map(held).collect())
    }
    fn readers(&self, id: u32) -> Outcome<(u32, bool)> {
        errno(self.0.lock_info(id)).map(|info| (info.readers, info.draining))
    }
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CHolder {
    size: usize,
    pid: i32,
    tid: i32,
    shared: u32,
    ownership: u32,
    pid_namespace: u64,
}

unsafe extern "C" {
    fn lock_manager_lock_shared(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_try_lock_shared(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_timed_lock_shared(manager: *mut Handle, id: u32, timeout_ns: u64) -> i32;
    fn lock_manager_cancellable_lock_shared(
        manager: *mut Handle,
        id: u32,
        timeout_ns: u64,
        cancel: *const Cancel,
    ) -> i32;
    fn lock_manager_unlock_shared(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_downgrade_lock(manager: *mut Handle, id: u32) -> i32;
    fn lock_manager_lock_holders(
        manager: *mut Handle,
        id: u32,
        holders: *mut CHolder,
        capacity: usize,
        count: *mut usize,
    ) -> i32;
}

/// As the macro in the parent module.
macro_rules! c {
    ($function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: as there.
        unsafe { $function($($argument),*) }
    };
}

impl Sharing for C {
    fn lock_shared(&self, id: u32) -> Outcome<Acquired> {
        code(c!(lock_manager_lock_shared(self.0, id)))
    }
    fn try_lock_shared(&self, id: u32) -> Outcome<Acquired> {
        code(c!(lock_manager_try_lock_shared(self.0, id)))
    }
    fn timed_lock_shared(&self, id: u32, timeout_ns: u64) -> Outcome<Acquired> {
        code(c!(lock_manager_timed_lock_shared(self.0, id, timeout_ns)))
    }
    fn cancellable_lock_shared(&self, id: u32, timeout_ns: u64, cancel: &Cancel) -> Outcome<Acquired> {
        code(c!(lock_manager_cancellable_lock_shared(self.0, id, timeout_ns, cancel)))
    }
    fn unlock_shared(&self, id: u32) -> Outcome<()> {
        done(c!(lock_manager_unlock_shared(self.0, id)))
    }
    fn downgrade(&self, id: u32) -> Outcome<()> {
        done(c!(lock_manager_downgrade_lock(self.0, id)))
    }
    fn holders(&self, id: u32) -> Outcome<Vec<Held>> {
        const ROOM: usize = 64;
        let mut all = [CHolder { size: size_of::<CHolder>(), pid: -1, ..CHolder::default() }; ROOM];
        let mut count = 0;
        done(c!(lock_manager_lock_holders(self.0, id, all.as_mut_ptr(), ROOM, &raw mut count)))?;
        assert!(all[count..].iter().all(|beyond| beyond.pid == -1), "written beyond what there is");
        let held = |holder: &CHolder| Held {
            pid: holder.pid,
            tid: holder.tid,
            shared: holder.shared == 1,
            by_process: holder.ownership == 1,
        };
        Ok(all[..count].iter().map(held).collect())
    }
    fn readers(&self, id: u32) -> Outcome<(u32, bool)> {
        let mut info = Info { size: size_of::<Info>(), ..Info::default() };
        done(c!(lock_manager_lock_info(self.0, id, &raw mut info))).map(|()| (info.readers, info.draining != 0))
    }
}
