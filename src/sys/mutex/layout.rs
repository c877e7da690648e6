// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where this libc keeps the parts of a robust mutex. The library finds it out at run time, by trying mutexes of its own.

use std::cell::UnsafeCell;
use std::mem::{self, MaybeUninit};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, pthread_mutex_t};

use super::kind::Libc;
use super::{WORDS, this_libc, word};
use crate::sys::Errno;
use crate::sys::process::once_box::OnceBox;
use crate::sys::thread::kernel_thread_id;

/// Where the parts of a mutex stand. Found at run time, never assumed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MutexLayout {
    /// Byte offset of the word that is shared with the kernel and names the holder.
    pub(crate) word: usize,
    /// Byte offset of the word that says which kind of mutex it is, the only one that initialisation sets.
    pub(super) kind: usize,
    /// What this libc writes there for a normal, robust, process-shared mutex.
    pub(super) kind_value: u32,
    /// The bits of the kind that decide how a mutex locks.
    decisive: u32,
    /// The values of these bits in the kinds that lock as `kind_value` does. The first is its own.
    alike: [u32; 2],
    /// Byte offset of the libc's own note of the holder. glibc has a word of its own for it, musl the word itself.
    pub(super) owner: usize,
    /// What stands there when the mutex was unlocked before it was made consistent.
    pub(super) not_recoverable_value: u32,
    /// Where a thread keeps its list of the mutexes that it holds.
    #[cfg_attr(not(target_env = "musl"), allow(dead_code, reason = "glibc takes care of its lists itself"))]
    pub(super) list: this_libc::ListPlace,
}

impl MutexLayout {
    /// The layout of this libc's mutexes. `None`: this library does not understand it.
    pub(crate) fn of_this_libc() -> Option<&'static Self> {
        static FOUND: OnceBox<MutexLayout> = OnceBox::new();
        // Every thread that probes finds the same.
        let find = || {
            let found = Self::probe_where_it_tells().ok_or(())?;
            this_libc::take_care_of_children();
            Ok::<_, ()>(found)
        };
        FOUND.get_or_make(find).ok()
    }

    /// Probes from a thread whose id is not 1. A held mutex contains the holder's thread id, and counters that are 1, and the
    /// probe must tell the two apart. The first thread of a PID namespace, such as a container's, has the id 1: there another
    /// thread probes. So it does where the caller's list of held mutexes may be its parent's.
    fn probe_where_it_tells() -> Option<Self> {
        const COUNTED: u32 = 1;
        if kernel_thread_id() != COUNTED && !this_libc::may_have_inherited_a_list() {
            return Self::probe();
        }
        std::thread::Builder::new().spawn(Self::probe).ok()?.join().ok()?
    }

    /// Whether a mutex of that kind locks as this libc's own. Checked before each call of the libc.
    #[inline(always)]
    pub(super) fn is_compatible(&self, kind: u32) -> bool {
        let decisive = kind & self.decisive;
        decisive == self.alike[0] || decisive == self.alike[1]
    }

    fn probe() -> Option<Self> {
        // The kind is the one word that is not 0 in a fresh mutex.
        let fresh = Probe::new()?;
        let set: Vec<usize> = (0..WORDS).filter(|&index| fresh.load(index) != 0).collect();
        let &[kind_word] = set.as_slice() else { return None };
        let kind_value = fresh.load(kind_word);

        // The holder's word is one of those that name this thread while it holds the mutex. glibc and the kernel agree about
        // the thread's id, except in a raw clone, where the probe fails.
        if fresh.try_lock() != 0 {
            return None;
        }
        let me = kernel_thread_id();
        let named: Vec<usize> = (0..WORDS).filter(|&index| fresh.load(index) == me).collect();
        let list = this_libc::ListPlace::find();
        if fresh.unlock() != 0 {
            return None;
        }

        // One of them is the word that the kernel marks when the owner dies, and one is the libc's own note. Half of an
        // address in the list of held mutexes may happen to be the same number.
        for &word in &named {
            let probe = Probe::new()?;
            probe.store(word, word::OWNER_DIED);
            match probe.try_lock() {
                libc::EOWNERDEAD => {}
                0 if probe.unlock() == 0 => continue,
                _ => return None,
            }
            // It was unlocked before it was made consistent: the note now says "not recoverable". An address in the list is
            // gone, or what it was.
            probe.unlock();
            let is_note = |&index: &usize| ![0, me].contains(&probe.load(index));
            let notes: Vec<usize> = named.iter().copied().filter(is_note).collect();
            let &[owner] = notes.as_slice() else { return None };
            let not_recoverable_value = probe.load(owner);
            if !this_libc::is_understood(word == owner, not_recoverable_value) {
                return None;
            }
            let bytes = |index: usize| index * size_of::<u32>();
            let locks_alike = |value| Probe::new().is_some_and(|probe| probe.locks_as_normal(kind_word, value, word));
            let form = Libc::THIS.form();
            let decisive = if locks_alike(kind_value ^ form.neutral) { !form.neutral } else { !0 };
            let other = kind_value | form.like_normal;
            let other = if locks_alike(other) { other } else { kind_value };
            return Some(Self {
                word: bytes(word),
                kind: bytes(kind_word),
                kind_value,
                decisive,
                alike: [kind_value & decisive, other & decisive],
                owner: bytes(owner),
                not_recoverable_value,
                list,
            });
        }
        None
    }
}

