// SPDX-License-Identifier: MIT OR Apache-2.0
#![forbid(unsafe_code)]
//! A segment's file, whatever its layout. It is complete before it gets its name, it is opened without trusting anything
//! in it, and its removal is noticed.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::Errno;
use crate::sys::descriptor::{GuardedFd, GuardedFile};
use crate::sys::liveness::mapped_file::MappedFile;
use crate::sys::syscall::clock::Instant;
use crate::sys::syscall::file::{self, Access, FileSystem, Metadata, Opener};
use crate::sys::syscall::mapping::Mapping;
use crate::{Reason, Result};

use super::Outcome;
use super::name::SegmentName;

/// How many bytes are read to recognise a segment.
pub(super) const START: usize = 512;

/// A file that was opened and whose owner is trusted. Nothing is known about its contents yet.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) name: SegmentName,
    pub(super) access: Access,
    pub(super) metadata: Metadata,
    pub(super) file_system: FileSystem,
    pub(super) file: GuardedFd,
}

impl Candidate {
    /// Opens the file of that name. Its size, like all metadata, is measured on the open file.
    pub(super) fn open(name: &SegmentName, access: Access) -> Result<Self> {
        let (opened, opener) = file::open_as_owner(name.file(), access).map_err(|errno| match errno.0 {
            libc::ENOENT => name.error(Reason::NotFound),
            libc::ELOOP => name.error(Reason::SymbolicLink),
            // A directory or a socket, not a segment.
            libc::EISDIR | libc::ENXIO => name.error(Reason::NotASegment("it is not a regular file")),
            _ => name.error(Reason::System { doing: "opening the segment", errno }),
        })?;
        let file =
            GuardedFd::opened(opened).map_err(|errno| name.error(Reason::of_fcntl("opening the segment", errno)))?;
        let metadata = *file.metadata();
        if !metadata.is_regular {
            return Err(name.error(Reason::NotASegment("it is not a regular file")));
        }
        let file_system = check_trusted(name, access, &file, &metadata, opener)?;
        Ok(Self { name: name.clone(), access, metadata, file_system, file })
    }

    /// The file's first bytes, fewer if it is shorter. They are read once and not through a mapping: if the file shrinks
    /// meanwhile, that gives a short read and not a signal.
    pub(super) fn start(&self) -> Result<Vec<u8>> {
        let mut buffer = vec![0; START];
        let count = file::read_start(&self.file, &mut buffer).map_err(self.name.failed("reading the segment"))?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Maps the first `length` bytes. The caller has read before this that the file is that long.
    pub(super) fn map(self, length: usize, look_interval_ns: u64) -> Result<Segment> {
        let failed = self.name.failed("mapping the segment");
        let map = Mapping::new(&self.file, self.access, length).map_err(&failed)?;
        let metadata = Metadata::of(&self.file).map_err(&failed)?;
        // Check that this is still the file: the program may have closed all descriptors and opened another.
        if metadata.id() != self.metadata.id() {
            return Err(failed(Errno(libc::EBADF)));
        }
        // If a remover was faster, this process must not stay in what it removed.
        if metadata.links == 0 && self.access == Access::ReadWrite {
            return Err(self.name.error(Reason::Removed));
        }
        // Nothing was touched yet.
        let (found, expected) = (metadata.size, length as u64);
        if found < expected {
            return Err(self.name.error(Reason::Damaged { what: "the size of the file", found, expected }));
        }
        let file =
            GuardedFile::new(self.file.into_file(), self.metadata.id(), self.name.file().to_owned(), self.access);
        let Self { metadata, access, file_system, .. } = self;
        Ok(Segment { map, metadata, access, file_system, file, looked: AtomicU64::new(0), look_interval_ns })
    }
}

/// A segment's file, open and mapped.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) map: Mapping,
    pub(super) metadata: Metadata,
    pub(super) access: Access,
    pub(super) file_system: FileSystem,
    pub(super) file: GuardedFile,
    /// When a removal was last looked for, by CLOCK_MONOTONIC.
    looked: AtomicU64,
    /// How long an answer about removal is believed.
    look_interval_ns: u64,
}

impl Segment {
    /// Whether the file has lost its last name.
    pub(super) fn is_removed(&self) -> bool {
        if self.file_system == FileSystem::Nameless {
            return false;
        }
        match self.file.metadata() {
            Some(metadata) => metadata.links == 0,
            // The program has closed the descriptor, as it may (closefrom). If the file still has its name, it is not
            // removed. Otherwise only the mapping can tell; it shows the file of a creator as deleted from the start.
            None => !self.file.has_its_name() && self.as_mapped().is_some_and(|file| file.is_deleted()),
        }
    }

