// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lock calls at the boundary: the three paths of `backend`, as C takes them. The fast path has nothing around it: it cannot
//! fail or panic. Every other path ends in a function with the C calling convention. Nothing unwinds out of such a function,
//! so the fast path saves no registers and needs no landing pad. A signal handler may end the thread anywhere here: these
//! functions have nothing to undo.
//!
//! Each function asks of its caller what the parent module asks of C.

use crate::Cancel;
use crate::acquisition::Deadline;
use crate::backend::{self, Backend, Call, FastAcquire, Mode, Release, Request};
use crate::manager::Wait;

use super::boundary::{self, call, code, manager as opened};
use super::lock_manager_t;

/// Hands a call to the backend behind a handle.
///
/// # Safety
/// The module's contract.
#[inline(always)]
unsafe fn on_backend(manager: *mut lock_manager_t, call: impl Call) -> i32 {
    // SAFETY: the module's contract.
    match unsafe { manager.as_ref() } {
        Some(manager) => manager.0.take(call),
        None => no_manager(),
    }
}

/// Fails because there is no manager. With the C calling convention, and not inlined: see the module.
#[cold]
#[inline(never)]
extern "C" fn no_manager() -> i32 {
    // SAFETY: NULL is what manager() is asked about.
    call(|| unsafe { opened(std::ptr::null()).map(|_| 0) })
}

/// Makes a call from C of a function that is generic over the backend. The call is inlined for the first backend, and goes
/// to a function of its own for each other.
macro_rules! call {
    ($(#[$of:meta])* $name:ident($($field:ident: $kind:ty),*) by $function:ident) => {
        $(#[$of])*
        ///
        /// # Safety
        /// The module's contract.
        #[inline(always)]
        pub(super) unsafe fn $name(manager: *mut lock_manager_t, $($field: $kind),*) -> i32 {
            struct This { $($field: $kind),* }

            impl Call for This {
                #[inline(always)]
                fn inlined<B: Backend>(self, backend: &B) -> i32 {
                    $function(backend, $(self.$field),*)
                }

                #[inline(always)]
                fn apart<B: Backend>(self, backend: &B) -> i32 {
                    #[inline(never)]
                    #[allow(improper_ctypes_definitions, reason = "called from here alone: nothing unwinds out of it")]
                    extern "C" fn apart<B: Backend>(backend: &B, $($field: $kind),*) -> i32 {
                        $function(backend, $($field),*)
                    }
                    apart(backend, $(self.$field),*)
                }
            }

            // SAFETY: the module's contract.
            unsafe { on_backend(manager, This { $($field),* }) }
        }
    };
}

call! {
    /// Takes a lock.
    acquire(id: u32, mode: Mode, wait: Wait) by acquire_in
}

call! {
    /// Releases a lock.
    release(id: u32, mode: Mode) by release_in
}

call! {
    /// Makes an exclusive hold a shared one.
    downgrade(id: u32) by downgrade_in
}

#[inline(always)]
fn acquire_in<B: Backend>(backend: &B, id: u32, mode: Mode, wait: Wait) -> i32 {
    match backend.acquire_fast(id, mode) {
        FastAcquire::Acquired(acquired) => code(acquired),
        missed => acquire_after(backend, id, mode, wait, missed),
    }
}

/// Takes a lock after the fast path has missed.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "called from here alone: the convention says that nothing unwinds")]
extern "C" fn acquire_after<B: Backend>(backend: &B, id: u32, mode: Mode, wait: Wait, missed: FastAcquire) -> i32 {
    match backend::acquire_after(backend, id, mode, wait, missed) {
        FastAcquire::Acquired(acquired) => code(acquired),
        FastAcquire::Held { holder } => boundary::held(backend.storage(), id, holder),
        missed => {
            let request = Request { id, mode, deadline: Deadline::of(wait), cancel: None, missed };
            boundary::acquire(&mut backend.acquire_slow(request), backend.storage())
        }
    }
}

/// Takes a lock by the slow path alone: a triggered cancel object wins over a free lock.
///
/// # Safety
/// The module's contract.
pub(super) unsafe fn acquire_cancellable(
    manager: *mut lock_manager_t,
    id: u32,
    mode: Mode,
    wait: Wait,
    cancel: Option<&Cancel>,
) -> i32 {
    // SAFETY: the module's contract.
    match unsafe { manager.as_ref() } {
        Some(manager) => {
            let request = Request { id, mode, deadline: Deadline::of(wait), cancel, missed: FastAcquire::GoSlow };
            crate::backend::on_backend!(manager.0, backend => {
                boundary::acquire(&mut backend.acquire_slow(request), backend.storage())
            })
        }
        None => no_manager(),
    }
}

#[inline(always)]
fn release_in<B: Backend>(backend: &B, id: u32, mode: Mode) -> i32 {
    match backend.release_fast(id, mode) {
        Release::Done => 0,
        missed => release_after(backend, id, mode, missed),
    }
}

/// Releases a lock after the fast path has missed.
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn release_after<B: Backend>(backend: &B, id: u32, mode: Mode, missed: Release) -> i32 {
    match backend.release_mid(id, mode) {
        Release::Done => 0,
        _ => boundary::release(backend.storage(), || backend.release_slow(id, mode, missed)),
    }
}

#[inline(always)]
fn downgrade_in<B: Backend>(backend: &B, id: u32) -> i32 {
    match backend.downgrade_mid(id) {
        Release::Done => 0,
        _ => boundary::release(backend.storage(), || backend.downgrade_slow(id)),
    }
}
