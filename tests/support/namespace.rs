// SPDX-License-Identifier: MIT OR Apache-2.0
//! Namespaces of a child's own, for full file systems and for thread ids that mean two threads.

use std::ffi::CString;
use std::fs;
use std::io::Error;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;

/// The inode of the PID namespace that the machine boots into.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether the holder of a lock can be judged here: only from the initial PID namespace are all processes seen.
pub fn sees_all_processes_or_skip() -> bool {
    let initial = fs::metadata("/proc/self/ns/pid").is_ok_and(|link| link.ino() == INITIAL_PID_NAMESPACE);
    if !initial {
        super::skip("needs the initial PID namespace");
    }
    initial
}

/// Puts an empty tmpfs of that size over /dev/shm, seen by the calling process alone. To be called in a forked child.
pub fn private_shm(size: &str) {
    private_mounts();
    mount("tmpfs", "/dev/shm", "tmpfs", 0, &format!("size={size}"));
}

/// Has the calling process, which has one thread, see a copy of all mounts: what it does to them shows nowhere else.
fn private_mounts() {
    // SAFETY: unshare(2) touches no memory.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) });
    keep_mounts_private();
}

/// For a process that has just got a copy of all mounts.
fn keep_mounts_private() {
    let [root, directory] = ["/", "."].map(|path| fs::File::open(path).unwrap());
    // In a plain chroot "/" is no mount point, and no path leads to the mount that it lies on. Who enters a mount
    // namespace starts at its root: from there one does.
    enter_namespace(&fs::File::open("/proc/self/ns/mnt").unwrap(), libc::CLONE_NEWNS);
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "");
    // SAFETY: fchdir(2) touches no memory, and chroot(2) reads the string.
    unsafe {
        check(libc::fchdir(root.as_raw_fd()));
        check(libc::chroot(c".".as_ptr()));
        check(libc::fchdir(directory.as_raw_fd()));
    }
}

fn enter_namespace(namespace: &fs::File, kind: i32) {
    // SAFETY: setns(2) touches no memory.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) });
}

/// Lets the calling process, which has one thread, mount what it alone sees: as root, or as root of a user namespace of its
/// own. If neither can be, says that the test is skipped.
pub fn mounts_or_skip() -> bool {
    // SAFETY: unshare(2) touches no memory; geteuid(2) and getegid(2) take nothing.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            let (user, group) = (libc::geteuid(), libc::getegid());
            if libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) != 0 {
                super::skip("needs root, or a user namespace");
                return false;
            }
            map_user(user, user);
            fs::write("/proc/self/gid_map", format!("{group} {group} 1")).unwrap();
        }
    }
    keep_mounts_private();
    true
}

/// Has the calling process, which has one thread, be that user in a user namespace of its own. If it cannot, the test is
/// skipped.
pub fn be_user_in_a_namespace_or_skip(inside: u32) -> bool {
    // SAFETY: geteuid(2) takes nothing; unshare(2) touches no memory.
    let outside = unsafe { libc::geteuid() };
    // SAFETY: as above.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        super::skip("needs a user namespace");
        return false;
    }
    map_user(inside, outside);
    true
}

/// Has the calling process, which has just got a user namespace of its own, and was `outside`, be the user `inside` there.
/// All others are unknown.
pub fn map_user(inside: u32, outside: u32) {
    // Who has given up being root may not write to its own files of /proc otherwise.
    // SAFETY: prctl(2) with these arguments touches no memory.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("{inside} {outside} 1")).unwrap();
}

/// Puts one file in the place of another, after [`mounts_or_skip`].
pub fn bind(file: &Path, place: &Path) {
    mount(file.to_str().unwrap(), place.to_str().unwrap(), "", libc::MS_BIND, "");
}

/// Mounts that kind of file system, after [`mounts_or_skip`].
pub fn mount_kind(kind: &str, place: &Path, data: &str) {
    mount("none", place.to_str().unwrap(), kind, 0, data);
}

