// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! What STORAGE on the command line names, and opening it: to look, which changes nothing, or to use.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lock_manager::{FileManager, Manager, ShmManager};
use lock_manager_etcd::{EtcdManager, Options};

use crate::exit::{Failure, sysexits};
use crate::output::text::shown;

const SHM_DIRECTORY: &str = "/dev/shm";

/// A storage that somebody named; nothing is known yet of whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// As the library takes it.
    pub name: PathBuf,
    pub place: Place,
}

/// A storage by its file or directory. One that was removed and made anew is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub device: u64,
    pub inode: u64,
}

/// Where a storage keeps its locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the segment that this file is.
    Segment(PathBuf),
    /// In the files of this directory.
    Directory(PathBuf),
    /// In an etcd cluster, at this address.
    Etcd(String),
}

/// How an address of locks in etcd begins.
const ETCD: &str = "etcd://";
/// Names a file of settings for etcd: certificates, user and password. None of them is ever an argument.
const ETCD_CONFIG: &str = "LOCK_MANAGER_ETCD_CONFIG";

impl Storage {
    /// A shm name (`/libpod_lock`, or without the slash), the path of a segment, or a directory.
    pub fn named(argument: &Path) -> Result<Self, Failure> {
        if let Some(storage) = Self::in_etcd(argument) {
            return Ok(storage);
        }
        if let Some(in_shm) = shm_file(argument) {
            // Where both are there, a name with one slash means what it means to shm_open(3).
            if in_shm.exists() || !argument.is_dir() {
                return Ok(Self { name: argument.to_owned(), place: Place::Segment(in_shm) });
            }
        }
        if argument.is_absolute() || argument.exists() {
            let path = std::path::absolute(argument).map_err(|error| Failure::system(shown(argument), &error))?;
            let is_directory = path.is_dir();
            let place = if is_directory { Place::Directory(path.clone()) } else { Place::Segment(path.clone()) };
            // One slash would make it a shm name.
            let name = if !is_directory && shm_file(&path).is_some() { Path::new("//").join(&path) } else { path };
            return Ok(Self { name, place });
        }
        let with_slash = Path::new("/").join(argument);
        match shm_file(&with_slash).filter(|file| file.exists()) {
            Some(file) => Ok(Self { name: with_slash, place: Place::Segment(file) }),
            None => Err(Failure::new(
                sysexits::NOINPUT,
                format!(
                    "{}: there is no file, directory or segment of that name; give a shm name (\"/libpod_lock\"), the \
                     path of a segment, or a lock directory",
                    shown(argument)
                ),
            )),
        }
    }

    /// One in etcd, if the argument is an address of such.
    fn in_etcd(argument: &Path) -> Option<Self> {
        let address = argument.to_str().filter(|text| text.starts_with(ETCD))?;
        Some(Self { name: argument.to_owned(), place: Place::Etcd(address.to_owned()) })
    }

    /// One that is to be made: a segment, or in etcd.
    pub fn new_segment(argument: &Path) -> Self {
        if let Some(storage) = Self::in_etcd(argument) {
            return storage;
        }
        let name = if argument.as_os_str().as_bytes().contains(&b'/') {
            std::path::absolute(argument).unwrap_or_else(|_| argument.to_owned())
        } else {
            Path::new("/").join(argument)
        };
        let file = shm_file(&name).unwrap_or_else(|| name.clone());
        Self { name, place: Place::Segment(file) }
    }

    /// As shown to the user.
    pub fn shown(&self) -> String {
        shown(&self.name)
    }

    /// Opens it to look: whoever owns it if permissions allow, and nothing in it is taken, made or changed.
    pub fn look(&self) -> Result<Opened, Failure> {
        Ok(match &self.place {
            Place::Segment(_) => Opened::Shm(ShmManager::open_read_only(&self.name)?),
            Place::Directory(path) => {
                is_of_locks(path)?;
                Opened::File(FileManager::open_read_only(path)?)
            }
            Place::Etcd(address) => open_etcd(address, 0)?,
        })
    }

