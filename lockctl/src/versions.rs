// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What --version says: lockctl, the library in it, the interface that programs link with, and each format.

use std::fmt::Write as _;
use std::sync::LazyLock;

use lock_manager::{SONAME, VERSION, formats};

/// The first line.
pub fn short() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// All of it.
pub fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = format!("{}\nlibrary: lock_manager {VERSION}\nABI: {SONAME}", short());
        for (name, version) in formats() {
            let _ = write!(text, "\n{name}: {version}");
        }
        let _ = write!(text, "\nlist --json: schema {}", crate::output::json::SCHEMA);
        text
    });
    &TEXT
}
