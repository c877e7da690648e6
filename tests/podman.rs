// SPDX-License-Identifier: MIT OR Apache-2.0
//! With a real Podman on one segment, live. Needs root and an installed podman; each test runs in namespaces of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail and speak")]

/// Processes of ours.
#[path = "podman/child.rs"]
mod child;
/// One directory, where Podman keeps its locks in files.
#[path = "podman/files.rs"]
mod files;
/// One lock, two kinds of holder.
#[path = "podman/holding.rs"]
mod holding;
/// The real Podman.
#[path = "podman/real.rs"]
mod real;
/// Namespaces of a test's own.
#[path = "podman/sandbox.rs"]
mod sandbox;
/// One segment, two allocators.
#[path = "podman/sharing.rs"]
mod sharing;
