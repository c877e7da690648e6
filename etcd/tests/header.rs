// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checked-in header is what cbindgen makes of the source.

use std::path::Path;

/// Set by `make header`: write the header instead of comparing it.
const WRITE: &str = "LOCK_MANAGER_WRITE_HEADER";

#[test]
fn the_header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config).with_src(root.join("src/ffi.rs"));
    let mut generated = Vec::new();
    builder.generate().unwrap().write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();

    let path = root.join("include/lock_manager_etcd.h");
    if std::env::var_os(WRITE).is_some() {
        std::fs::create_dir_all(root.join("include")).unwrap();
        std::fs::write(&path, &generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(checked_in == generated, "lock_manager_etcd.h does not match etcd/src/ffi.rs; run `make header`");
}