    /// The file as /proc shows it, if it does.
    pub(super) fn as_mapped(&self) -> Option<MappedFile> {
        MappedFile::at(self.address())
    }

    /// Where the file is mapped.
    pub(super) fn address(&self) -> usize {
        self.map.as_ptr().addr()
    }

    /// [`is_removed`](Self::is_removed), asked often and answered from the file system now and then.
    pub(super) fn is_removed_lately(&self) -> bool {
        let now = Instant::now_coarse();
        if !self.is_look_due(now) {
            return false;
        }
        let removed = self.is_removed();
        if !removed {
            // Only "not removed" is believed for a while: a removed segment stays removed.
            self.looked.store(now.nanoseconds(), Ordering::Relaxed);
        }
        removed
    }

    /// Whether it is time to ask again. It always is once the file was removed.
    #[inline]
    pub(super) fn is_look_due(&self, now: Instant) -> bool {
        now.since(Instant::from_nanoseconds(self.looked.load(Ordering::Relaxed))) >= self.look_interval_ns
    }
}

/// How to create a segment.
pub(super) struct Blueprint<'b> {
    /// Permission bits.
    pub(super) mode: u32,
    /// The ranges of bytes to reserve. The last one ends the file.
    pub(super) reserved: &'b [(u64, u64)],
    /// How long an answer about removal is good for.
    pub(super) look_interval_ns: u64,
}

/// Creates a segment, has `fill` write it, and only then gives it its name.
pub(super) fn create(
    name: &SegmentName,
    blueprint: &Blueprint<'_>,
    fill: impl FnOnce(&Mapping, &File, &Metadata, FileSystem) -> Outcome<()>,
) -> Result<Segment> {
    // Fail early. The link below decides.
    if Metadata::of_path(name.file()).is_ok() {
        return Err(name.error(Reason::Exists));
    }
    let size = blueprint.reserved.iter().map(|(start, end)| end - start).sum();
    let failed = |doing| move |errno: Errno| name.error(system(doing, errno, size));
    let draft = Draft::new(name).map_err(failed("creating the segment"))?;
    let file_system = local_file_system(name, &draft.file)?;
    // Do this while the file is empty: later it has no effect.
    if file_system != FileSystem::Memory {
        draft.file().and_then(file::write_in_place).map_err(|errno| name.error(copying(errno)))?;
    }
    let doing = ["reserving the segment's space", "mapping the segment"];
    let map = draft.map(blueprint.reserved, doing).map_err(|reason| name.error(reason))?;
    let metadata = *draft.file.metadata();
    fill(&map, &draft.file, &metadata, file_system).map_err(|reason| name.error(reason))?;
    // The umask does not touch these bits.
    let mode = Permissions::from_mode(blueprint.mode);
    let moded = draft.file().and_then(|file| Ok(file.set_permissions(mode)?));
    moded.map_err(failed("setting the segment's mode"))?;
    let file = draft.publish(name).map_err(failed("naming the segment"))?;
    let file = GuardedFile::new(file, metadata.id(), name.file().to_owned(), Access::ReadWrite);
    let look_interval_ns = blueprint.look_interval_ns;
    let (access, looked) = (Access::ReadWrite, AtomicU64::new(0));
    Ok(Segment { map, metadata, access, file_system, file, looked, look_interval_ns })
}

/// Creates a segment without a name, for this process alone.
pub(super) fn create_nameless(reserved: &[(u64, u64)], fill: impl FnOnce(&Mapping, &Metadata)) -> Outcome<Segment> {
    let failed = |errno| Reason::System { doing: "making a file in memory (memfd_create)", errno };
    let file = file::create_in_memory(c"lock_manager").and_then(|file| GuardedFd::created(file, 0)).map_err(failed)?;
    let draft = Draft { file, temporary: TemporaryName(None) };
    let map = draft.map(reserved, ["reserving memory", "mapping memory"])?;
    let metadata = *draft.file.metadata();
    fill(&map, &metadata);
    let file = GuardedFile::new(draft.file.into_file(), metadata.id(), PathBuf::new(), Access::ReadWrite);
    let (access, file_system, looked) = (Access::ReadWrite, FileSystem::Nameless, AtomicU64::new(0));
    // It cannot be removed, so there is never anything to look for.
    Ok(Segment { map, metadata, access, file_system, file, looked, look_interval_ns: u64::MAX })
}