/// A mutex of the caller's own, to try things on.
pub(super) struct Probe(Box<UnsafeCell<pthread_mutex_t>>);

impl Probe {
    pub(super) fn new() -> Option<Self> {
        // SAFETY: all-zero bytes are a valid value of this plain C struct, about to be initialised in place.
        let probe = Self(Box::new(UnsafeCell::new(unsafe { mem::zeroed() })));
        // SAFETY: the box's own memory, in which no mutex lives yet.
        unsafe { initialise(probe.0.get()) }.is_ok().then_some(probe)
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < WORDS);
        // SAFETY: within the mutex, whose alignment is at least that of a word; accessed as an atomic beside the libc's
        // own accesses, which are atomics too, and by this thread alone.
        unsafe { AtomicU32::from_ptr(self.0.get().cast::<u32>().add(index)) }
    }

    pub(super) fn load(&self, index: usize) -> u32 {
        self.word(index).load(Ordering::Relaxed)
    }

    fn store(&self, index: usize, value: u32) {
        self.word(index).store(value, Ordering::Relaxed);
    }

    pub(super) fn try_lock(&self) -> c_int {
        // SAFETY: an initialised mutex that no other thread knows.
        unsafe { libc::pthread_mutex_trylock(self.0.get()) }
    }

    pub(super) fn unlock(&self) -> c_int {
        // SAFETY: as for try_lock.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) }
    }

    /// Whether this mutex, given that kind, behaves as a normal robust one: it is taken once, unlocked, and reports a dead owner.
    /// Uses only calls that the probe makes anyway: others would cost more pages of code.
    fn locks_as_normal(&self, kind_word: usize, kind: u32, word: usize) -> bool {
        self.store(kind_word, kind);
        if self.try_lock() != 0 {
            return false;
        }
        let named = self.load(word) == kernel_thread_id();
        let again = self.try_lock();
        if again == 0 {
            self.unlock();
        }
        if self.unlock() != 0 || !named || again != libc::EBUSY || self.load(word) != 0 {
            return false;
        }
        self.store(word, word::OWNER_DIED);
        self.try_lock() == libc::EOWNERDEAD && self.unlock() == 0
    }
}

/// Makes a normal, robust, process-shared mutex at `mutex` by the calls that libpod (4.6 and later) makes, in its
/// order, so that its bytes are those that a Podman with this libc would write.
///
/// # Safety
/// `mutex` must be aligned, writable memory for a mutex that nobody uses yet.
pub(super) unsafe fn initialise(mutex: *mut pthread_mutex_t) -> Result<(), Errno> {
    let checked = |code| if code == 0 { Ok(()) } else { Err(Errno(code)) };
    let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: POSIX: attributes are initialised before they are set and destroyed after use; mutex is the caller's.
    unsafe {
        checked(libc::pthread_mutexattr_init(attributes))?;
        let made = checked(libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED))
            .and_then(|()| checked(libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)))
            // The default type is the normal one, too, but glibc writes another word if the type is set by name.
            .and_then(|()| checked(libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_NORMAL)))
            .and_then(|()| checked(libc::pthread_mutex_init(mutex, attributes)));
        libc::pthread_mutexattr_destroy(attributes);
        made
    }
}
