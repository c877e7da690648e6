// SPDX-License-Identifier: MIT OR Apache-2.0
//! The built shared library, loaded as a plugin would be.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub type Manager = *mut c_void;

/// lock_manager_shm_options_t.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Options {
    pub size: usize,
    pub layout: u32,
    pub max_locks: u32,
    pub mode: u32,
    pub flags: u32,
}

/// LOCK_MANAGER_LAYOUT_…
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Libpod = 1,
    Native = 2,
}

impl Layout {
    pub const BOTH: [Self; 2] = [Self::Native, Self::Libpod];

    pub fn name(self) -> &'static str {
        match self {
            Self::Libpod => "libpod",
            Self::Native => "native",
        }
    }
}

/// Its functions, by the names of the header without the prefix.
pub struct Library {
    pub new_shm: unsafe extern "C" fn(*const c_char, u32, *const Options, *mut Manager) -> i32,
    pub open_shm: unsafe extern "C" fn(*const c_char, u32, *mut Manager) -> i32,
    pub new_in_memory: unsafe extern "C" fn(u32, *mut Manager) -> i32,
    pub open_file: unsafe extern "C" fn(*const c_char, *mut Manager) -> i32,
    pub remove_shm: unsafe extern "C" fn(*const c_char) -> i32,
    pub close: unsafe extern "C" fn(Manager) -> i32,
    pub allocate_lock: unsafe extern "C" fn(Manager, *mut u32) -> i32,
    pub free_lock: unsafe extern "C" fn(Manager, u32) -> i32,
    pub available_locks: unsafe extern "C" fn(Manager, *mut u32) -> i32,
    pub locks_held: unsafe extern "C" fn(Manager, *mut u32, usize, *mut usize) -> i32,
    pub lock: unsafe extern "C" fn(Manager, u32) -> i32,
    pub unlock: unsafe extern "C" fn(Manager, u32) -> i32,
    pub lock_shared: unsafe extern "C" fn(Manager, u32) -> i32,
    pub unlock_shared: unsafe extern "C" fn(Manager, u32) -> i32,
    pub downgrade_lock: unsafe extern "C" fn(Manager, u32) -> i32,
    last_error: unsafe extern "C" fn() -> *const c_char,
}

impl Library {
    /// Loads `liblock_manager.so` from the directory that this program was built into.
    pub fn load() -> Self {
        let program = std::env::current_exe().expect("the program has a path");
        let path: PathBuf = program
            .ancestors()
            .skip(1)
            .map(|directory| directory.join("liblock_manager.so"))
            .find(|path| path.exists())
            .expect("liblock_manager.so is not built; run `make bench`");
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("a path has no NUL");
        // SAFETY: dlopen(3) of the library under test; the name is a string.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "{path:?} cannot be loaded");
        macro_rules! load {
            ($($name:ident),*) => {
                Self { $($name: {
                    let symbol = CString::new(concat!("lock_manager_", stringify!($name))).expect("no NUL");
                    // SAFETY: dlsym(3) on an open handle.
                    let address = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
                    assert!(!address.is_null(), "{symbol:?} is missing");
                    // SAFETY: the header declares the function with the type of this field, which is a pointer.
                    unsafe { std::mem::transmute_copy(&address) }
                }),* }
            };
        }
        load!(
            new_shm,
            open_shm,
            new_in_memory,
            open_file,
            remove_shm,
            close,
            allocate_lock,
            free_lock,
            available_locks,
            locks_held,
            lock,
            unlock,
            lock_shared,
            unlock_shared,
            downgrade_lock,
            last_error
        )
    }

    /// Stops the program with the library's own words unless the code is a success.
    pub fn check(&self, code: i32) {
        if code < 0 {
            // SAFETY: the function is always there and its result is a string.
            let why = unsafe { CStr::from_ptr((self.last_error)()) };
            panic!("{}: {}", code, why.to_string_lossy());
        }
    }

    /// A fresh segment of the benchmark's own.
    pub fn segment(&self, layout: Layout, num_locks: u32) -> Segment<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("/lock_manager-bench-{}-{count}", std::process::id());
        let path = CString::new(name).expect("no NUL");
        let mut manager = std::ptr::null_mut();
        let options = Options { size: size_of::<Options>(), layout: layout as u32, max_locks: 0, mode: 0, flags: 0 };
        // SAFETY: as the header says: a string, options, a place for the result.
        self.check(unsafe { (self.new_shm)(path.as_ptr(), num_locks, &options, &mut manager) });
        Segment { library: self, path, manager }
    }
}

/// A segment that goes with its value.
pub struct Segment<'l> {
    library: &'l Library,
    pub path: CString,
    pub manager: Manager,
}

impl Segment<'_> {
    /// Takes its name away.
    pub fn remove(&self) -> i32 {
        // SAFETY: as the header says.
        unsafe { (self.library.remove_shm)(self.path.as_ptr()) }
    }
}

impl Drop for Segment<'_> {
    fn drop(&mut self) {
        // It may be gone.
        self.remove();
        // SAFETY: the manager is open and nobody uses it any more.
        unsafe {
            (self.library.close)(self.manager);
        }
    }
}
