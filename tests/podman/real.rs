// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real Podman, driven by its command line, with a storage and settings of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use lock_manager::{Manager, ShmManager};

use crate::generation::Generation;
use crate::sandbox::{SEGMENT, segment, until};

/// How many locks a Podman makes that was told nothing else.
pub const DEFAULT_LOCKS: u32 = 2048;

// Where the mutexes are in Podman's segment, from libpod's shm_lock.h with glibc on 64 bits.
const HEADER_BYTES: u64 = 56;
const LOCKS_PER_GROUP: u64 = 32;
const BITMAP_BYTES: u64 = 8;
const MUTEX_BYTES: u64 = 40;
const GROUP_BYTES: u64 = BITMAP_BYTES + LOCKS_PER_GROUP * MUTEX_BYTES;

/// Where in the segment the mutex is that guards the bitmaps.
pub const GUARD_OFFSET: u64 = 8;

/// Where in the segment the mutex of lock `id` is.
pub fn mutex_offset(id: u32) -> u64 {
    let id = u64::from(id);
    HEADER_BYTES + id / LOCKS_PER_GROUP * GROUP_BYTES + BITMAP_BYTES + id % LOCKS_PER_GROUP * MUTEX_BYTES
}

/// The ids that are allocated.
pub fn allocated(manager: &ShmManager) -> BTreeSet<u32> {
    (0..manager.num_locks().unwrap()).filter(|&id| manager.lock_info(id).unwrap().allocated).collect()
}

/// A Podman with everything that it writes beneath one directory.
pub struct Podman {
    home: PathBuf,
    generation: Generation,
}

impl Podman {
    /// Within a sandbox: it has no volume, no pod and no segment yet.
    pub fn without_anything(home: &str, generation: Generation) -> Self {
        let podman = Self { home: Path::new("/dev/shm").join(home), generation };
        fs::create_dir(&podman.home).unwrap();
        podman.set_num_locks(DEFAULT_LOCKS);
        let home = podman.home.display();
        podman.write(
            "storage.conf",
            &format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{home}/root\"\nrunroot = \"{home}/run\"\n"),
        );
        podman
    }

    /// How many locks its segment is to have, from now on.
    pub fn set_num_locks(&self, num_locks: u32) {
        self.configure(&format!("num_locks = {num_locks}"));
    }

    /// Has it keep its locks in files, from now on; gives the directory.
    pub fn use_file_locks(&self) -> PathBuf {
        self.configure("lock_type = \"file\"");
        self.home.join("tmp/locks")
    }

    fn configure(&self, engine: &str) {
        let home = self.home.display();
        self.write(
            "containers.conf",
            &format!(
                "[engine]\nevents_logger = \"none\"\n{engine}\n\
                 [network]\nnetwork_config_dir = \"{home}/networks\"\n"
            ),
        );
    }

    /// Which Podman it is.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Its major and its minor version.
    pub fn version(&self) -> (u32, u32) {
        let said = self.run(&["--version"]);
        let mut numbers = said.trim().rsplit(' ').next().unwrap().split('.').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Makes Podman believe that the machine was booted: it keeps word of its last start in this directory.
    pub fn forget_boot(&self) {
        fs::remove_dir_all(self.home.join("tmp")).unwrap();
    }

    /// Runs `podman` to its end, which must be a good one, and gives what it said.
    pub fn run(&self, arguments: &[&str]) -> String {
        self.start(arguments).succeed()
    }

    /// Runs `podman`, which must fail, and gives its complaint.
    pub fn fail(&self, arguments: &[&str]) -> String {
        let (status, said, complaint) = self.start(arguments).end();
        assert!(!status.success(), "podman {arguments:?} was to fail, and said {said}");
        complaint
    }

    /// Creates a volume and gives the id of the lock that it took, by what `manager` sees.
    pub fn create_volume(&self, manager: &ShmManager, name: &str) -> u32 {
        self.taking_one_lock(manager, &["volume", "create", name])
    }

    /// Creates a pod without containers, otherwise as [`create_volume`](Self::create_volume).
    pub fn create_pod(&self, manager: &ShmManager, name: &str) -> u32 {
        self.taking_one_lock(manager, &["pod", "create", "--infra=false", name])
    }

    /// Creates a volume that [`hold_mounting`](Self::hold_mounting) can mount.
    pub fn create_mountable_volume(&self, manager: &ShmManager, name: &str) -> u32 {
        self.taking_one_lock(manager, &["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", name])
    }

    /// Starts a Podman that holds the volume's lock: it mounts the volume by a `mount` of ours that does not return
    /// before [`end_mounting`](Self::end_mounting), and then fails.
    pub fn hold_mounting(&self, name: &str) -> Running {
        let directory = self.home.join("bin");
        let mount = directory.join("mount");
        fs::create_dir_all(&directory).unwrap();
        let home = self.home.display();
        fs::write(&mount, format!("#!/bin/sh\nwhile [ ! -e {home}/go-on ]; do sleep 0.01; done\nexit 1\n")).unwrap();
        fs::set_permissions(&mount, fs::Permissions::from_mode(0o700)).unwrap();
        let path = format!("{}:{}", directory.display(), self.generation.path());
        let mut command = self.command(&[]);
        if is_rootless() {
            // A rootless Podman mounts volumes in its own user namespace only.
            let again = self.command(&[]);
            command.arg("unshare").arg(again.get_program()).args(again.get_args());
        }
        Running::start(command.args(["volume", "mount", name]).env("PATH", path))
    }

    /// Lets the `mount` of [`hold_mounting`](Self::hold_mounting) return.
    pub fn end_mounting(&self) {
        self.write("go-on", "");
    }

    /// Starts `podman` and does not wait for it.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let beneath = |name| self.home.join(name);
        // Without a CONTAINER_HOST of the user's, which would send all of it to another Podman.
        let mut command = self.generation.command("podman");
        command
            .env("HOME", &self.home)
            .env("XDG_RUNTIME_DIR", &self.home)
            .env("TMPDIR", &self.home)
            .env("CONTAINERS_CONF", beneath("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", beneath("storage.conf"))
            .arg("--root")
            .arg(beneath("root"))
            .arg("--runroot")
            .arg(beneath("run"))
            .arg("--tmpdir")
            .arg(beneath("tmp"))
            .args(arguments);
        command
    }

    fn taking_one_lock(&self, manager: &ShmManager, arguments: &[&str]) -> u32 {
        let before = allocated(manager);
        self.run(arguments);
        let taken: Vec<u32> = allocated(manager).difference(&before).copied().collect();
        assert_eq!(taken.len(), 1, "podman {arguments:?} was to take one lock and took {taken:?}");
        taken[0]
    }

    fn write(&self, name: &str, contents: &str) {
        fs::write(self.home.join(name), contents).unwrap();
    }
}

