// SPDX-License-Identifier: MIT OR Apache-2.0
//! Podmans of several generations: the machine's own, and those of other Debian suites in roots of their own. A test
//! belongs to the generation in whose module it stands.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The module of the tests beside the machine's own Podman.
const HOST: &str = "host";

/// What makes the roots, and knows where they are.
const ROOT_MAKER: &str = "tools/debian-root";

/// Where what a root has to run is found.
pub const PATH_IN_ROOT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which Podman.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Generation {
    /// The machine's own.
    Host,
    /// That of a Debian suite, with its libc, in this directory.
    Root(PathBuf),
}

impl Generation {
    /// That of the test with that name, or of the module.
    pub fn of(test: &str) -> Self {
        match test.split("::").next().unwrap() {
            HOST => Self::Host,
            suite => Self::Root(root_of(suite)),
        }
    }

    /// Why there is none here.
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::Host => match self.command("podman").arg("--version").output() {
                Ok(output) if output.status.success() => None,
                Ok(output) => Some(format!("podman: {}", String::from_utf8_lossy(&output.stderr).trim())),
                Err(error) => Some(format!("podman: {error}")),
            },
            Self::Root(root) if root.join("usr/bin/podman").exists() => None,
            Self::Root(root) => {
                let suite = root.file_name().unwrap().display();
                Some(format!("{} has no Podman; as root, {ROOT_MAKER} {suite} makes it", root.display()))
            }
        }
    }

    pub fn root(&self) -> Option<&Path> {
        match self {
            Self::Host => None,
            Self::Root(root) => Some(root),
        }
    }

    /// A program as this generation has it, in an environment with nothing but the path to programs.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        let mut command = match self {
            Self::Host => Command::new(program),
            Self::Root(root) => {
                let mut command = Command::new("chroot");
                command.arg(root).arg(program);
                command
            }
        };
        command.env_clear().env("PATH", self.path());
        command
    }

    /// Where its programs are.
    pub fn path(&self) -> String {
        match self {
            Self::Host => env::var("PATH").unwrap(),
            Self::Root(_) => PATH_IN_ROOT.to_owned(),
        }
    }
}

/// Where the root of that suite is or would be.
fn root_of(suite: &str) -> PathBuf {
    // Beside this file's directory, whichever package's tests it serves.
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|above| above.join(ROOT_MAKER).exists()).unwrap();
    let output = Command::new(here.join(ROOT_MAKER)).args(["--where", suite]).output().unwrap();
    assert!(output.status.success(), "{ROOT_MAKER}: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}
