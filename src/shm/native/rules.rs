// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Comments in this module name rules of the protocol. Rules S1 to S25 are in `docs/shared-locks.md`, all others
//! (A, T, L, J, G, P, C, H) in `docs/design.md`, each with what goes wrong without it.
