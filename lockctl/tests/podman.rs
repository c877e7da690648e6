// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl` beside real Podmans, on their own segment and in their directory of locks: the machine's own and those of
//! other Debian suites, each generation in a module of its own. Each test runs in namespaces of its own, for which it
//! has to be root's, or may make user namespaces. `tools/debian-root` makes the roots.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail and speak")]
#![allow(clippy::duplicate_mod, reason = "the same tests beside each generation of Podman")]
#![allow(dead_code, reason = "the sandbox serves the library's own tests, too")]

/// Processes of ours.
#[path = "../../tests/podman/child.rs"]
mod child;
/// Which Podman.
#[path = "../../tests/podman/generation.rs"]
mod generation;
/// The real Podman.
#[path = "../../tests/podman/real.rs"]
mod real;
/// Namespaces of a test's own.
#[path = "../../tests/podman/sandbox.rs"]
mod sandbox;

macro_rules! generations {
    ($($(#[$what:meta])* $generation:ident),*) => {$(
        $(#[$what])*
        #[path = "podman"]
        mod $generation {
            /// Whom `lockctl` names.
            #[path = "wedged.rs"]
            mod wedged;
        }
    )*};
}

generations! {
    /// The machine's own.
    host,
    /// Debian 13.
    trixie,
    /// What Debian 14 becomes.
    sid
}
