// SPDX-License-Identifier: MIT OR Apache-2.0
//! The built shared library, loaded as a plugin would be.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::contenders::PairCall;

pub type Manager = *mut c_void;
pub type Cancel = *mut c_void;

/// lock_manager_shm_options_t.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Options {
    size: usize,
    layout: u32,
    max_locks: u32,
    mode: u32,
    flags: u32,
}

/// LOCK_MANAGER_LAYOUT_…
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    Libpod = 1,
    Native = 2,
}

impl Layout {
    pub const BOTH: [Self; 2] = [Self::Native, Self::Libpod];

    /// What the figures of this layout are called.
    pub fn contender(self) -> &'static str {
        match self {
            Self::Native => crate::contenders::NATIVE,
            Self::Libpod => crate::contenders::LIBPOD,
        }
    }
}

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*);)*) => {
        /// Its functions, by the names of the header without the prefix.
        pub struct Library {
            $(pub $name: unsafe extern "C" fn($($argument),*) -> i32,)*
            last_error: unsafe extern "C" fn() -> *const c_char,
            version: unsafe extern "C" fn() -> *const c_char,
            prefix: PathBuf,
        }

        impl Library {
            fn load(prefix: &Path) -> Self {
                let object = SharedObject::open(&prefix.join("lib/liblock_manager.so.0"));
                Self {
                    $($name: object.function(concat!("lock_manager_", stringify!($name))),)*
                    last_error: object.function("lock_manager_last_error"),
                    version: object.function("lock_manager_version"),
                    prefix: prefix.to_owned(),
                }
            }
        }
    };
}

functions! {
    new_shm: fn(*const c_char, u32, *const Options, *mut Manager);
    open_shm: fn(*const c_char, u32, *mut Manager);
    remove_shm: fn(*const c_char);
    new_in_memory: fn(u32, *mut Manager);
    open_file: fn(*const c_char, *mut Manager);
    close: fn(Manager);
    allocate_lock: fn(Manager, *mut u32);
    free_lock: fn(Manager, u32);
    available_locks: fn(Manager, *mut u32);
    grow: fn(Manager, u32);
    locks_held: fn(Manager, *mut u32, usize, *mut usize);
    lock: fn(Manager, u32);
    try_lock: fn(Manager, u32);
    timed_lock: fn(Manager, u32, u64);
    unlock: fn(Manager, u32);
    lock_shared: fn(Manager, u32);
    unlock_shared: fn(Manager, u32);
    downgrade_lock: fn(Manager, u32);
    cancel_new: fn(*mut Cancel);
    cancel_trigger: fn(Cancel);
    cancel_free: fn(Cancel);
    cancellable_lock: fn(Manager, u32, u64, Cancel);
}

static LIBRARY: OnceLock<Library> = OnceLock::new();

/// Loads the library that is installed there; once, before anything is measured.
pub fn load(prefix: &Path) {
    LIBRARY.get_or_init(|| Library::load(prefix));
}

/// The library that was loaded.
pub fn library() -> &'static Library {
    LIBRARY.get().expect("main() loads it first")
}

pub fn version() -> &'static str {
    // SAFETY: the function returns a constant string.
    unsafe { CStr::from_ptr((library().version)()) }.to_str().unwrap_or("?")
}

/// A success, or the end of the program in the library's own words.
#[track_caller]
pub fn check(code: i32) {
    if code < 0 {
        // SAFETY: the function is always there and its result is a string.
        let why = unsafe { CStr::from_ptr((library().last_error)()) };
        panic!("{code}: {}", why.to_string_lossy());
    }
}

impl Library {
    pub fn pair(&self) -> [PairCall; 2] {
        [self.lock, self.unlock]
    }

    pub fn shared_pair(&self) -> [PairCall; 2] {
        [self.lock_shared, self.unlock_shared]
    }

