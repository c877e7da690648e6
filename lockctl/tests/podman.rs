// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lockctl` beside a real Podman, on its own segment and in its directory of locks. Needs root and an installed podman;
//! each test runs in namespaces of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail and speak")]
#![allow(dead_code, reason = "the sandbox serves the library's own tests, too")]

/// Processes of ours.
#[path = "../../tests/podman/child.rs"]
mod child;
/// The real Podman.
#[path = "../../tests/podman/real.rs"]
mod real;
/// Namespaces of a test's own.
#[path = "../../tests/podman/sandbox.rs"]
mod sandbox;
/// Whom `lockctl` names.
#[path = "podman/wedged.rs"]
mod wedged;
