// SPDX-License-Identifier: MIT OR Apache-2.0
//! The locks that are measured, ours and the others', all called in the same way: through the address of a function.

use std::ffi::{CString, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::library::{Layout, Segment, library};
use crate::peers::{self, PEER_MEMORY, Peer};
use crate::processes::{shared_memory, unmap};

/// Takes or gives back a lock: a manager and an id, or what peer_attach() returned.
pub type PairCall = unsafe extern "C" fn(*mut c_void, u32) -> c_int;

pub const NATIVE: &str = "lock_manager";
pub const LIBPOD: &str = "lock_manager libpod layout";
pub const IN_MEMORY: &str = "lock_manager in memory";
pub const FILES: &str = "lock_manager files";

/// The lock of a segment or directory that is measured.
const ID: u32 = 7;
const LOCKS: u32 = 2048;
/// So long after a change in a directory its time says that there was no other.
pub const UNTIL_TIMES_TELL: Duration = Duration::from_millis(3100);

/// Who can share a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    Processes,
    /// A ceiling: what only threads can share may cost less.
    Threads,
}

/// What happens to a lock whose holder is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The next holder gets it, and is told.
    Told,
    /// The next holder gets it, and is not told.
    Untold,
    /// It stays held.
    Stays,
}

#[derive(Clone, Copy)]
enum Kind {
    Shm(Layout),
    InMemory,
    Files,
    Peer(&'static Peer),
}

/// A lock that is measured.
#[derive(Clone, Copy)]
pub struct Contender {
    pub name: &'static str,
    pub scope: Scope,
    pub death: Death,
    kind: Kind,
}

impl Contender {
    pub fn native() -> Self {
        Self { name: NATIVE, scope: Scope::Processes, death: Death::Told, kind: Kind::Shm(Layout::Native) }
    }

    pub fn libpod() -> Self {
        Self { name: LIBPOD, kind: Kind::Shm(Layout::Libpod), ..Self::native() }
    }

    fn in_memory() -> Self {
        Self { name: IN_MEMORY, scope: Scope::Threads, kind: Kind::InMemory, ..Self::native() }
    }

    pub fn files() -> Self {
        Self { name: FILES, kind: Kind::Files, ..Self::native() }
    }

    pub fn ours() -> Vec<Self> {
        vec![Self::native(), Self::libpod(), Self::in_memory(), Self::files()]
    }

    /// What a contender of that name does at a death.
    pub fn death_of(name: &str) -> Option<Death> {
        let ours = Self::ours().into_iter().find(|contender| contender.name == name).map(|contender| contender.death);
        ours.or_else(|| peers::death_of(name))
    }

    fn of(peer: &'static Peer) -> Self {
        Self { name: peer.name, scope: peer.scope, death: peer.death, kind: Kind::Peer(peer) }
    }

    /// Ours, and all peers that this machine has.
    pub fn all() -> Vec<Self> {
        let mut all = Self::ours();
        // Whom a read-write lock prefers is nothing to those who only write.
        all.extend(peers::here().iter().filter(|peer| peer.name != peers::RWLOCK_WRITERS_FIRST).map(Self::of));
        all
    }

    /// Those that exclude others: not the floor.
    pub fn locks() -> Vec<Self> {
        Self::all().into_iter().filter(|contender| contender.name != peers::FLOOR).collect()
    }

    pub fn between_processes() -> Vec<Self> {
        Self::locks().into_iter().filter(|contender| contender.scope == Scope::Processes).collect()
    }

    /// Those of these names that are here.
    pub fn named(names: &[&str]) -> Vec<Self> {
        Self::all().into_iter().filter(|contender| names.contains(&contender.name)).collect()
    }

    /// The libc's robust mutex, which is always here.
    pub fn raw() -> Self {
        Self::named(&[peers::RAW])[0]
    }