    /// Where it is installed.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    pub fn in_memory(&self, num_locks: u32) -> Manager {
        let mut manager = std::ptr::null_mut();
        // SAFETY: as the header says: a number and a place for the result.
        check(unsafe { (self.new_in_memory)(num_locks, &mut manager) });
        manager
    }

    pub fn open(&self, path: &CStr) -> Manager {
        let mut manager = std::ptr::null_mut();
        // SAFETY: as the header says: a string and a place for the result.
        check(unsafe { (self.open_shm)(path.as_ptr(), 0, &mut manager) });
        manager
    }

    pub fn open_files(&self, directory: &CStr) -> Manager {
        let mut manager = std::ptr::null_mut();
        // SAFETY: as above.
        check(unsafe { (self.open_file)(directory.as_ptr(), &mut manager) });
        manager
    }

    /// Takes a lock, whether or not its last holder died.
    pub fn take(&self, manager: Manager, id: u32) {
        // SAFETY: the manager is open.
        check(unsafe { (self.lock)(manager, id) });
    }

    pub fn give_back(&self, manager: Manager, id: u32) {
        // SAFETY: the manager is open.
        check(unsafe { (self.unlock)(manager, id) });
    }

    pub fn allocate(&self, manager: Manager) -> u32 {
        let mut id = 0;
        // SAFETY: the manager is open and the id writable.
        check(unsafe { (self.allocate_lock)(manager, &mut id) });
        id
    }

    pub fn free(&self, manager: Manager, id: u32) {
        // SAFETY: the manager is open.
        check(unsafe { (self.free_lock)(manager, id) });
    }

    pub fn close(&self, manager: Manager) {
        // SAFETY: an open manager, which the caller uses no more.
        check(unsafe { (self.close)(manager) });
    }

    /// How many locks are held.
    pub fn count_held(&self, manager: Manager, ids: &mut [u32]) -> usize {
        let mut count = 0;
        // SAFETY: as the header says: room for as many ids as are said, and a place for the count.
        check(unsafe { (self.locks_held)(manager, ids.as_mut_ptr(), ids.len(), &mut count) });
        count
    }
}

/// A segment of the benchmark's own, which goes with its value.
pub struct Segment {
    pub path: CString,
    pub manager: Manager,
}

impl Segment {
    pub fn new(layout: Layout, num_locks: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/lock_manager-bench-{}-{count}", std::process::id());
        let path = CString::new(path).expect("no NUL");
        let mut manager = std::ptr::null_mut();
        let options = Options { size: size_of::<Options>(), layout: layout as u32, max_locks: 0, mode: 0, flags: 0 };
        // SAFETY: as the header says: a string, options, a place for the result.
        check(unsafe { (library().new_shm)(path.as_ptr(), num_locks, &options, &mut manager) });
        Self { path, manager }
    }

    /// Takes its name away.
    pub fn remove(&self) -> i32 {
        // SAFETY: as the header says.
        unsafe { (library().remove_shm)(self.path.as_ptr()) }
    }

    /// Where the file system has it.
    pub fn file(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm{}", self.path.to_string_lossy()))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // It may be gone.
        self.remove();
        // SAFETY: the manager is open and nobody uses it any more.
        unsafe { (library().close)(self.manager) };
    }
}

/// What dlopen(3) loaded; for good.
pub struct SharedObject(*mut c_void);

impl SharedObject {
    pub fn open(path: &Path) -> Self {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path has no NUL");
        // SAFETY: dlopen(3) of a library; the name is a string.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "{} cannot be loaded; `make bench` builds it", path.display());
        Self(handle)
    }

    pub fn find(&self, name: &str) -> Option<*mut c_void> {
        let name = CString::new(name).expect("a name has no NUL");
        // SAFETY: dlsym(3) on an open handle.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }

    /// The function of that name, which has the type that the caller wants.
    pub fn function<F: Copy>(&self, name: &str) -> F {
        let address = self.find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(size_of::<F>(), size_of_val(&address), "a function's address");
        // SAFETY: F is the type of the function in its header, and as large as an address.
        unsafe { std::mem::transmute_copy(&address) }
    }
}
