// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a user would take instead of this library: each a small file of `benches/peers/`.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

pub mod compile;
#[path = "peers/fd_lock.rs"]
mod fd_lock;
#[path = "peers/parking_lot.rs"]
mod parking_lot;
#[path = "peers/std_mutex.rs"]
mod std_mutex;

use crate::contenders::{Death, PairCall, Scope};
use crate::library::SharedObject;
use compile::Source;

/// As peer.h has it.
pub const PEER_MEMORY: usize = 4096;

pub const FLOOR: &str = "floor: cmpxchg + xchg";
pub const RAW: &str = "robust mutex";
pub const PLAIN: &str = "plain mutex";
pub const RWLOCK: &str = "pthread_rwlock";
/// The same lock, which without this attribute lets readers pass a writer that waits.
pub const RWLOCK_WRITERS_FIRST: &str = "pthread_rwlock, writers first";
pub const SEMAPHORE: &str = "POSIX semaphore";
pub const SEMOP: &str = "semop SEM_UNDO";
pub const FCNTL: &str = "fcntl POSIX";
pub const OFD: &str = "fcntl OFD";
pub const FLOCK: &str = "flock(2)";
pub const OPEN_LOCK_CLOSE: &str = "open F_SETLKW close";
pub const BOOST: &str = "boost.interprocess";
pub const APR: &str = "APR default";
pub const APR_PTHREAD: &str = "APR pthread";
pub const STD: &str = "std Mutex (threads)";
pub const PARKING_LOT: &str = "parking_lot (threads)";
pub const FD_LOCK: &str = "fd-lock";

type Make = unsafe extern "C" fn(*mut c_void, *const c_char);
type Attach = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
pub type TimedLock = unsafe extern "C" fn(*mut c_void, u32, u64) -> c_int;

/// A peer that is here; the functions are those of peer.h.
pub struct Peer {
    pub name: &'static str,
    pub scope: Scope,
    pub death: Death,
    pub make: Make,
    pub attach: Attach,
    pub pair: [PairCall; 2],
    pub shared_pair: Option<[PairCall; 2]>,
    pub timed_lock: Option<TimedLock>,
    pub remove: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// The peers in C and C++, by their sources.
const COMPILED: [(&str, Source, Death); 14] = [
    (FLOOR, Source::libc("floor.c"), Death::Stays),
    (RAW, Source::libc("robust_mutex.c"), Death::Told),
    (PLAIN, Source::libc("plain_mutex.c"), Death::Stays),
    (RWLOCK, Source::libc("rwlock.c"), Death::Stays),
    (RWLOCK_WRITERS_FIRST, Source::libc_with("rwlock.c", &["-DWRITERS_FIRST"]), Death::Stays),
    (SEMAPHORE, Source::libc("semaphore.c"), Death::Stays),
    (SEMOP, Source::libc("sysv_semaphore.c"), Death::Untold),
    (FCNTL, Source::libc("fcntl_posix.c"), Death::Untold),
    (OFD, Source::libc("fcntl_ofd.c"), Death::Untold),
    (FLOCK, Source::libc("flock.c"), Death::Untold),
    (OPEN_LOCK_CLOSE, Source::libc("open_lock_close.c"), Death::Untold),
    (BOOST, Source::with("boost_mutex.cpp", &[], None, "libboost-dev"), Death::Stays),
    (
        APR,
        Source::with("apr_mutex.c", &["-DAPR_MECHANISM=APR_LOCK_DEFAULT"], Some("apr-1"), "libapr1-dev"),
        Death::Untold,
    ),
    (
        APR_PTHREAD,
        Source::with("apr_mutex.c", &["-DAPR_MECHANISM=APR_LOCK_PROC_PTHREAD"], Some("apr-1"), "libapr1-dev"),
        Death::Untold,
    ),
];

static HERE: OnceLock<Vec<Peer>> = OnceLock::new();

/// The peers that this machine has; the first call builds them, and says which it lacks.
pub fn here() -> &'static [Peer] {
    HERE.get_or_init(|| {
        let mut here: Vec<Peer> = Vec::new();
        for (name, source, death) in &COMPILED {
            match compile::build(source) {
                Ok(object) => here.push(Peer::loaded(name, *death, &SharedObject::open(&object))),
                Err(why) => crate::progress::skipped(name, &why),
            }
        }
        here.extend([fd_lock::peer(), parking_lot::peer(), std_mutex::peer()]);
        here
    })
}

/// What a peer does at a death, whether or not it is here.
pub fn death_of(name: &str) -> Option<Death> {
    let compiled = COMPILED.iter().find(|(peer, ..)| *peer == name).map(|(.., death)| *death);
    compiled.or((name == FD_LOCK).then_some(Death::Untold))
}

/// The peer of that name, if it is here.
pub fn find(name: &str) -> Option<&'static Peer> {
    here().iter().find(|peer| peer.name == name)
}

impl Peer {
    fn loaded(name: &'static str, death: Death, object: &SharedObject) -> Self {
        let shared_pair = object
            .find("peer_lock_shared")
            .map(|_| [object.function("peer_lock_shared"), object.function("peer_unlock_shared")]);
        Self {
            name,
            scope: Scope::Processes,
            death,
            make: object.function("peer_make"),
            attach: object.function("peer_attach"),
            pair: [object.function("peer_lock"), object.function("peer_unlock")],
            shared_pair,
            timed_lock: object.find("peer_timed_lock").map(|_| object.function("peer_timed_lock")),
            remove: object.find("peer_remove").map(|_| object.function("peer_remove")),
        }
    }

    /// A peer of this program itself.
    fn linked(name: &'static str, scope: Scope, make: Make, attach: Attach, pair: [PairCall; 2]) -> Self {
        let death = Death::Untold;
        Self { name, scope, death, make, attach, pair, shared_pair: None, timed_lock: None, remove: None }
    }
}