    /// A lock that nobody holds.
    pub fn fresh(&self) -> Fresh {
        let (pair, storage) = match self.kind {
            Kind::Shm(layout) => (library().pair(), Storage::Segment(Segment::new(layout, LOCKS))),
            Kind::InMemory => (library().pair(), Storage::InMemory),
            Kind::Files => (library().pair(), Storage::Directory(settled_directory())),
            Kind::Peer(peer) => (peer.pair, Storage::Peer(peer, PeerStorage::new(peer))),
        };
        Fresh { pair, storage }
    }
}

enum Storage {
    Segment(Segment),
    InMemory,
    Directory(&'static CString),
    Peer(&'static Peer, PeerStorage),
}

/// A lock of its own for one measurement, which goes with its value.
pub struct Fresh {
    pair: [PairCall; 2],
    storage: Storage,
}

impl Fresh {
    /// For one process: the lock as it is called.
    pub fn attach(&self) -> Lock {
        let [lock, unlock] = self.pair;
        let handle = match &self.storage {
            // A forked child may use its parent's at once.
            Storage::Segment(segment) => segment.manager,
            Storage::InMemory => library().in_memory(LOCKS),
            Storage::Directory(path) => library().open_files(path),
            Storage::Peer(peer, storage) => {
                // SAFETY: as peer.h says: what peer_make() was given.
                unsafe { (peer.attach)(storage.memory.as_ptr().cast(), storage.path.as_ptr()) }
            }
        };
        Lock { handle, lock, unlock }
    }
}

struct PeerStorage {
    peer: &'static Peer,
    memory: NonNull<u8>,
    path: CString,
}

impl PeerStorage {
    fn new(peer: &'static Peer) -> Self {
        let (memory, path) = (shared_memory(PEER_MEMORY), free_path());
        // SAFETY: as peer.h says: zeroed shared memory and a free path.
        unsafe { (peer.make)(memory.as_ptr().cast(), path.as_ptr()) };
        Self { peer, memory, path }
    }
}

impl Drop for PeerStorage {
    fn drop(&mut self) {
        if let Some(remove) = self.peer.remove {
            // SAFETY: as the peer says: the memory that peer_make() was given; nobody uses the lock any more.
            unsafe { remove(self.memory.as_ptr().cast()) };
        }
        unmap(self.memory, PEER_MEMORY);
        let _ = std::fs::remove_file(self.path.to_str().expect("a path of the benchmark's own"));
    }
}

/// The one directory of the files' contender. The time of a directory that was just changed does not tell whether it was
/// changed again, so that each call has to look: that is past here.
fn settled_directory() -> &'static CString {
    static DIRECTORY: OnceLock<CString> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let path = free_path();
        std::fs::create_dir(path.to_str().expect("a path of the benchmark's own")).expect("a directory in /dev/shm");
        let manager = library().open_files(&path);
        while library().allocate(manager) < ID {}
        library().close(manager);
        std::thread::sleep(UNTIL_TIMES_TELL);
        path
    })
}

/// Takes away what outlives the single measurement.
pub fn clean_up() {
    let left = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let own = format!("lock_manager-bench-{}-", std::process::id());
    for entry in left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own)) {
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

/// A path of the benchmark's own that is free, in memory.
fn free_path() -> CString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = format!("/dev/shm/lock_manager-bench-{}-path-{count}", std::process::id());
    CString::new(path).expect("no NUL")
}

/// A lock as one process calls it.
#[derive(Clone, Copy)]
pub struct Lock {
    handle: *mut c_void,
    lock: PairCall,
    unlock: PairCall,
}

// SAFETY: each contender's handle may be used by all threads of the process that attached it.
unsafe impl Send for Lock {}
// SAFETY: as above.
unsafe impl Sync for Lock {}

impl Lock {
    /// What the peer or the library returned.
    #[inline(always)]
    pub fn lock(&self) -> c_int {
        // SAFETY: attached by this process, and what it belongs to lives until the process ends.
        unsafe { (self.lock)(self.handle, ID) }
    }

    #[inline(always)]
    pub fn unlock(&self) -> c_int {
        // SAFETY: as above.
        unsafe { (self.unlock)(self.handle, ID) }
    }
}
