// SPDX-License-Identifier: MIT OR Apache-2.0
//! With real Podmans on one segment, live: the machine's own and those of other Debian suites, each generation in a
//! module of its own. Each test runs in namespaces of its own, for which it has to be root's, or may make user
//! namespaces. `tools/debian-root` makes the roots.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail and speak")]
#![allow(clippy::duplicate_mod, reason = "the same tests beside each generation of Podman")]

/// Processes of ours.
#[path = "podman/child.rs"]
mod child;
/// Which Podman.
#[path = "podman/generation.rs"]
mod generation;
/// The real Podman.
#[path = "podman/real.rs"]
mod real;
/// Namespaces of a test's own.
#[path = "podman/sandbox.rs"]
mod sandbox;
/// All generations on one segment.
#[path = "podman/together.rs"]
mod together;

macro_rules! generations {
    ($($(#[$what:meta])* $generation:ident),*) => {
        /// The names of all.
        const GENERATIONS: &[&str] = &[$(stringify!($generation)),*];
        $(
            $(#[$what])*
            #[path = "podman"]
            mod $generation {
                /// One directory, where Podman keeps its locks in files.
                #[path = "files.rs"]
                mod files;
                /// One lock, two kinds of holder.
                #[path = "holding.rs"]
                mod holding;
                /// The Podman of an ordinary user.
                #[path = "rootless.rs"]
                mod rootless;
                /// One segment, two allocators.
                #[path = "sharing.rs"]
                mod sharing;
            }
        )*
    };
}

generations! {
    /// The machine's own.
    host,
    /// Debian 13.
    trixie,
    /// What Debian 14 becomes.
    sid
}