    /// Opens it to change something.
    pub fn open(&self) -> Result<Opened, Failure> {
        Ok(match &self.place {
            Place::Segment(_) => Opened::Shm(ShmManager::open(&self.name, 0)?),
            Place::Directory(path) => {
                is_of_locks(path)?;
                Opened::File(FileManager::open(path)?)
            }
            Place::Etcd(address) => open_etcd(address, 0)?,
        })
    }

    /// Which it is, whatever it is called.
    pub fn identity(&self) -> std::io::Result<Identity> {
        let path = self.path().ok_or(std::io::ErrorKind::Unsupported)?;
        let facts = std::fs::metadata(path)?;
        Ok(Identity { device: facts.dev(), inode: facts.ino() })
    }

    /// The segment's file, or the directory, if it is on this machine.
    fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Segment(path) | Place::Directory(path) => Some(path),
            Place::Etcd(_) => None,
        }
    }
}

/// How the cluster of an address is used.
pub fn etcd_options(address: &str) -> Result<Options, Failure> {
    let options = Options::of_address(address)?;
    Ok(match std::env::var_os(ETCD_CONFIG) {
        Some(file) => options.configured_by(Path::new(&file))?,
        None => options,
    })
}

/// Opens locks in etcd; with a number, makes them.
pub fn open_etcd(address: &str, num_locks: u32) -> Result<Opened, Failure> {
    let opened = EtcdManager::open(etcd_options(address)?, num_locks);
    let named = |failure: lock_manager_etcd::Failure| {
        let text = if failure.text.starts_with(ETCD) { failure.text } else { format!("{address}: {}", failure.text) };
        Failure::from(lock_manager_etcd::Failure { text, ..failure })
    };
    Ok(Opened::Etcd(Box::new(opened.map_err(named)?)))
}

/// What this library leaves in a directory that it has used.
const MARK: &str = ".lock_manager";

/// Refuses a directory that has only other things in it. libpod marks its own by nothing, so every directory could be
/// one; but of a mistyped name it must not be said that all is fine, and no ids must be strewn over other people's files.
fn is_of_locks(directory: &Path) -> Result<(), Failure> {
    // What cannot be listed, the library says better.
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    let mut names = entries.flatten().map(|entry| entry.file_name()).peekable();
    let is_lock = |name: &OsStr| name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    if names.peek().is_none() || names.any(|name| name == MARK || is_lock(&name)) {
        return Ok(());
    }
    Err(Failure::new(
        sysexits::DATAERR,
        format!(
            "{}: is not a lock directory: it has no file {MARK}, but it has files that are not locks; nothing was \
             changed. Give the directory that the locks are in",
            shown(directory)
        ),
    ))
}

/// The file that a POSIX shm name means; `None` for what is none: it has one slash, which is its first byte.
fn shm_file(name: &Path) -> Option<PathBuf> {
    let rest = name.as_os_str().as_bytes().strip_prefix(b"/")?;
    let is_name = !rest.is_empty() && !rest.contains(&b'/');
    is_name.then(|| Path::new(SHM_DIRECTORY).join(OsStr::from_bytes(rest)))
}

/// A storage that is open.
#[derive(Debug)]
pub enum Opened {
    Shm(ShmManager),
    File(FileManager),
    Etcd(Box<EtcdManager>),
}

impl Opened {
    pub fn manager(&self) -> &dyn Manager {
        match self {
            Self::Shm(manager) => manager,
            Self::File(manager) => manager,
            Self::Etcd(manager) => manager.manager(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slash_names_shared_memory() {
        let storage = Storage::named(Path::new("/lockctl-unit-test-none")).unwrap();
        assert_eq!(storage.place, Place::Segment("/dev/shm/lockctl-unit-test-none".into()));
    }

    #[test]
    fn what_is_a_directory_is_one_of_locks() {
        let storage = Storage::named(Path::new("/dev/shm")).unwrap();
        assert_eq!(storage.place, Place::Directory("/dev/shm".into()));
        assert_eq!(Storage::named(Path::new("/tmp")).unwrap().place, Place::Directory("/tmp".into()));
    }

    #[test]
    fn a_relative_name_of_nothing_is_refused_with_what_to_give() {
        let failure = Storage::named(Path::new("no/such/thing")).unwrap_err();
        assert_eq!(failure.code, sysexits::NOINPUT);
        assert!(failure.sentence.contains("give a shm name"));
    }
}
