// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only door to libc: what neither std nor rustix offers as safe calls. Nothing above this module needs unsafe code.

#![allow(unsafe_code, reason = "signal masks, dispositions and fork(2) cannot be had without")]

/// Children that have ended, and what a new one inherits.
pub mod child;
/// Signals: which came from the parent, and taking, sending and dying of them.
pub mod signals;
/// A process that only remembers which signals it was sent.
pub mod witness;
