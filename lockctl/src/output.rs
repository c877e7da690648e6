// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! How answers look: words, tables, JSON.

/// A look as JSON.
pub mod json;
/// A look as a table.
pub mod table;
/// Words and numbers that are safe and short on a terminal.
pub mod text;