fn mount(what: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) {
    let [what, target, kind, data] = [what, target, kind, data].map(|text| CString::new(text).unwrap());
    // SAFETY: mount(2) reads the four strings, which live past the call.
    check(unsafe { libc::mount(what.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) });
}

/// Has the children that the caller forks from here on live in a new PID namespace, the first of them as PID 1.
pub fn new_pid_namespace_for_children() {
    // SAFETY: unshare(2) touches no memory.
    check(unsafe { libc::unshare(libc::CLONE_NEWPID) });
}

/// Makes every open of the calling process that asks for a file without a name fail, as on file systems that have none.
#[cfg(target_arch = "x86_64")]
pub fn forbid_unnamed_files() {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Of struct seccomp_data: the number, and the low half of the third argument.
    const NUMBER: u32 = 0;
    const FLAGS: u32 = 16 + 2 * 8;
    const O_TMPFILE: u32 = libc::O_TMPFILE as u32;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, 0, 0, NUMBER),
        step(IF_EQUAL, 0, 3, libc::SYS_openat as u32),
        step(LOAD, 0, 0, FLAGS),
        step(AND, 0, 0, O_TMPFILE),
        step(IF_EQUAL, 1, 0, O_TMPFILE),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: prctl(2) copies the program, which lives past the call; the kernel checks it.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        check(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, ptr::from_ref(&program)));
    }
}

fn check(code: i32) {
    assert_eq!(code, 0, "{}", Error::last_os_error());
}

/// Lets nothing be written to /dev/shm any more, after [`private_shm`].
pub fn make_shm_read_only() {
    mount("none", "/dev/shm", "", libc::MS_REMOUNT | libc::MS_RDONLY, "");
}

/// Has the calling process live in an empty chroot with /proc and /dev/shm alone, after [`private_shm`].
pub fn enter_plain_chroot() {
    for directory in ["proc", "dev/shm"] {
        fs::create_dir_all(format!("/dev/shm/chroot/{directory}")).unwrap();
    }
    mount("/proc", "/dev/shm/chroot/proc", "", libc::MS_BIND | libc::MS_REC, "");
    // SAFETY: chroot(2) and chdir(2) read the strings.
    unsafe {
        check(libc::chroot(c"/dev/shm/chroot".as_ptr()));
        check(libc::chdir(c"/".as_ptr()));
    }
}

/// Mounts an overlay beneath /dev/shm, after [`private_shm`]; gives where.
pub fn overlay() -> &'static str {
    for directory in ["lower", "upper", "work", "merged"] {
        fs::create_dir(format!("/dev/shm/{directory}")).unwrap();
    }
    let layers = "lowerdir=/dev/shm/lower,upperdir=/dev/shm/upper,workdir=/dev/shm/work";
    mount("overlay", "/dev/shm/merged", "overlay", 0, layers);
    "/dev/shm/merged"
}

/// Mounts a /proc that numbers processes as the calling one's PID namespace does, seen by the caller alone.
pub fn private_proc() {
    private_mounts();
    mount("proc", "/proc", "proc", 0, "");
}

/// Puts an empty directory over /proc, seen by the calling process alone.
pub fn hide_proc() {
    private_mounts();
    mount("tmpfs", "/proc", "tmpfs", 0, "");
}

/// Has the calling process, which has one thread, live in a new time namespace, where the machine was booted that many
/// hours earlier; the namespace that it leaves.
pub fn new_time_namespace(hours: u64) -> fs::File {
    let left = fs::File::open("/proc/self/ns/time").unwrap();
    // SAFETY: unshare(2) touches no memory.
    check(unsafe { libc::unshare(libc::CLONE_NEWTIME) });
    fs::write("/proc/self/timens_offsets", format!("boottime {} 0", hours * 3600)).unwrap();
    enter_time_namespace(&fs::File::open("/proc/self/ns/time_for_children").unwrap());
    left
}

/// Has the calling process, which has one thread, live in that time namespace.
pub fn enter_time_namespace(namespace: &fs::File) {
    enter_namespace(namespace, libc::CLONE_NEWTIME);
}