/// A Podman that runs.
pub struct Running {
    child: Child,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().unwrap() }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until one of its threads sleeps in futex(2) on the mutex at `offset` of the segment; in which process.
    pub fn until_it_waits_at(&mut self, offset: u64) -> i32 {
        let segment = segment();
        let mut waits = None;
        until(&format!("podman sleeps at byte {offset} of {segment}"), || {
            assert!(!self.has_ended(), "podman was to wait, and ended");
            waits = self.processes().into_iter().find(|&pid| sleeps_at(pid, &segment, offset));
            waits.is_some()
        });
        waits.unwrap()
    }

    /// Those that may be it: a rootless Podman may go on in a child, in a world whose processes are all of its making.
    fn processes(&self) -> Vec<i32> {
        if !is_rootless() {
            return vec![self.pid()];
        }
        let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.parse().ok()).collect()
    }

    /// Waits until one of its threads sleeps in fcntl(2), as one that waits for a record lock does.
    pub fn until_it_waits_for_a_file(&mut self) {
        let fcntl = format!("{} ", libc::SYS_fcntl);
        until("podman sleeps in fcntl(2)", || {
            assert!(!self.has_ended(), "podman was to wait, and ended");
            let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid())) else { return false };
            threads.flatten().any(|thread| {
                fs::read_to_string(thread.path().join("syscall")).is_ok_and(|call| call.starts_with(&fcntl))
            })
        });
    }

    /// Waits until it is over, which must be well, and gives what it said.
    pub fn succeed(self) -> String {
        let (status, said, complaint) = self.end();
        assert!(status.success(), "podman failed with {status}: {complaint}");
        said
    }

    /// Ends it by SIGKILL, with whatever it holds.
    pub fn kill(self) {}

    /// How it ended, what it said, and what it complained about: less than a pipe holds.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        until("podman ends", || self.has_ended());
        let (mut said, mut complaint) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        (self.child.wait().unwrap(), said, complaint)
    }
}

fn is_rootless() -> bool {
    segment() != SEGMENT
}

fn sleeps_at(pid: i32, segment: &str, offset: u64) -> bool {
    let process = format!("/proc/{pid}");
    // Podman comes and goes while this reads; what is not there is not waiting.
    let Ok(maps) = fs::read_to_string(format!("{process}/maps")) else { return false };
    let Some(map) = maps.lines().find(|line| line.ends_with(segment)) else { return false };
    let start = u64::from_str_radix(map.split('-').next().unwrap(), 16).unwrap();
    let sleep = format!("{} {:#x} ", libc::SYS_futex, start + offset);
    let Ok(threads) = fs::read_dir(format!("{process}/task")) else { return false };
    threads
        .flatten()
        .any(|thread| fs::read_to_string(thread.path().join("syscall")).is_ok_and(|call| call.starts_with(&sleep)))
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
