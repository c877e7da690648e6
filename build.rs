// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names the shared library for the dynamic linker and compiles the one thread-local object that Rust
//! cannot yet declare with the initial-exec model.

/// `.so.0` while the version is 0.x: what a program was linked with keeps working through all of 0.x.
const SONAME: &str = "liblock_manager.so.0";

fn main() {
    // glibc alone finds room for initial-exec objects of libraries that a program loads later; musl does not load them.
    let initial_exec = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu");
    println!("cargo:rustc-check-cfg=cfg(initial_exec)");
    if initial_exec {
        println!("cargo:rustc-cfg=initial_exec");
    }
    println!("cargo:rustc-env=LOCK_MANAGER_SONAME={SONAME}");
    println!("cargo:rerun-if-changed=src/sys/thread/thread.c");
    // Elsewhere nothing locks, and no linker knows the options of this one.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        compile_thread_object(initial_exec);
        name_the_library();
    }
}

fn compile_thread_object(initial_exec: bool) {
    let mut thread = cc::Build::new();
    if initial_exec {
        thread.define("INITIAL_EXEC", None);
    }
    thread
        .file("src/sys/thread/thread.c")
        .std("c11")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .opt_level(2)
        .compile("lock_manager_thread");
}

fn name_the_library() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    // `nodelete`: thread-local state and the fork page outlive a dlclose, so their code must too.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
