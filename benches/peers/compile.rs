// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! Builds the peers that are in C or C++, each into a shared object of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the sources are.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
const FLAGS: [&str; 8] = ["-O2", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// What a peer is built from.
pub struct Source {
    file: &'static str,
    flags: &'static [&'static str],
    pkg_config: Option<&'static str>,
    /// Debian's package of what it needs beside the libc.
    package: Option<&'static str>,
}

impl Source {
    pub const fn libc(file: &'static str) -> Self {
        Self { file, flags: &[], pkg_config: None, package: None }
    }

    pub const fn libc_with(file: &'static str, flags: &'static [&'static str]) -> Self {
        Self { flags, ..Self::libc(file) }
    }

    pub const fn with(
        file: &'static str,
        flags: &'static [&'static str],
        pkg_config: Option<&'static str>,
        package: &'static str,
    ) -> Self {
        Self { file, flags, pkg_config, package: Some(package) }
    }
}

/// Builds a peer: the shared object, or why there is none.
pub fn build(source: &Source) -> Result<PathBuf, String> {
    let directory = directory();
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let name = format!("{}{}.so", source.file, source.flags.concat());
    let object = directory.join(name);
    let (compiler, standard) = if source.file.ends_with(".cpp") {
        (tool("CXX", "c++"), "-std=c++17")
    } else {
        (tool("CC", "cc"), "-std=gnu11")
    };
    let mut command = Command::new(compiler);
    command.arg(standard).args(FLAGS).args(source.flags);
    command.arg(Path::new(DIRECTORY).join(source.file)).arg("-o").arg(&object);
    let needs = |why: String| match source.package {
        Some(package) => format!("{why} (Debian: {package})"),
        None => why,
    };
    if let Some(package) = source.pkg_config {
        let mut asked = Command::new("pkg-config");
        let flags = run(asked.args(["--cflags", "--libs", package])).map_err(needs)?;
        command.args(flags.split_whitespace());
    }
    run(&mut command).map_err(needs)?;
    Ok(object)
}

/// Builds the lean child, which is linked with the library itself; statically where the libc can be.
pub fn build_child(prefix: &Path) -> Result<PathBuf, String> {
    let directory = directory();
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let child = directory.join("child");
    let build = |linking: &[&str]| {
        let mut command = Command::new(tool("CC", "cc"));
        command.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"]);
        command.arg(Path::new(DIRECTORY).join("../child.c")).arg("-I").arg(prefix.join("include")).args(linking);
        run(command.arg(prefix.join("lib/liblock_manager.a")).arg("-o").arg(&child))
    };
    build(&["-static"]).or_else(|_| build(&[]))?;
    Ok(child)
}

pub fn compiler_version() -> String {
    let output = run(Command::new(tool("CC", "cc")).arg("--version")).unwrap_or_default();
    output.lines().next().unwrap_or_default().to_owned()
}

/// Beside this program, where cargo's other output is.
fn directory() -> PathBuf {
    let program = std::env::current_exe().expect("the program has a path");
    program.with_file_name("bench-peers")
}

fn tool(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).filter(|value| !value.is_empty()).unwrap_or_else(|| name.into())
}

/// What a command printed, or its first complaint.
fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = complaint.lines().find(|line| line.contains("error")).or(complaint.lines().next());
    Err(line.unwrap_or("it fails, and says nothing").to_owned())
}
