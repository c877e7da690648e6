// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems, as far as locks and shared memory are concerned.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;

use crate::sys::Errno;

/// What kind of file system a file is on, as far as locks are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// In memory: no file of it outlives the boot.
    Memory,
    /// The same, of a file that has no name and is this process's alone.
    Nameless,
    Local,
    /// Of that type: neither memory mapped from it nor its locks are shared by all who open it.
    Network(u64),
}

/// The file system that the file is on.
pub(crate) fn file_system_of(file: &File) -> Result<FileSystem, Errno> {
    const IN_MEMORY: [u64; 2] = [
        0x0102_1994, // tmpfs
        0x8584_58f6, // ramfs
    ];
    // linux/magic.h and the file systems' own sources; most are not in the libc crate.
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
        // Of a cluster: some share memory and locks within one host only, some do it at a price.
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
        // Of a virtual machine's host.
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

/// Whether the file is on overlayfs, where what is mapped is not what was opened.
pub(crate) fn is_on_overlay(file: &File) -> Result<bool, Errno> {
    Ok(file_system(file)? == OVERLAYFS_SUPER_MAGIC)
}

/// Has the file, which is still empty, be written in place for good. Where each write of a page takes a new place instead,
/// what is reserved is used up by the first, and the next is a SIGBUS if the file system is full. `EOPNOTSUPP`: the file
/// system cannot.
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

/// By chattr's +C.
fn forbid_copy_on_write(file: &File) -> Result<(), Errno> {
    // Of linux/fs.h; what is compressed is copied.
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

/// Whether a path is on the kernel's own procfs. Without a descriptor, which the program could close meanwhile.
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
