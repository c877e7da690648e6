// SPDX-License-Identifier: MIT OR Apache-2.0
//! bindgen finds a libclang that it can load, and that one finds C's own headers. `tools/setup` asks with this test
//! whether a package is missing, so that the answer is bindgen's own.

#[test]
fn libclang_is_there_and_reads_the_standard_headers() {
    let bindings = bindgen::Builder::default()
        .header_contents(
            "standard.h",
            "#include <stdint.h>\n#include <stddef.h>\nstruct sizes { size_t a; int32_t b; };",
        )
        .generate()
        .unwrap_or_else(|error| panic!("libclang is there but cannot read C's own headers: {error}"));
    assert!(bindings.to_string().contains("pub struct sizes"), "{bindings}");
}
