// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which file systems can carry locks and shared memory.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;

use crate::sys::Errno;

/// The kind of file system that a file is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// In memory: no file of it outlives the boot.
    Memory,
    /// In memory, and the file has no name: nobody but this process can open it.
    Nameless,
    Local,
    /// Of that type. Its mappings and locks are not shared by all hosts that open a file.
    Network(u64),
}

/// The file system that the file is on.
pub(crate) fn file_system_of(file: &File) -> Result<FileSystem, Errno> {
    const IN_MEMORY: [u64; 2] = [
        0x0102_1994, // tmpfs
        0x8584_58f6, // ramfs
    ];
    // From linux/magic.h and the sources of the file systems; most are not in the libc crate.
    const SHARED_BETWEEN_HOSTS: [u64; 26] = [
        0x6969,      // NFS
        0x517b,      // SMB
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB2
        0x6573_5546, // FUSE, virtiofs among them
        0x0102_1997, // 9p
        0x00c3_6400, // Ceph
        0x5346_414f, // OpenAFS
        0x6b41_4653, // kAFS
        0x7375_7245, // Coda
        0x0bd0_0bd0, // Lustre
        0x564c,      // NCP
        // Cluster file systems: some share memory and locks within one host only, some do it at a price.
        0x7461_636f, // OCFS2
        0x0116_1970, // GFS2
        0x4750_4653, // GPFS
        0x2003_0528, // OrangeFS
        0x1983_0326, // BeeGFS
        0x6163_6673, // ACFS
        0xaad7_aaea, // PanFS
        0xbeef_dead, // StorNext
        0x0131_11a8, // IBRIX
        0xa501_fcf5, // VxFS
        // Shared folders of a virtual machine's host.
        0x786f_4256, // vboxsf
        0xbacb_acbc, // vmhgfs
        0x7c7c_6673, // prl_fs
        0x00c0_ffee, // hostfs
    ];
    let magic = file_system(file)?;
    Ok(match magic {
        _ if IN_MEMORY.contains(&magic) => FileSystem::Memory,
        _ if SHARED_BETWEEN_HOSTS.contains(&magic) => FileSystem::Network(magic),
        _ => FileSystem::Local,
    })
}

const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// Whether the file is on overlayfs, which maps another file than the one that was opened.
pub(crate) fn is_on_overlay(file: &File) -> Result<bool, Errno> {
    Ok(file_system(file)? == OVERLAYFS_SUPER_MAGIC)
}

/// Makes every write to a file that is still empty go to the reserved place. A file system that copies on write puts each
/// write elsewhere. The first write then uses up the reserved space, and on a full file system the next one is a SIGBUS.
/// `EOPNOTSUPP`: the file system always copies.
pub(crate) fn write_in_place(file: &File) -> Result<(), Errno> {
    const BTRFS_SUPER_MAGIC: u64 = 0x9123_683e;
    const ALWAYS_COPY_ON_WRITE: [u64; 2] = [
        0x3434,      // nilfs2
        0xca45_1a4e, // bcachefs
    ];
    match file_system(file)? {
        BTRFS_SUPER_MAGIC => forbid_copy_on_write(file),
        // The layer below may be btrfs.
        OVERLAYFS_SUPER_MAGIC => forbid_copy_on_write(file).or(Ok(())),
        magic if ALWAYS_COPY_ON_WRITE.contains(&magic) => Err(Errno(libc::EOPNOTSUPP)),
        _ => Ok(()),
    }
}

/// As `chattr +C` does it.
fn forbid_copy_on_write(file: &File) -> Result<(), Errno> {
    // From linux/fs.h. Compressed files are copied on write, too.
    const FS_COMPR_FL: libc::c_int = 0x4;
    const FS_NOCOW_FL: libc::c_int = 0x80_0000;
    let mut flags: libc::c_int = 0;
    // SAFETY: these ioctls write and read an int, though their numbers say a long.
    unsafe {
        Errno::check(libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags))?;
        flags = flags & !FS_COMPR_FL | FS_NOCOW_FL;
        Errno::check(libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags))?;
    }
    Ok(())
}

/// Whether a path is on the kernel's procfs. By the path, because the program could close a descriptor.
pub(in crate::sys) fn is_procfs(path: &CStr) -> bool {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    // SAFETY: statfs(2) reads the path and fills the struct it is given when it returns 0.
    unsafe { Errno::filled_by(|metadata| libc::statfs(path.as_ptr(), metadata)) }.map(magic) == Ok(PROC_SUPER_MAGIC)
}

/// The magic number of the file system that the file is on.
fn file_system(file: &File) -> Result<u64, Errno> {
    // SAFETY: fstatfs(2) fills the struct it is given when it returns 0.
    unsafe { Errno::filled_by(|metadata| libc::fstatfs(file.as_raw_fd(), metadata)) }.map(magic)
}

fn magic(metadata: libc::statfs) -> u64 {
    // f_type is signed on some architectures; the magic numbers have 32 bits.
    u64::from(metadata.f_type as u32)
}
