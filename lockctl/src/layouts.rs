// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! The layouts of segments by the names that the command line knows.

use lock_manager::Layout;

/// Each layout by its name.
pub const LAYOUTS: &[(&str, Layout)] = &[("native", Layout::Native), ("libpod", Layout::Libpod)];

/// What a layout is called.
pub fn name(layout: Layout) -> String {
    let known = LAYOUTS.iter().find(|(_, known)| *known == layout);
    known.map_or_else(|| format!("{layout:?}").to_lowercase(), |(name, _)| (*name).to_owned())
}

/// The layout of that name.
pub fn named(name: &str) -> Result<Layout, String> {
    let known = LAYOUTS.iter().find(|(known, _)| *known == name);
    known.map(|(_, layout)| *layout).ok_or_else(|| {
        let names: Vec<&str> = LAYOUTS.iter().map(|(name, _)| *name).collect();
        format!("there is no layout of that name; give one of: {}", names.join(", "))
    })
}