/// Why a segment cannot be written in place.
fn copying(errno: Errno) -> Reason {
    match errno.0 {
        libc::EOPNOTSUPP => Reason::Unsupported(
            "is on a file system that writes each change to a new place, so that reserved space is of no use; put it on a \
             tmpfs, such as /run or /dev/shm",
        ),
        _ => Reason::System { doing: "forbidding copy-on-write for the segment (FS_NOCOW_FL)", errno },
    }
}

/// Why that many bytes could not be reserved.
pub(super) fn unreserved(doing: &'static str, errno: Errno, bytes: u64) -> Reason {
    match errno.0 {
        libc::ENOSPC | libc::EDQUOT => Reason::NoSpace { bytes },
        libc::EOPNOTSUPP => Reason::Unsupported(
            "is on a file system that cannot reserve space by fallocate, and this kernel offers no other way (Linux 5.14 \
             does); put it on a tmpfs, such as /run or /dev/shm",
        ),
        _ => Reason::System { doing, errno },
    }
}

fn system(doing: &'static str, errno: Errno, bytes: u64) -> Reason {
    match errno.0 {
        libc::ENOSPC | libc::EDQUOT => Reason::NoSpace { bytes },
        libc::EEXIST => Reason::Exists,
        libc::ENOENT => Reason::NoParent,
        _ => Reason::System { doing, errno },
    }
}

/// A segment that is being created. It vanishes unless it is published.
struct Draft {
    file: GuardedFd,
    temporary: TemporaryName,
}

/// The name of a draft on file systems that have no files without a name.
struct TemporaryName(Option<PathBuf>);

impl Draft {
    fn new(name: &SegmentName) -> std::result::Result<Self, Errno> {
        match file::create_unnamed(name.directory()) {
            Ok(file) => {
                let file = GuardedFd::created(file, 0)?;
                Ok(Self { file, temporary: TemporaryName(None) })
            }
            Err(errno) if matches!(errno.0, libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => Self::named(name),
            Err(errno) => Err(errno),
        }
    }

    fn named(name: &SegmentName) -> std::result::Result<Self, Errno> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = name.directory().join(format!(".lock_manager-{}-{count}", process::id()));
            match file::create_named(&path) {
                Err(errno) if errno.0 == libc::EEXIST => {}
                Err(errno) => return Err(errno),
                Ok(file) => {
                    let file = GuardedFd::created(file, 1);
                    let temporary = TemporaryName(Some(path));
                    return Ok(Self { file: file?, temporary });
                }
            }
        }
    }

    /// The file, if the descriptor is still of it.
    fn file(&self) -> std::result::Result<&File, Errno> {
        if self.file.is_intact() { Ok(&self.file) } else { Err(Errno(libc::EBADF)) }
    }

    /// Reserves these bytes, and maps the file up to the end of the last of them.
    fn map(&self, reserved: &[(u64, u64)], doing: [&'static str; 2]) -> Outcome<Mapping> {
        let size = reserved.iter().map(|(start, end)| end - start).sum();
        let failed = |doing| move |errno| unreserved(doing, errno, size);
        // Reserve the end first, so that the file has its final length.
        for &(start, end) in reserved.iter().rev() {
            self.file().and_then(|file| file::reserve(file, start, end)).map_err(failed(doing[0]))?;
        }
        let length = reserved.iter().map(|&(_, end)| end).max().unwrap_or(0) as usize;
        let mapped = Mapping::new(&self.file, Access::ReadWrite, length);
        // Check the descriptor after all of this: if it is the draft's now, it was so all the time.
        self.file().and(mapped).map_err(failed(doing[1]))
    }

    /// Gives the segment its name. From here on others see it, complete.
    fn publish(self, name: &SegmentName) -> std::result::Result<File, Errno> {
        match &self.temporary.0 {
            None => file::link_unnamed(self.file()?, name.file())?,
            Some(path) => fs::hard_link(path, name.file())?,
        }
        Ok(self.file.into_file())
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// Checks the owner and the file system of an opened file. Returns the file system.
pub(crate) fn check_trusted(
    name: &SegmentName,
    access: Access,
    file: &File,
    metadata: &Metadata,
    opener: Opener,
) -> Result<FileSystem> {
    match metadata.check_owner(opener) {
        Err((owner, caller)) if access == Access::ReadWrite => Err(name.error(Reason::NotTrusted { owner, caller })),
        _ => local_file_system(name, file),
    }
}

/// The file system of a segment. Fails if a segment cannot be on it.
fn local_file_system(name: &SegmentName, file: &File) -> Result<FileSystem> {
    match file::file_system_of(file) {
        Ok(FileSystem::Network(magic)) => Err(name.error(Reason::NetworkFileSystem { magic })),
        Ok(local) => Ok(local),
        Err(errno) => Err(name.failed("statfs")(errno)),
    }
}
