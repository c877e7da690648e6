// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What a C compiler makes of the checked-in header, compared with this side: sizes, offsets, values, signatures.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::path::Path;

use quote::ToTokens;
use syn::{FnArg, ForeignItem, Item, ReturnType, Type};

use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The header as bindgen (so libclang) understands it.
fn header() -> syn::File {
    let bindings = bindgen::Builder::default()
        .header(root().join("include/lock_manager.h").to_string_lossy())
        .allowlist_file(".*lock_manager\\.h")
        .layout_tests(true)
        .generate()
        .expect("libclang reads include/lock_manager.h; it is in Debian's libclang-dev");
    syn::parse_file(&bindings.to_string()).unwrap()
}

/// A type without the paths that two sources of the same type may spell differently.
fn plain(kind: &Type) -> String {
    match kind {
        Type::Ptr(pointer) if pointer.mutability.is_some() => format!("*mut {}", plain(&pointer.elem)),
        Type::Ptr(pointer) => format!("*const {}", plain(&pointer.elem)),
        Type::Path(path) => path.path.segments.last().unwrap().ident.to_string(),
        _ => panic!("a type that no exported function should have"),
    }
}

fn signature(signature: &syn::Signature) -> String {
    let arguments: Vec<String> = signature
        .inputs
        .iter()
        .map(|argument| match argument {
            FnArg::Typed(typed) => plain(&typed.ty),
            FnArg::Receiver(_) => panic!("an exported function is no method"),
        })
        .collect();
    let result = match &signature.output {
        ReturnType::Default => "()".to_owned(),
        ReturnType::Type(_, kind) => plain(kind),
    };
    format!("({}) -> {result}", arguments.join(", "))
}

#[test]
fn every_function_has_the_signature_that_the_header_says() {
    let mut declared = BTreeMap::new();
    for item in header().items {
        let Item::ForeignMod(block) = item else { continue };
        for item in block.items {
            let ForeignItem::Fn(function) = item else { continue };
            declared.insert(function.sig.ident.to_string(), signature(&function.sig));
        }
    }
    let source = std::fs::read_to_string(root().join("src/ffi.rs")).unwrap();
    let mut exported = BTreeMap::new();
    for item in syn::parse_file(&source).unwrap().items {
        let Item::Fn(function) = item else { continue };
        if function.sig.abi.is_some() {
            exported.insert(function.sig.ident.to_string(), signature(&function.sig));
        }
    }
    assert!(exported.len() > 20, "the source was not understood: {exported:?}");
    assert_eq!(declared, exported);
}

/// bindgen states each size and offset as an array index that must be 0: `["Size of x"][size_of::<x>() - 8usize]`.
fn stated_layout() -> BTreeMap<String, usize> {
    let bindings = quote_free(&header());
    let mut stated = BTreeMap::new();
    for statement in bindings.split("[\"").skip(1) {
        let (what, rest) = statement.split_once('"').unwrap();
        let number = rest.split_once(" - ").unwrap().1.split("usize").next().unwrap();
        stated.insert(what.to_owned(), number.trim().parse().unwrap());
    }
    stated
}

fn quote_free(file: &syn::File) -> String {
    file.to_token_stream().to_string().replace("[ \"", "[\"")
}

#[test]
fn every_struct_has_the_layout_that_the_header_says() {
    let mut ours = BTreeMap::new();
    macro_rules! layout {
        ($kind:ident { $($field:ident),* $(,)? }) => {
            let name = stringify!($kind);
            ours.insert(format!("Size of {name}"), size_of::<$kind>());
            ours.insert(format!("Alignment of {name}"), align_of::<$kind>());
            $(ours.insert(format!("Offset of field: {name}::{}", stringify!($field)), offset_of!($kind, $field));)*
        };
    }
    layout!(lock_manager_shm_options_t { size, layout, max_locks, mode, flags });
    layout!(lock_manager_lock_info_t {
        size,
        id,
        allocated,
        held,
        owner_died,
        pid,
        tid,
        waiters,
        ownership,
        acquisitions,
        pid_namespace,
        waited_ns,
        readers,
        draining
    });
    layout!(lock_manager_holder_t { size, pid, tid, shared, ownership, pid_namespace });
    layout!(lock_manager_info_t { size, kind, layout, num_locks, max_locks, attached, retired });
    layout!(lock_manager_request_t { size, id, flags, ownership, tid, timeout_ns, deadline_ns });
    layout!(lock_manager_sleep_t { size, word, value, until_ns });
    layout!(lock_manager_backend_lock_t { size, allocated, held, owner_died, here, waiters, ownership, waited_ns });
    layout!(lock_manager_backend_t {
        size,
        close,
        last_error,
        num_locks,
        available_locks,
        allocate_lock,
        allocate_given,
        free_lock,
        free_all_locks,
        begin,
        step,
        leave,
        release,
        lock_info,
        locks_held,
        fencing_token,
        lost_fd,
        take_kept,
        keep
    });
    assert_eq!(stated_layout(), ours);
}

#[test]
fn the_header_carries_this_version() {
    let header = std::fs::read_to_string(root().join("include/lock_manager.h")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(header.contains(&format!("#define LOCK_MANAGER_VERSION \"{version}\"")), "edit cbindgen.toml");
    let parts = [LOCK_MANAGER_VERSION_MAJOR, LOCK_MANAGER_VERSION_MINOR, LOCK_MANAGER_VERSION_PATCH];
    assert_eq!(parts.map(|part| part.to_string()).join("."), version, "edit src/ffi/constants.rs");
}
